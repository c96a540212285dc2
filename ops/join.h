// Joining tensors into one.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// Tensors of one dtype, equal in all sizes but that of `dim`, one after another along `dim`.
class CatOp : public Op {
 public:
  explicit CatOp(std::int64_t dim) : dim_(dim) {}
  std::int64_t dim() const { return dim_; }
  std::string_view name() const override { return "cat"; }
  Attributes attributes() const override { return {{"dim", dim_}}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  std::int64_t dim_;
};

/// Joins along an existing dimension; dtypes are promoted by `result_type`. The result has the
/// memory format that all tensors suggest, and is contiguous where they differ.
Tensor cat(std::span<const Tensor> tensors, std::int64_t dim = 0);
Tensor cat(std::initializer_list<Tensor> tensors, std::int64_t dim = 0);
/// Joins tensors of equal shape along a new dimension, put before dimension `dim`.
Tensor stack(std::span<const Tensor> tensors, std::int64_t dim = 0);
Tensor stack(std::initializer_list<Tensor> tensors, std::int64_t dim = 0);

}  // namespace tenon::ops
