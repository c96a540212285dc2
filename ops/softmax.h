// Softmax and its logarithm. They work on a contiguous copy of an input in another memory format,
// and their results are contiguous.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// e^x / Σ e^x along one dimension, or the logarithm of that.
class SoftmaxOp : public Op {
 public:
  SoftmaxOp(std::int64_t dim, bool logarithm) : dim_(dim), logarithm_(logarithm) {}
  std::int64_t dim() const { return dim_; }
  /// "softmax" or "log_softmax".
  std::string_view name() const override { return logarithm_ ? "log_softmax" : "softmax"; }
  Attributes attributes() const override { return {{"dim", dim_}}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  std::int64_t dim_;
  bool logarithm_;
};

// Both subtract the largest element first, so that no finite input overflows, and give float32 for
// integers. NaN, or -∞ throughout, gives NaN along the whole row.

/// Along `dim`: positive numbers that add up to 1.
Tensor softmax(const Tensor& x, std::int64_t dim);
/// ln softmax(x), accurate where softmax rounds to 0 or 1.
Tensor log_softmax(const Tensor& x, std::int64_t dim);

}  // namespace tenon::ops
