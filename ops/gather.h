// Picking elements by index along a dimension, and its adjoint. Inputs in another memory format are
// worked on as contiguous copies, and results are contiguous.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// out[i, j, k] = x[i, index[i, j, k], k] for dim 1, and so on for others.
class GatherOp : public Op {
 public:
  explicit GatherOp(std::int64_t dim) : dim_(dim) {}
  std::string_view name() const override { return "gather"; }
  Attributes attributes() const override { return {{"dim", dim_}}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  std::int64_t dim_;
};

/// The adjoint of `GatherOp`: zeros of `size` along `dim`, to which x is added at `index`.
class ScatterAddOp : public Op {
 public:
  ScatterAddOp(std::int64_t dim, std::int64_t size) : dim_(dim), size_(size) {}
  std::string_view name() const override { return "scatter_add"; }
  Attributes attributes() const override { return {{"dim", dim_}, {"size", size_}}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  std::int64_t dim_;
  std::int64_t size_;
};

/// x [.., D, ..] and index int64 [.., M, ..], equal but for dimension `dim` -> [.., M, ..]. Throws
/// `Error` naming the first index outside [0, D); on a GPU one of them, when the host next waits.
Tensor gather(const Tensor& x, std::int64_t dim, const Tensor& index);
/// x [.., M, ..] added into zeros [.., size, ..] at `index` [.., M, ..]; checks as `gather`.
Tensor scatter_add(const Tensor& x, std::int64_t dim, const Tensor& index, std::int64_t size);

}  // namespace tenon::ops
