#include "tenon/ops/optimizer_step.h"

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <string_view>
#include <vector>

#include "tenon/core/recording.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cpu/optimizer_step.h"
#include "tenon/ops/cuda/optimizer_step.h"
#include "tenon/ops/dispatch.h"

namespace tenon::ops {
namespace {

/// Pointers, because copying a handle counts its owners.
void check_state(std::string_view op, const Tensor& parameter,
                 std::initializer_list<const Tensor*> others) {
  TENON_CHECK(parameter.defined(), op, ": the parameter is undefined");
  TENON_CHECK(is_floating(parameter.dtype()), op, ": needs a floating parameter, got ",
              parameter.dtype());
  for (const Tensor* other : others) {
    TENON_CHECK(other->defined(), op, ": the gradient or a state tensor is undefined");
    TENON_CHECK(other->spec() == parameter.spec(), op, ": the parameter is ", parameter.spec(),
                " but its gradient or state is ", other->spec());
  }
}

/// The graph would have this step's rate and count in it for ever.
void refuse_recording(std::string_view op, const Tensor& parameter) {
  tenon::detail::refuse_while_recording(parameter.device(), op,
                                        "let the optimizer step outside, after it");
}

/// Calls `update` with the operands of one dtype and device at a time, in their order.
template <class Operands, class Update>
void for_each_kind(std::span<const Operands> operands, const Update& update) {
  const auto is_as = [](const Operands& first) {
    return [&first](const Operands& other) {
      return other.parameter.dtype() == first.parameter.dtype() &&
             other.parameter.device() == first.parameter.device();
    };
  };
  if (operands.empty()) return;
  if (std::all_of(operands.begin(), operands.end(), is_as(operands[0]))) {
    update(operands);
    return;
  }
  std::vector<Operands> rest(operands.begin(), operands.end());
  while (!rest.empty()) {
    std::vector<Operands> kind;
    std::copy_if(rest.begin(), rest.end(), std::back_inserter(kind), is_as(rest[0]));
    update(std::span<const Operands>(kind));
    std::erase_if(rest, is_as(kind[0]));
  }
}

}  // namespace

void sgd_step(std::span<const SgdOperands> operands, const SgdStep& step) {
  const bool has_buffer = step.momentum != 0;
  for (const SgdOperands& one : operands) {
    check_state("sgd_step", one.parameter, {&one.grad});
    refuse_recording("sgd_step", one.parameter);
    if (has_buffer) check_state("sgd_step", one.parameter, {&one.momentum_buffer});
  }
  for_each_kind(operands, [&](std::span<const SgdOperands> kind) {
    TENON_DISPATCH(kind[0].parameter.device(), sgd_step(kind, step));
  });
  for (const SgdOperands& one : operands) {
    tenon::detail::bump_version(one.parameter);
    if (has_buffer) tenon::detail::bump_version(one.momentum_buffer);
  }
}

void adam_step(std::span<const AdamOperands> operands, const AdamStep& step) {
  for (const AdamOperands& one : operands) {
    check_state("adam_step", one.parameter, {&one.grad, &one.m, &one.v});
    refuse_recording("adam_step", one.parameter);
    TENON_CHECK(one.count >= 1, "adam_step: steps count from 1, got ", one.count);
  }
  for_each_kind(operands, [&](std::span<const AdamOperands> kind) {
    TENON_DISPATCH(kind[0].parameter.device(), adam_step(kind, step));
  });
  for (const AdamOperands& one : operands) {
    tenon::detail::bump_version(one.parameter);
    tenon::detail::bump_version(one.m);
    tenon::detail::bump_version(one.v);
  }
}

}  // namespace tenon::ops
