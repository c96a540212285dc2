#include "tenon/ops/optimizer_step.h"

#include <initializer_list>

#include "tenon/core/tensor_body.h"
#include "tenon/ops/cpu/optimizer_step.h"
#include "tenon/ops/cuda/optimizer_step.h"
#include "tenon/ops/dispatch.h"

namespace tenon::ops {
namespace {

void check_state(std::string_view op, const Tensor& parameter,
                 std::initializer_list<Tensor> others) {
  TENON_CHECK(parameter.defined(), op, ": the parameter is undefined");
  TENON_CHECK(is_floating(parameter.dtype()), op, ": needs a floating parameter, got ",
              parameter.dtype());
  for (const Tensor& other : others) {
    TENON_CHECK(other.defined(), op, ": the gradient or a state tensor is undefined");
    TENON_CHECK(other.spec() == parameter.spec(), op, ": the parameter is ", parameter.spec(),
                " but its gradient or state is ", other.spec());
  }
}

void bump_version(const Tensor& tensor) { tensor.body()->storage->bump_version(); }

}  // namespace

void sgd_step(const Tensor& parameter, const Tensor& grad, const Tensor& momentum_buffer,
              const SgdStep& step) {
  check_state("sgd_step", parameter, {grad});
  if (step.momentum != 0) check_state("sgd_step", parameter, {momentum_buffer});
  TENON_DISPATCH(parameter.device(), sgd_step(parameter, grad, momentum_buffer, step));
  bump_version(parameter);
  if (step.momentum != 0) bump_version(momentum_buffer);
}

void adam_step(const Tensor& parameter, const Tensor& grad, const Tensor& m, const Tensor& v,
               const AdamStep& step) {
  check_state("adam_step", parameter, {grad, m, v});
  TENON_CHECK(step.count >= 1, "adam_step: steps count from 1, got ", step.count);
  TENON_DISPATCH(parameter.device(), adam_step(parameter, grad, m, v, step));
  bump_version(parameter);
  bump_version(m);
  bump_version(v);
}

}  // namespace tenon::ops
