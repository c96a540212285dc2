#include "tenon/ops/where.h"

#include "tenon/core/factories.h"
#include "tenon/core/structural.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cpu/where.h"
#include "tenon/ops/cuda/where.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/promotion.h"

namespace tenon::ops {

std::vector<TensorSpec> WhereOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& condition = inputs[0];
  const TensorSpec& x = inputs[1];
  const TensorSpec& y = inputs[2];
  TENON_CHECK(condition.dtype == DType::Bool, "where: the condition must be bool, got ",
              condition.dtype, "; compare, or convert with to()");
  TENON_CHECK(x.dtype == y.dtype, "where: the choices are ", x.dtype, " and ", y.dtype);
  const Shape choices = broadcast_shapes(x.shape, y.shape, "where");
  return {{broadcast_shapes(condition.shape, choices, "where"), x.dtype, x.device}};
}

std::vector<Tensor> WhereOp::forward(std::span<const Tensor> inputs,
                                     std::span<const TensorSpec> outputs) const {
  const Tensor out = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(out.device(), where(inputs[0], inputs[1], inputs[2], out));
  return {out};
}

Saved WhereOp::saved(IndexMask) const { return {.inputs = index_bit(0)}; }

std::vector<Tensor> WhereOp::backward(const BackwardContext& context,
                                      std::span<const Tensor> grad_outputs) const {
  const Tensor condition = context.input(0);
  const Tensor& g = grad_outputs[0];
  std::vector<Tensor> grads(3);
  if (context.needs_grad(1)) {
    grads[1] = sum_to(where(condition, g, 0), context.input_spec(1).shape);
  }
  if (context.needs_grad(2)) {
    grads[2] = sum_to(where(condition, 0, g), context.input_spec(2).shape);
  }
  return grads;
}

namespace {

Tensor scalar_beside(const Tensor& other, Scalar value) {
  return scalar_tensor(value, {.dtype = result_type(other, value), .device = other.device()});
}

}  // namespace

Tensor where(const Tensor& condition, const Tensor& x, const Tensor& y) {
  const DType dtype = result_type(x, y);
  return apply(WhereOp(), {condition, x.to(dtype), y.to(dtype)});
}

Tensor where(const Tensor& condition, Scalar x, const Tensor& y) {
  return where(condition, scalar_beside(y, x), y);
}

Tensor where(const Tensor& condition, const Tensor& x, Scalar y) {
  return where(condition, x, scalar_beside(x, y));
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, Scalar value) {
  const Tensor filling = scalar_tensor(value, {.dtype = x.dtype(), .device = x.device()});
  return where(mask, filling, x);
}

}  // namespace tenon::ops
