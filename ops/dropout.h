// Dropout: zeros at random places.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// In training each element is zeroed with probability `p` and otherwise scaled by 1/(1 − p), so
/// that the mean stays (Srivastava et al. 2014, JMLR 15); otherwise `x` itself. The mask comes from
/// the default generator when the op runs, also inside a compiled function; which elements it drops
/// does not depend on the memory format of `x`, which the result has too. Throws `Error` unless
/// `x` is floating and `p` in [0, 1].
Tensor dropout(const Tensor& x, double p = 0.5, bool training = true);

/// `dropout` in training; outputs the result and the mask, uint8, 1 where an element was kept.
class DropoutOp : public Op {
 public:
  explicit DropoutOp(double p) : p_(p) {}
  std::string_view name() const override { return "dropout"; }
  Attributes attributes() const override { return {{"p", p_}}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;
  bool pure() const override { return false; }

 private:
  double p_;
};

/// x·mask·scale; inputs (x, mask uint8 of the same shape). Its own adjoint.
class MaskScaleOp : public Op {
 public:
  explicit MaskScaleOp(double scale) : scale_(scale) {}
  std::string_view name() const override { return "mask_scale"; }
  Attributes attributes() const override { return {{"scale", scale_}}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  double scale_;
};

}  // namespace tenon::ops
