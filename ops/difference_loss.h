// Losses of the difference of two tensors, reduced to one number: `mse_loss` and `l1_loss` of
// loss.h where input and target have one floating dtype. One op, because of the composite every
// small step would be a pass over memory, and a launch on a GPU.
#pragma once

#include "tenon/ops/loss.h"

namespace tenon::ops {

/// What an element's loss is of d = x - target.
enum class DifferenceLossKind {
  Squared,   // d²
  Absolute,  // |d|, with derivative 0 at 0
};

/// (x, target) -> the sum or mean of the elements' losses, a scalar. Both have one shape and
/// floating dtype; 16-bit floats are computed and added up in float32. The mean of no elements is
/// NaN.
class DifferenceLossOp : public Op {
 public:
  /// `reduction` is Mean or Sum.
  DifferenceLossOp(DifferenceLossKind kind, Reduction reduction)
      : kind_(kind), reduction_(reduction) {}
  DifferenceLossKind kind() const { return kind_; }
  Reduction reduction() const { return reduction_; }
  /// "mse_loss" or "l1_loss".
  std::string_view name() const override;
  /// "reduction", "mean" or "sum".
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  DifferenceLossKind kind_;
  Reduction reduction_;
};

/// (g, x, target) -> the gradient of x in one pass, where g is that of the loss: a scalar, read
/// where it is. With x and target exchanged, the gradient of target. How `DifferenceLossOp` goes
/// backward.
class DifferenceLossGradOp : public Op {
 public:
  DifferenceLossGradOp(DifferenceLossKind kind, Reduction reduction)
      : kind_(kind), reduction_(reduction) {}
  /// "mse_loss_grad" or "l1_loss_grad".
  std::string_view name() const override;
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  DifferenceLossKind kind_;
  Reduction reduction_;
};

}  // namespace tenon::ops
