#include "tenon/ops/compare.h"

#include <array>

#include "tenon/core/tensor_body.h"
#include "tenon/ops/cpu/compare.h"
#include "tenon/ops/cuda/compare.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/promotion.h"

namespace tenon::ops {
namespace {

std::string_view kind_name(CompareKind kind) {
  constexpr std::array<std::string_view, 8> kNames{"eq", "ne", "lt",          "le",
                                                   "gt", "ge", "logical_and", "logical_or"};
  return kNames[static_cast<std::size_t>(kind)];
}

Tensor apply_tensors(CompareKind kind, const Tensor& a, const Tensor& b) {
  const DType dtype = result_type(a, b);
  return apply(CompareOp(kind), {a.to(dtype), b.to(dtype)});
}

Tensor apply_scalar(CompareKind kind, const Tensor& x, Scalar scalar) {
  return apply(CompareScalarOp(kind, scalar), {x.to(result_type(x, scalar))});
}

}  // namespace

std::string_view CompareOp::name() const { return kind_name(kind_); }

std::vector<TensorSpec> CompareOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& a = inputs[0];
  const TensorSpec& b = inputs[1];
  TENON_CHECK(a.dtype == b.dtype, name(), ": the operands are ", a.dtype, " and ", b.dtype);
  return {{broadcast_shapes(a.shape, b.shape, name()), DType::Bool, a.device}};
}

std::vector<Tensor> CompareOp::forward(std::span<const Tensor> inputs,
                                       std::span<const TensorSpec> outputs) const {
  const Tensor out = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(out.device(), compare(kind_, inputs[0], inputs[1], out));
  return {out};
}

std::string_view CompareScalarOp::name() const { return kind_name(kind_); }

std::vector<TensorSpec> CompareScalarOp::infer(std::span<const TensorSpec> inputs) const {
  return {{inputs[0].shape, DType::Bool, inputs[0].device}};
}

std::vector<Tensor> CompareScalarOp::forward(std::span<const Tensor> inputs,
                                             std::span<const TensorSpec> outputs) const {
  const Tensor out = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(out.device(), compare_scalar(kind_, inputs[0], scalar_, out));
  return {out};
}

std::string_view TestOp::name() const {
  constexpr std::array<std::string_view, 3> kNames{"logical_not", "isnan", "isfinite"};
  return kNames[static_cast<std::size_t>(kind_)];
}

std::vector<TensorSpec> TestOp::infer(std::span<const TensorSpec> inputs) const {
  return {{inputs[0].shape, DType::Bool, inputs[0].device}};
}

std::vector<Tensor> TestOp::forward(std::span<const Tensor> inputs,
                                    std::span<const TensorSpec> outputs) const {
  const Tensor out = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(out.device(), test(kind_, inputs[0], out));
  return {out};
}

Tensor eq(const Tensor& a, const Tensor& b) { return apply_tensors(CompareKind::Eq, a, b); }
Tensor eq(const Tensor& a, Scalar b) { return apply_scalar(CompareKind::Eq, a, b); }
Tensor ne(const Tensor& a, const Tensor& b) { return apply_tensors(CompareKind::Ne, a, b); }
Tensor ne(const Tensor& a, Scalar b) { return apply_scalar(CompareKind::Ne, a, b); }
Tensor lt(const Tensor& a, const Tensor& b) { return apply_tensors(CompareKind::Lt, a, b); }
Tensor lt(const Tensor& a, Scalar b) { return apply_scalar(CompareKind::Lt, a, b); }
Tensor le(const Tensor& a, const Tensor& b) { return apply_tensors(CompareKind::Le, a, b); }
Tensor le(const Tensor& a, Scalar b) { return apply_scalar(CompareKind::Le, a, b); }
Tensor gt(const Tensor& a, const Tensor& b) { return apply_tensors(CompareKind::Gt, a, b); }
Tensor gt(const Tensor& a, Scalar b) { return apply_scalar(CompareKind::Gt, a, b); }
Tensor ge(const Tensor& a, const Tensor& b) { return apply_tensors(CompareKind::Ge, a, b); }
Tensor ge(const Tensor& a, Scalar b) { return apply_scalar(CompareKind::Ge, a, b); }

Tensor logical_and(const Tensor& a, const Tensor& b) {
  return apply_tensors(CompareKind::LogicalAnd, a, b);
}
Tensor logical_or(const Tensor& a, const Tensor& b) {
  return apply_tensors(CompareKind::LogicalOr, a, b);
}
Tensor logical_not(const Tensor& x) { return apply(TestOp(TestKind::LogicalNot), {x}); }
Tensor isnan(const Tensor& x) { return apply(TestOp(TestKind::IsNan), {x}); }
Tensor isfinite(const Tensor& x) { return apply(TestOp(TestKind::IsFinite), {x}); }

}  // namespace tenon::ops

namespace tenon {

Tensor operator<(const Tensor& a, const Tensor& b) { return ops::lt(a, b); }
Tensor operator<(const Tensor& a, Scalar b) { return ops::lt(a, b); }
Tensor operator<=(const Tensor& a, const Tensor& b) { return ops::le(a, b); }
Tensor operator<=(const Tensor& a, Scalar b) { return ops::le(a, b); }
Tensor operator>(const Tensor& a, const Tensor& b) { return ops::gt(a, b); }
Tensor operator>(const Tensor& a, Scalar b) { return ops::gt(a, b); }
Tensor operator>=(const Tensor& a, const Tensor& b) { return ops::ge(a, b); }
Tensor operator>=(const Tensor& a, Scalar b) { return ops::ge(a, b); }

}  // namespace tenon
