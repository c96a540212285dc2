#include "tenon/ops/softmax.h"

#include "tenon/core/tensor_body.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/cpu/softmax.h"
#include "tenon/ops/cuda/softmax.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/promotion.h"
#include "tenon/ops/reduce.h"
#include "tenon/ops/unary.h"

namespace tenon::ops {

std::vector<TensorSpec> SoftmaxOp::infer(std::span<const TensorSpec> inputs) const {
  TENON_CHECK(is_floating(inputs[0].dtype), name(), ": needs a floating dtype, got ",
              inputs[0].dtype);
  normalize_dim(dim_, inputs[0].shape.size(), name());
  return {inputs[0]};
}

std::vector<Tensor> SoftmaxOp::forward(std::span<const Tensor> inputs,
                                       std::span<const TensorSpec> outputs) const {
  const Tensor y = tenon::detail::make_empty(outputs[0]);
  const std::size_t dim = normalize_dim(dim_, y.dim(), name());
  TENON_DISPATCH(y.device(), softmax(inputs[0].contiguous(), dim, logarithm_, y));
  return {y};
}

Saved SoftmaxOp::saved(IndexMask) const { return {.outputs = index_bit(0)}; }

std::vector<Tensor> SoftmaxOp::backward(const BackwardContext& context,
                                        std::span<const Tensor> grad_outputs) const {
  const Tensor y = context.output(0);
  const Tensor& g = grad_outputs[0];
  if (logarithm_) return {g - exp(y) * sum(g, {dim_}, true)};
  const Tensor weighted = g * y;
  return {weighted - y * sum(weighted, {dim_}, true)};
}

Tensor softmax(const Tensor& x, std::int64_t dim) {
  return apply(SoftmaxOp(dim, false), {x.to(floating_type(x.dtype()))});
}

Tensor log_softmax(const Tensor& x, std::int64_t dim) {
  return apply(SoftmaxOp(dim, true), {x.to(floating_type(x.dtype()))});
}

}  // namespace tenon::ops
