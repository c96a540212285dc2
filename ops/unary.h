// Elementwise functions of one tensor. Activations have a header of their own.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// Which function a `UnaryOp` computes.
enum class UnaryKind {
  Neg,
  Abs,
  Sign,
  Square,
  Floor,
  Exp,
  Log,
  Sqrt,
  Rsqrt,
  Reciprocal,
  Sin,
  Cos,
};

/// One elementwise function; input and output have the same shape and dtype.
class UnaryOp : public Op {
 public:
  explicit UnaryOp(UnaryKind kind) : kind_(kind) {}
  UnaryKind kind() const { return kind_; }
  std::string_view name() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  UnaryKind kind_;
};

// These keep an integer dtype. `neg` and `sign` throw `Error` for bool.

/// -x
Tensor neg(const Tensor& x);
/// |x|; the gradient at 0 is 0.
Tensor abs(const Tensor& x);
/// -1, 0 or 1, and 0 for NaN; the gradient is 0.
Tensor sign(const Tensor& x);
/// x²
Tensor square(const Tensor& x);
/// The largest integer not above x; the gradient is 0.
Tensor floor(const Tensor& x);

// These give float32 for integers.

/// e^x
Tensor exp(const Tensor& x);
/// Natural logarithm: -∞ at 0, NaN below.
Tensor log(const Tensor& x);
/// √x, NaN below 0.
Tensor sqrt(const Tensor& x);
/// 1 / √x
Tensor rsqrt(const Tensor& x);
/// 1 / x
Tensor reciprocal(const Tensor& x);
/// Sine of an angle in radians.
Tensor sin(const Tensor& x);
/// Cosine of an angle in radians.
Tensor cos(const Tensor& x);

}  // namespace tenon::ops

namespace tenon {
/// `ops::neg`
Tensor operator-(const Tensor& x);
}  // namespace tenon
