// Comparisons, tests and logic: everything elementwise whose result is bool and has no gradient.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// Which relation holds between two operands. The logical ones take any number but 0 for true.
enum class CompareKind { Eq, Ne, Lt, Le, Gt, Ge, LogicalAnd, LogicalOr };

/// What is asked of one operand.
enum class TestKind { LogicalNot, IsNan, IsFinite };

/// a ∘ b with broadcasting; both have one dtype, the result is bool.
class CompareOp : public Op {
 public:
  explicit CompareOp(CompareKind kind) : kind_(kind) {}
  CompareKind kind() const { return kind_; }
  std::string_view name() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  bool differentiable() const override { return false; }

 private:
  CompareKind kind_;
};

/// x ∘ scalar, with the name of the tensor form.
class CompareScalarOp : public Op {
 public:
  CompareScalarOp(CompareKind kind, Scalar scalar) : kind_(kind), scalar_(scalar) {}
  CompareKind kind() const { return kind_; }
  Scalar scalar() const { return scalar_; }
  std::string_view name() const override;
  Attributes attributes() const override { return {{"scalar", scalar_.to_double()}}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  bool differentiable() const override { return false; }

 private:
  CompareKind kind_;
  Scalar scalar_;
};

/// One test of each element.
class TestOp : public Op {
 public:
  explicit TestOp(TestKind kind) : kind_(kind) {}
  TestKind kind() const { return kind_; }
  std::string_view name() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  bool differentiable() const override { return false; }

 private:
  TestKind kind_;
};

// Operands broadcast and are promoted by `result_type`; any comparison with NaN but `ne` is false.

Tensor eq(const Tensor& a, const Tensor& b);
Tensor eq(const Tensor& a, Scalar b);
Tensor ne(const Tensor& a, const Tensor& b);
Tensor ne(const Tensor& a, Scalar b);
Tensor lt(const Tensor& a, const Tensor& b);
Tensor lt(const Tensor& a, Scalar b);
Tensor le(const Tensor& a, const Tensor& b);
Tensor le(const Tensor& a, Scalar b);
Tensor gt(const Tensor& a, const Tensor& b);
Tensor gt(const Tensor& a, Scalar b);
Tensor ge(const Tensor& a, const Tensor& b);
Tensor ge(const Tensor& a, Scalar b);

Tensor logical_and(const Tensor& a, const Tensor& b);
Tensor logical_or(const Tensor& a, const Tensor& b);
/// True where x is 0.
Tensor logical_not(const Tensor& x);
Tensor isnan(const Tensor& x);
/// True where x is neither infinite nor NaN.
Tensor isfinite(const Tensor& x);

}  // namespace tenon::ops

namespace tenon {

// == and != are left out: between handles they would read as "is the same tensor".

Tensor operator<(const Tensor& a, const Tensor& b);
Tensor operator<(const Tensor& a, Scalar b);
Tensor operator<=(const Tensor& a, const Tensor& b);
Tensor operator<=(const Tensor& a, Scalar b);
Tensor operator>(const Tensor& a, const Tensor& b);
Tensor operator>(const Tensor& a, Scalar b);
Tensor operator>=(const Tensor& a, const Tensor& b);
Tensor operator>=(const Tensor& a, Scalar b);

}  // namespace tenon
