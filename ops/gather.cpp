#include "tenon/ops/gather.h"

#include "tenon/core/tensor_body.h"
#include "tenon/ops/cpu/gather.h"
#include "tenon/ops/cuda/gather.h"
#include "tenon/ops/dispatch.h"

namespace tenon::ops {
namespace {

/// Checks an index tensor beside the tensor that is picked from or added to it.
std::size_t check(std::string_view op, const TensorSpec& x, const TensorSpec& index,
                  std::int64_t dim) {
  TENON_CHECK(index.dtype == DType::Int64, op, ": the index must be int64, got ", index.dtype);
  TENON_CHECK(!x.shape.empty(), op, ": a 0-dimensional tensor has no dimension to index");
  TENON_CHECK(x.shape.size() == index.shape.size(), op, ": x is ", x.shape, " but the index is ",
              index.shape, "; both need the same rank");
  return normalize_dim(dim, x.shape.size(), op);
}

}  // namespace

std::vector<TensorSpec> GatherOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = inputs[0];
  const std::size_t dim = check("gather", x, inputs[1], dim_);
  Shape expected = x.shape;
  expected[dim] = inputs[1].shape[dim];
  TENON_CHECK(inputs[1].shape == expected, "gather: the index ", inputs[1].shape, " must equal x ",
              x.shape, " but in dimension ", dim_);
  return {{inputs[1].shape, x.dtype, x.device}};
}

std::vector<Tensor> GatherOp::forward(std::span<const Tensor> inputs,
                                      std::span<const TensorSpec> outputs) const {
  const Tensor out = tenon::detail::make_empty(outputs[0]);
  const std::size_t dim = normalize_dim(dim_, out.dim(), "gather");
  TENON_DISPATCH(out.device(), gather(inputs[0].contiguous(), dim, inputs[1].contiguous(), out));
  return {out};
}

Saved GatherOp::saved(IndexMask) const { return {.inputs = index_bit(1)}; }

std::vector<Tensor> GatherOp::backward(const BackwardContext& context,
                                       std::span<const Tensor> grad_outputs) const {
  const Shape& shape = context.input_spec(0).shape;
  const std::int64_t size = shape[normalize_dim(dim_, shape.size(), "gather")];
  return {scatter_add(grad_outputs[0], dim_, context.input(1), size), {}};
}

std::vector<TensorSpec> ScatterAddOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = inputs[0];
  const std::size_t dim = check("scatter_add", x, inputs[1], dim_);
  TENON_CHECK(is_floating(x.dtype), "scatter_add: needs a floating dtype, got ", x.dtype);
  TENON_CHECK(x.shape == inputs[1].shape, "scatter_add: x is ", x.shape, " but the index is ",
              inputs[1].shape);
  TENON_CHECK(size_ >= 0, "scatter_add: the size ", size_, " is negative");
  Shape shape = x.shape;
  shape[dim] = size_;
  return {{shape, x.dtype, x.device}};
}

std::vector<Tensor> ScatterAddOp::forward(std::span<const Tensor> inputs,
                                          std::span<const TensorSpec> outputs) const {
  const Tensor out = tenon::detail::make_empty(outputs[0]);
  const std::size_t dim = normalize_dim(dim_, out.dim(), "scatter_add");
  TENON_DISPATCH(out.device(),
                 scatter_add(inputs[0].contiguous(), dim, inputs[1].contiguous(), out));
  return {out};
}

Saved ScatterAddOp::saved(IndexMask) const { return {.inputs = index_bit(1)}; }

std::vector<Tensor> ScatterAddOp::backward(const BackwardContext& context,
                                           std::span<const Tensor> grad_outputs) const {
  return {gather(grad_outputs[0], dim_, context.input(1)), {}};
}

Tensor gather(const Tensor& x, std::int64_t dim, const Tensor& index) {
  return apply(GatherOp(dim), {x, index});
}

Tensor scatter_add(const Tensor& x, std::int64_t dim, const Tensor& index, std::int64_t size) {
  return apply(ScatterAddOp(dim, size), {x, index});
}

}  // namespace tenon::ops
