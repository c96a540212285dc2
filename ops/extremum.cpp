#include "tenon/ops/extremum.h"

#include <array>

#include "tenon/core/structural.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/compare.h"
#include "tenon/ops/cpu/extremum.h"
#include "tenon/ops/cuda/extremum.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/gather.h"
#include "tenon/ops/reduce.h"
#include "tenon/ops/where.h"

namespace tenon::ops {
namespace {

/// Throws unless dimension `d` of `shape` has something to choose from.
void check_choice(std::string_view op, const Shape& shape, std::size_t d) {
  TENON_CHECK(shape.empty() || shape[d] > 0, op, ": dimension ", d, " of ", shape,
              " is empty; there is nothing to choose from");
}

/// The extremes along one dimension, which keeps size 1.
Tensor reduce_dim(Extreme extreme, const Tensor& x, std::size_t dim) {
  TensorSpec spec = x.spec();
  spec.shape[dim] = 1;
  const Tensor values = tenon::detail::make_empty(spec);
  TENON_DISPATCH(x.device(), extremum(extreme, x, dim, values));
  return values;
}

Tensor position(Extreme extreme, const Tensor& x, std::int64_t dim, bool keepdim) {
  const std::array<Tensor, 1> inputs{x};
  return call(std::make_shared<const IndexedExtremumOp>(extreme, dim, keepdim), inputs)[1];
}

}  // namespace

// ---- values over dimensions ---------------------------------------------------------------------

Attributes ExtremumOp::attributes() const {
  return {{"dims", dims_.to_vector()}, {"keepdim", keepdim_}};
}

std::vector<TensorSpec> ExtremumOp::infer(std::span<const TensorSpec> inputs) const {
  const Shape& shape = inputs[0].shape;
  const Shape result = reduced_shape(shape, dims_, keepdim_, name());
  if (dims_.empty()) {
    for (std::size_t d = 0; d < shape.size(); ++d) check_choice(name(), shape, d);
  }
  for (std::int64_t dim : dims_)
    check_choice(name(), shape, normalize_dim(dim, shape.size(), name()));
  return {{result, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> ExtremumOp::forward(std::span<const Tensor> inputs,
                                        std::span<const TensorSpec> outputs) const {
  const Shape& shape = inputs[0].shape();
  const Shape kept = reduced_shape(shape, dims_, true, name());
  Tensor values = inputs[0].contiguous();
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (kept[d] != shape[d]) values = reduce_dim(extreme_, values, d);
  }
  if (values.is_same(inputs[0])) values = values.clone();
  return {values.reshape(outputs[0].shape)};
}

Saved ExtremumOp::saved(IndexMask) const {
  return {.inputs = index_bit(0), .outputs = index_bit(0)};
}

std::vector<Tensor> ExtremumOp::backward(const BackwardContext& context,
                                         std::span<const Tensor> grad_outputs) const {
  const Tensor x = context.input(0);
  const Shape kept = reduced_shape(x.shape(), dims_, true, name());
  const Tensor values = context.output(0).reshape(kept);
  const Tensor chosen = logical_or(eq(x, values), logical_and(isnan(x), isnan(values)));
  const Tensor count = sum_to(chosen.to(x.dtype()), kept);
  return {where(chosen, grad_outputs[0].reshape(kept) / count, 0)};
}

// ---- values and positions along one dimension ---------------------------------------------------

Attributes IndexedExtremumOp::attributes() const { return {{"dim", dim_}, {"keepdim", keepdim_}}; }

std::vector<TensorSpec> IndexedExtremumOp::infer(std::span<const TensorSpec> inputs) const {
  const Shape& shape = inputs[0].shape;
  check_choice(name(), shape, normalize_dim(dim_, shape.size(), name()));
  const Shape result = reduced_shape(shape, {dim_}, keepdim_, name());
  return {{result, inputs[0].dtype, inputs[0].device}, {result, DType::Int64, inputs[0].device}};
}

std::vector<Tensor> IndexedExtremumOp::forward(std::span<const Tensor> inputs,
                                               std::span<const TensorSpec> outputs) const {
  const Tensor x = inputs[0].contiguous();
  const std::size_t dim = normalize_dim(dim_, x.dim(), name());
  const Tensor values = tenon::detail::make_empty(outputs[0]);
  const Tensor indices = tenon::detail::make_empty(outputs[1]);
  TENON_DISPATCH(x.device(), indexed_extremum(extreme_, x, dim, values, indices));
  return {values, indices};
}

Saved IndexedExtremumOp::saved(IndexMask) const { return {.outputs = index_bit(1)}; }

std::vector<Tensor> IndexedExtremumOp::backward(const BackwardContext& context,
                                                std::span<const Tensor> grad_outputs) const {
  const Shape& shape = context.input_spec(0).shape;
  if (shape.empty()) return {grad_outputs[0]};
  const Shape kept = reduced_shape(shape, {dim_}, true, name());
  const std::int64_t size = shape[normalize_dim(dim_, shape.size(), name())];
  const Tensor index = context.output(1).reshape(kept);
  return {scatter_add(grad_outputs[0].reshape(kept), dim_, index, size)};
}

// ---- free functions -----------------------------------------------------------------------------

Tensor amax(const Tensor& x, const Shape& dims, bool keepdim) {
  return apply(ExtremumOp(Extreme::Max, dims, keepdim), {x});
}
Tensor amin(const Tensor& x, const Shape& dims, bool keepdim) {
  return apply(ExtremumOp(Extreme::Min, dims, keepdim), {x});
}
Tensor max(const Tensor& x) { return amax(x); }
Tensor min(const Tensor& x) { return amin(x); }

std::pair<Tensor, Tensor> max(const Tensor& x, std::int64_t dim, bool keepdim) {
  const std::array<Tensor, 1> inputs{x};
  const std::vector<Tensor> result =
      call(std::make_shared<const IndexedExtremumOp>(Extreme::Max, dim, keepdim), inputs);
  return {result[0], result[1]};
}
std::pair<Tensor, Tensor> min(const Tensor& x, std::int64_t dim, bool keepdim) {
  const std::array<Tensor, 1> inputs{x};
  const std::vector<Tensor> result =
      call(std::make_shared<const IndexedExtremumOp>(Extreme::Min, dim, keepdim), inputs);
  return {result[0], result[1]};
}

Tensor argmax(const Tensor& x) { return position(Extreme::Max, x.flatten(), 0, false); }
Tensor argmax(const Tensor& x, std::int64_t dim, bool keepdim) {
  return position(Extreme::Max, x, dim, keepdim);
}
Tensor argmin(const Tensor& x) { return position(Extreme::Min, x.flatten(), 0, false); }
Tensor argmin(const Tensor& x, std::int64_t dim, bool keepdim) {
  return position(Extreme::Min, x, dim, keepdim);
}

}  // namespace tenon::ops
