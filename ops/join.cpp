#include "tenon/ops/join.h"

#include <algorithm>

#include "tenon/core/tensor_body.h"
#include "tenon/ops/promotion.h"

namespace tenon::ops {
namespace {

std::span<const Tensor> as_span(const std::initializer_list<Tensor>& tensors) {
  return {tensors.begin(), tensors.size()};
}

}  // namespace

std::vector<TensorSpec> CatOp::infer(std::span<const TensorSpec> inputs) const {
  TensorSpec result = inputs[0];
  TENON_CHECK(!result.shape.empty(), "cat: input 0 has no dimensions; use stack");
  const std::size_t dim = normalize_dim(dim_, result.shape.size(), "cat");
  result.shape[dim] = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const TensorSpec& input = inputs[i];
    TENON_CHECK(input.dtype == result.dtype, "cat: input 0 is ", result.dtype, " but input ", i,
                " is ", input.dtype);
    Shape expected = inputs[0].shape;
    if (input.shape.size() == expected.size()) expected[dim] = input.shape[dim];
    TENON_CHECK(input.shape == expected, "cat: inputs must be equal but in dimension ", dim_,
                "; input 0 is ", inputs[0].shape, " and input ", i, " is ", input.shape);
    result.shape[dim] += input.shape[dim];
  }
  return {result};
}

std::vector<Tensor> CatOp::forward(std::span<const Tensor> inputs,
                                   std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = inputs[0].suggest_memory_format();
  const bool agree = std::all_of(inputs.begin(), inputs.end(), [format](const Tensor& input) {
    return input.suggest_memory_format() == format;
  });
  const Tensor out =
      tenon::detail::make_empty(outputs[0], agree ? format : MemoryFormat::Contiguous);
  const std::size_t dim = normalize_dim(dim_, out.dim(), "cat");
  std::int64_t start = 0;
  for (const Tensor& input : inputs) {
    const std::int64_t length = input.shape()[dim];
    out.narrow(dim_, start, length).copy_(input);
    start += length;
  }
  return {out};
}

std::vector<Tensor> CatOp::backward(const BackwardContext& context,
                                    std::span<const Tensor> grad_outputs) const {
  std::vector<Tensor> grads(context.input_count());
  std::int64_t start = 0;
  for (std::size_t i = 0; i < grads.size(); ++i) {
    const Shape& shape = context.input_spec(i).shape;
    const std::int64_t length = shape[normalize_dim(dim_, shape.size(), "cat")];
    if (context.needs_grad(i)) grads[i] = grad_outputs[0].narrow(dim_, start, length);
    start += length;
  }
  return grads;
}

Tensor cat(std::span<const Tensor> tensors, std::int64_t dim) {
  TENON_CHECK(!tensors.empty(), "cat: needs at least one tensor");
  const DType dtype = result_type(tensors);
  // As PyTorch does, ignore tensors of shape [0], whatever the others' rank: what an empty list
  // collected so far is started with.
  std::vector<Tensor> joined;
  for (const Tensor& tensor : tensors) {
    if (tensor.shape() != Shape{0}) joined.push_back(tensor.to(dtype));
  }
  if (joined.empty()) joined.push_back(tensors[0].to(dtype));
  return apply(CatOp(dim), std::span<const Tensor>(joined));
}

Tensor cat(std::initializer_list<Tensor> tensors, std::int64_t dim) {
  return cat(as_span(tensors), dim);
}

Tensor stack(std::span<const Tensor> tensors, std::int64_t dim) {
  TENON_CHECK(!tensors.empty(), "stack: needs at least one tensor");
  std::vector<Tensor> rows;
  rows.reserve(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    TENON_CHECK(tensors[i].shape() == tensors[0].shape(),
                "stack: tensors must have equal shapes; input 0 is ", tensors[0].shape(),
                " and input ", i, " is ", tensors[i].shape());
    rows.push_back(tensors[i].unsqueeze(dim));
  }
  return cat(std::span<const Tensor>(rows), dim);
}

Tensor stack(std::initializer_list<Tensor> tensors, std::int64_t dim) {
  return stack(as_span(tensors), dim);
}

}  // namespace tenon::ops
