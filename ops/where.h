// Choosing between two tensors, element by element.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// condition ? x : y with broadcasting; `condition` is bool, x and y have one dtype.
class WhereOp : public Op {
 public:
  std::string_view name() const override { return "where"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;
};

/// x where `condition` (bool) is true, otherwise y; NaN and ∞ in the element not chosen do not
/// matter, nor does it get a gradient. x and y are promoted by `result_type`.
Tensor where(const Tensor& condition, const Tensor& x, const Tensor& y);
Tensor where(const Tensor& condition, Scalar x, const Tensor& y);
Tensor where(const Tensor& condition, const Tensor& x, Scalar y);
/// x with `value` where `mask` (bool, broadcast to x) is true.
Tensor masked_fill(const Tensor& x, const Tensor& mask, Scalar value);

}  // namespace tenon::ops
