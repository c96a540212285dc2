#include "tenon/ops/binary.h"

#include <array>
#include <cmath>

#include "tenon/core/factories.h"
#include "tenon/core/structural.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/compare.h"
#include "tenon/ops/cpu/binary.h"
#include "tenon/ops/cuda/binary.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/promotion.h"
#include "tenon/ops/unary.h"
#include "tenon/ops/where.h"

namespace tenon::ops {
namespace {

void check_dtype(BinaryKind kind, DType dtype) {
  TENON_CHECK(kind != BinaryKind::Div || is_floating(dtype), "div: needs a floating dtype, got ",
              dtype);
  TENON_CHECK(kind != BinaryKind::Sub || dtype != DType::Bool,
              "sub: not defined for bool; use ne (exclusive or) or convert with to()");
}

Attribute::Value attribute_value(Scalar scalar) {
  switch (scalar.kind()) {
    case Scalar::Kind::Bool:
      return scalar.to_int64() != 0;
    case Scalar::Kind::Int:
      return scalar.to_int64();
    case Scalar::Kind::Real:
      break;
  }
  return scalar.to_double();
}

Tensor apply_tensors(BinaryKind kind, const Tensor& a, const Tensor& b, DType dtype) {
  return apply(BinaryOp(kind), {a.to(dtype), b.to(dtype)});
}

Tensor apply_tensors(BinaryKind kind, const Tensor& a, const Tensor& b) {
  return apply_tensors(kind, a, b, result_type(a, b));
}

Tensor apply_scalar(BinaryKind kind, const Tensor& x, Scalar scalar, bool reversed = false) {
  DType dtype = result_type(x, scalar);
  if (kind == BinaryKind::Div) dtype = floating_type(dtype);
  return apply(BinaryScalarOp(kind, scalar, reversed), {x.to(dtype)});
}

/// The gradient of an operand of `maximum` (`minimum` with the operands swapped in the
/// comparison): none where it lost, half where it drew.
Tensor share_of_winner(const Tensor& grad, const Tensor& lost, const Tensor& drew) {
  return where(lost, 0, where(drew, grad * 0.5, grad));
}

}  // namespace

std::string_view name(BinaryKind kind) {
  constexpr std::array<std::string_view, 7> kNames{"add", "sub",     "mul",    "div",
                                                   "pow", "maximum", "minimum"};
  return kNames[static_cast<std::size_t>(kind)];
}

// ---- two tensors --------------------------------------------------------------------------------

std::vector<TensorSpec> BinaryOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& a = inputs[0];
  const TensorSpec& b = inputs[1];
  TENON_CHECK(a.dtype == b.dtype, name(), ": the operands are ", a.dtype, " and ", b.dtype);
  check_dtype(kind_, a.dtype);
  return {{broadcast_shapes(a.shape, b.shape, name()), a.dtype, a.device}};
}

std::vector<Tensor> BinaryOp::forward(std::span<const Tensor> inputs,
                                      std::span<const TensorSpec> outputs) const {
  const Tensor out = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(out.device(), binary(kind_, inputs[0], inputs[1], out));
  return {out};
}

Saved BinaryOp::saved(IndexMask needs_grad) const {
  const bool needs_a = (needs_grad & index_bit(0)) != 0;
  const bool needs_b = (needs_grad & index_bit(1)) != 0;
  switch (kind_) {
    case BinaryKind::Add:
    case BinaryKind::Sub:
      return {};
    case BinaryKind::Mul:
      return {.inputs = (needs_a ? index_bit(1) : 0) | (needs_b ? index_bit(0) : 0)};
    case BinaryKind::Div:
      return {.inputs = index_bit(1) | (needs_b ? index_bit(0) : 0)};
    case BinaryKind::Pow:
      return {.inputs = index_bit(0) | index_bit(1), .outputs = needs_b ? index_bit(0) : 0};
    case BinaryKind::Maximum:
    case BinaryKind::Minimum:
      return {.inputs = index_bit(0) | index_bit(1)};
  }
  return {};
}

namespace {

Tensor grad_of_first(BinaryKind kind, const BackwardContext& context, const Tensor& g) {
  switch (kind) {
    case BinaryKind::Add:
    case BinaryKind::Sub:
      return g;
    case BinaryKind::Mul:
      return g * context.input(1);
    case BinaryKind::Div:
      return g / context.input(1);
    case BinaryKind::Pow: {
      const Tensor exponent = context.input(1);
      const Tensor slope = exponent * pow(context.input(0), exponent - 1);
      return where(eq(exponent, 0), 0, g * slope);
    }
    case BinaryKind::Maximum:
      return share_of_winner(g, lt(context.input(0), context.input(1)),
                             eq(context.input(0), context.input(1)));
    case BinaryKind::Minimum:
      return share_of_winner(g, gt(context.input(0), context.input(1)),
                             eq(context.input(0), context.input(1)));
  }
  return {};
}

Tensor grad_of_second(BinaryKind kind, const BackwardContext& context, const Tensor& g) {
  switch (kind) {
    case BinaryKind::Add:
      return g;
    case BinaryKind::Sub:
      return -g;
    case BinaryKind::Mul:
      return g * context.input(0);
    case BinaryKind::Div: {
      const Tensor divisor = context.input(1);
      return -g * (context.input(0) / divisor / divisor);
    }
    case BinaryKind::Pow: {
      const Tensor base = context.input(0);
      const Tensor flat = logical_and(eq(base, 0), ge(context.input(1), 0));
      return where(flat, 0, g * (context.output(0) * log(base)));
    }
    case BinaryKind::Maximum:
      return share_of_winner(g, gt(context.input(0), context.input(1)),
                             eq(context.input(0), context.input(1)));
    case BinaryKind::Minimum:
      return share_of_winner(g, lt(context.input(0), context.input(1)),
                             eq(context.input(0), context.input(1)));
  }
  return {};
}

}  // namespace

std::vector<Tensor> BinaryOp::backward(const BackwardContext& context,
                                       std::span<const Tensor> grad_outputs) const {
  const Tensor& g = grad_outputs[0];
  std::vector<Tensor> grads(2);
  if (context.needs_grad(0)) {
    grads[0] = sum_to(grad_of_first(kind_, context, g), context.input_spec(0).shape);
  }
  if (context.needs_grad(1)) {
    grads[1] = sum_to(grad_of_second(kind_, context, g), context.input_spec(1).shape);
  }
  return grads;
}

// ---- a tensor and a number ----------------------------------------------------------------------

Attributes BinaryScalarOp::attributes() const {
  Attributes result{{"scalar", attribute_value(scalar_)}};
  if (reversed_) result.push_back({"reversed", true});
  return result;
}

std::vector<TensorSpec> BinaryScalarOp::infer(std::span<const TensorSpec> inputs) const {
  TENON_CHECK(kind_ != BinaryKind::Maximum && kind_ != BinaryKind::Minimum, name(),
              ": has no scalar form; use clamp");
  check_dtype(kind_, inputs[0].dtype);
  return {inputs[0]};
}

std::vector<Tensor> BinaryScalarOp::forward(std::span<const Tensor> inputs,
                                            std::span<const TensorSpec> outputs) const {
  const Tensor out = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(out.device(), binary_scalar(kind_, inputs[0], scalar_, reversed_, out));
  return {out};
}

Saved BinaryScalarOp::saved(IndexMask) const {
  if (kind_ == BinaryKind::Pow) {
    return reversed_ ? Saved{.inputs = index_bit(0), .outputs = index_bit(0)}
                     : Saved{.inputs = index_bit(0)};
  }
  return kind_ == BinaryKind::Div && reversed_ ? Saved{.inputs = index_bit(0)} : Saved{};
}

std::vector<Tensor> BinaryScalarOp::backward(const BackwardContext& context,
                                             std::span<const Tensor> grad_outputs) const {
  const Tensor& g = grad_outputs[0];
  switch (kind_) {
    case BinaryKind::Add:
      return {g};
    case BinaryKind::Sub:
      return {reversed_ ? -g : g};
    case BinaryKind::Mul:
      return {mul(g, scalar_)};
    case BinaryKind::Div: {
      if (!reversed_) return {div(g, scalar_)};
      const Tensor divisor = context.input(0);
      return {-g * (div(scalar_, divisor) / divisor)};
    }
    case BinaryKind::Pow:
      return backward_pow(context, g);
    case BinaryKind::Maximum:
    case BinaryKind::Minimum:
      break;
  }
  return {};
}

std::vector<Tensor> BinaryScalarOp::backward_pow(const BackwardContext& context,
                                                 const Tensor& grad) const {
  const double scalar = scalar_.to_double();
  const Tensor x = context.input(0);
  if (!reversed_) {
    if (scalar == 0) return {zeros_like(grad)};
    return {grad * mul(pow(x, scalar - 1), scalar)};
  }
  const Tensor grad_x = grad * (context.output(0) * std::log(scalar));
  return {scalar == 0 ? where(ge(x, 0), 0, grad_x) : grad_x};
}

// ---- free functions -----------------------------------------------------------------------------

Tensor add(const Tensor& a, const Tensor& b) { return apply_tensors(BinaryKind::Add, a, b); }
Tensor add(const Tensor& a, Scalar b) { return apply_scalar(BinaryKind::Add, a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return apply_tensors(BinaryKind::Sub, a, b); }
Tensor sub(const Tensor& a, Scalar b) { return apply_scalar(BinaryKind::Sub, a, b); }
Tensor sub(Scalar a, const Tensor& b) { return apply_scalar(BinaryKind::Sub, b, a, true); }
Tensor mul(const Tensor& a, const Tensor& b) { return apply_tensors(BinaryKind::Mul, a, b); }
Tensor mul(const Tensor& a, Scalar b) { return apply_scalar(BinaryKind::Mul, a, b); }
Tensor div(const Tensor& a, const Tensor& b) {
  return apply_tensors(BinaryKind::Div, a, b, floating_type(result_type(a, b)));
}
Tensor div(const Tensor& a, Scalar b) { return apply_scalar(BinaryKind::Div, a, b); }
Tensor div(Scalar a, const Tensor& b) { return apply_scalar(BinaryKind::Div, b, a, true); }
Tensor pow(const Tensor& base, const Tensor& exponent) {
  return apply_tensors(BinaryKind::Pow, base, exponent);
}
Tensor pow(const Tensor& base, Scalar exponent) {
  TENON_CHECK(is_floating(result_type(base, exponent)) || exponent.to_int64() >= 0,
              "pow: an integer tensor to the negative integer power ", exponent,
              " is not defined; convert it with to() or write the exponent as a real");
  return apply_scalar(BinaryKind::Pow, base, exponent);
}
Tensor pow(Scalar base, const Tensor& exponent) {
  return apply_scalar(BinaryKind::Pow, exponent, base, true);
}
Tensor maximum(const Tensor& a, const Tensor& b) {
  return apply_tensors(BinaryKind::Maximum, a, b);
}
Tensor minimum(const Tensor& a, const Tensor& b) {
  return apply_tensors(BinaryKind::Minimum, a, b);
}

}  // namespace tenon::ops

namespace tenon {

Tensor operator+(const Tensor& a, const Tensor& b) { return ops::add(a, b); }
Tensor operator+(const Tensor& a, Scalar b) { return ops::add(a, b); }
Tensor operator+(Scalar a, const Tensor& b) { return ops::add(b, a); }
Tensor operator-(const Tensor& a, const Tensor& b) { return ops::sub(a, b); }
Tensor operator-(const Tensor& a, Scalar b) { return ops::sub(a, b); }
Tensor operator-(Scalar a, const Tensor& b) { return ops::sub(a, b); }
Tensor operator*(const Tensor& a, const Tensor& b) { return ops::mul(a, b); }
Tensor operator*(const Tensor& a, Scalar b) { return ops::mul(a, b); }
Tensor operator*(Scalar a, const Tensor& b) { return ops::mul(b, a); }
Tensor operator/(const Tensor& a, const Tensor& b) { return ops::div(a, b); }
Tensor operator/(const Tensor& a, Scalar b) { return ops::div(a, b); }
Tensor operator/(Scalar a, const Tensor& b) { return ops::div(a, b); }

}  // namespace tenon
