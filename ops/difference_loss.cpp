#include "tenon/ops/difference_loss.h"

#include "tenon/core/factories.h"
#include "tenon/core/memory_format.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/cpu/difference_loss.h"
#include "tenon/ops/cuda/difference_loss.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/reduce.h"
#include "tenon/ops/unary.h"

namespace tenon::ops {
namespace {

Attributes reduction_attribute(Reduction reduction) {
  return {{"reduction", std::string(reduction == Reduction::Mean ? "mean" : "sum")}};
}

void check_operands(std::string_view op, const TensorSpec& x, const TensorSpec& target) {
  TENON_CHECK(x == target, op, ": the input is ", x, " but the target is ", target);
  TENON_CHECK(is_floating(x.dtype), op, ": needs a floating dtype, got ", x.dtype);
}

/// What the sum of the elements' losses is divided by.
double divisor_of(Reduction reduction, const Shape& shape) {
  return reduction == Reduction::Mean ? static_cast<double>(shape.numel()) : 1;
}

/// The loss's derivative by an element divided by its difference or, if Absolute, by the sign of
/// it.
double slope_of(DifferenceLossKind kind, Reduction reduction, const Shape& shape) {
  return (kind == DifferenceLossKind::Squared ? 2 : 1) / divisor_of(reduction, shape);
}

/// Whether both lie in memory without gaps, and in one order.
bool lie_alike(const Tensor& a, const Tensor& b) {
  if (!is_dense(a.shape(), a.strides())) return false;
  for (std::size_t d = 0; d < a.dim(); ++d) {
    if (a.shape()[d] != 1 && a.strides()[d] != b.strides()[d]) return false;
  }
  return true;
}

}  // namespace

// ---- the loss -----------------------------------------------------------------------------------

std::string_view DifferenceLossOp::name() const {
  return kind_ == DifferenceLossKind::Squared ? "mse_loss" : "l1_loss";
}

Attributes DifferenceLossOp::attributes() const { return reduction_attribute(reduction_); }

std::vector<TensorSpec> DifferenceLossOp::infer(std::span<const TensorSpec> inputs) const {
  check_operands(name(), inputs[0], inputs[1]);
  return {{{}, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> DifferenceLossOp::forward(std::span<const Tensor> inputs,
                                              std::span<const TensorSpec> outputs) const {
  const Tensor loss = tenon::detail::make_empty(outputs[0]);
  const bool alike = lie_alike(inputs[0], inputs[1]);
  const Tensor x = alike ? inputs[0] : inputs[0].contiguous();
  const Tensor target = alike ? inputs[1] : inputs[1].contiguous();
  const double divisor = divisor_of(reduction_, x.shape());
  TENON_DISPATCH(loss.device(), difference_loss(kind_, x, target, divisor, loss));
  return {loss};
}

Saved DifferenceLossOp::saved(IndexMask) const { return {.inputs = index_bit(0) | index_bit(1)}; }

std::vector<Tensor> DifferenceLossOp::backward(const BackwardContext& context,
                                               std::span<const Tensor> grad_outputs) const {
  std::vector<Tensor> grads(2);
  for (std::size_t i = 0; i < 2; ++i) {
    if (!context.needs_grad(i)) continue;
    grads[i] = apply(DifferenceLossGradOp(kind_, reduction_),
                     {grad_outputs[0], context.input(i), context.input(1 - i)});
  }
  return grads;
}

// ---- its gradient -------------------------------------------------------------------------------

std::string_view DifferenceLossGradOp::name() const {
  return kind_ == DifferenceLossKind::Squared ? "mse_loss_grad" : "l1_loss_grad";
}

Attributes DifferenceLossGradOp::attributes() const { return reduction_attribute(reduction_); }

std::vector<TensorSpec> DifferenceLossGradOp::infer(std::span<const TensorSpec> inputs) const {
  check_operands(name(), inputs[1], inputs[2]);
  TENON_CHECK(inputs[0].shape.empty() && inputs[0].dtype == inputs[1].dtype, name(),
              ": the gradient must be a ", inputs[1].dtype, " scalar, got ", inputs[0]);
  return {inputs[1]};
}

std::vector<Tensor> DifferenceLossGradOp::forward(std::span<const Tensor> inputs,
                                                  std::span<const TensorSpec> outputs) const {
  const Tensor grad_x = tenon::detail::make_elementwise(outputs[0], inputs.subspan(1));
  const double slope = slope_of(kind_, reduction_, grad_x.shape());
  TENON_DISPATCH(grad_x.device(),
                 difference_loss_grad(kind_, slope, inputs[0], inputs[1], inputs[2], grad_x));
  return {grad_x};
}

Saved DifferenceLossGradOp::saved(IndexMask needs_grad) const {
  const bool needs_operands = (needs_grad & index_bit(0)) != 0;
  const bool needs_grad_of_loss =
      (needs_grad & (index_bit(1) | index_bit(2))) != 0 && kind_ == DifferenceLossKind::Squared;
  return {.inputs = (needs_operands ? index_bit(1) | index_bit(2) : 0) |
                    (needs_grad_of_loss ? index_bit(0) : 0)};
}

std::vector<Tensor> DifferenceLossGradOp::backward(const BackwardContext& context,
                                                   std::span<const Tensor> grad_outputs) const {
  const Tensor& v = grad_outputs[0];
  const bool squared = kind_ == DifferenceLossKind::Squared;
  std::vector<Tensor> grads(3);
  if (context.needs_grad(0)) {
    const Tensor difference = context.input(1) - context.input(2);
    const Tensor product = v * (squared ? difference * 2 : sign(difference));
    grads[0] = reduction_ == Reduction::Mean ? mean(product) : sum(product);
  }
  if (!context.needs_grad(1) && !context.needs_grad(2)) return grads;
  const Tensor curved =
      squared ? v * context.input(0) * slope_of(kind_, reduction_, context.input_spec(1).shape)
              : zeros_like(v);
  if (context.needs_grad(1)) grads[1] = curved;
  if (context.needs_grad(2)) grads[2] = squared ? -curved : curved;
  return grads;
}

}  // namespace tenon::ops
