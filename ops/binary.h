// Elementwise arithmetic of two tensors, or of a tensor and a number.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// Which function a `BinaryOp` or a `BinaryScalarOp` computes.
enum class BinaryKind { Add, Sub, Mul, Div, Pow, Maximum, Minimum };

/// The kind's name: "add", "maximum", …
std::string_view name(BinaryKind kind);

/// a ∘ b with broadcasting. Both have one dtype, which the result takes; Div needs a floating one.
class BinaryOp : public Op {
 public:
  explicit BinaryOp(BinaryKind kind) : kind_(kind) {}
  BinaryKind kind() const { return kind_; }
  std::string_view name() const override { return ops::name(kind_); }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  BinaryKind kind_;
};

/// x ∘ scalar, or scalar ∘ x when reversed. Has the name of the tensor form: a matcher tells the
/// two apart by their operand counts and finds the number as the attribute "scalar". The free
/// functions never make a reversed Add or Mul.
class BinaryScalarOp : public Op {
 public:
  /// `kind` is Add, Sub, Mul, Div or Pow.
  BinaryScalarOp(BinaryKind kind, Scalar scalar, bool reversed = false)
      : kind_(kind), scalar_(scalar), reversed_(reversed) {}
  BinaryKind kind() const { return kind_; }
  Scalar scalar() const { return scalar_; }
  bool reversed() const { return reversed_; }
  std::string_view name() const override { return ops::name(kind_); }
  /// "scalar", and "reversed" when it is.
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  std::vector<Tensor> backward_pow(const BackwardContext& context, const Tensor& grad) const;

  BinaryKind kind_;
  Scalar scalar_;
  bool reversed_;
};

// Operands broadcast, and different dtypes are promoted by `result_type`. `div` of integers gives
// float32; subtracting bools throws `Error`.

Tensor add(const Tensor& a, const Tensor& b);
Tensor add(const Tensor& a, Scalar b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, Scalar b);
Tensor sub(Scalar a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, Scalar b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, Scalar b);
Tensor div(Scalar a, const Tensor& b);
/// base^exponent. The gradient of the base is 0 where the exponent is 0; that of the exponent is 0
/// where the base is 0 and the exponent is not negative. An integer tensor to a negative integer
/// throws `Error`.
Tensor pow(const Tensor& base, const Tensor& exponent);
Tensor pow(const Tensor& base, Scalar exponent);
Tensor pow(Scalar base, const Tensor& exponent);
/// The larger; NaN when either is NaN. Equal elements share the gradient.
Tensor maximum(const Tensor& a, const Tensor& b);
/// The smaller, likewise.
Tensor minimum(const Tensor& a, const Tensor& b);

}  // namespace tenon::ops

namespace tenon {

Tensor operator+(const Tensor& a, const Tensor& b);
Tensor operator+(const Tensor& a, Scalar b);
Tensor operator+(Scalar a, const Tensor& b);
Tensor operator-(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& a, Scalar b);
Tensor operator-(Scalar a, const Tensor& b);
Tensor operator*(const Tensor& a, const Tensor& b);
Tensor operator*(const Tensor& a, Scalar b);
Tensor operator*(Scalar a, const Tensor& b);
Tensor operator/(const Tensor& a, const Tensor& b);
Tensor operator/(const Tensor& a, Scalar b);
Tensor operator/(Scalar a, const Tensor& b);

}  // namespace tenon
