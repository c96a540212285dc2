#include "tenon/ops/unary.h"

#include <array>

#include "tenon/core/factories.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/cpu/unary.h"
#include "tenon/ops/cuda/unary.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/promotion.h"

namespace tenon::ops {
namespace {

// In the order of the enumeration.
constexpr std::array<std::string_view, 12> kNames{"neg",   "abs",        "sign", "square",
                                                  "floor", "exp",        "log",  "sqrt",
                                                  "rsqrt", "reciprocal", "sin",  "cos"};

bool keeps_integers(UnaryKind kind) { return kind <= UnaryKind::Floor; }

Tensor apply_floating(UnaryKind kind, const Tensor& x) {
  return apply(UnaryOp(kind), {x.to(floating_type(x.dtype()))});
}

}  // namespace

std::string_view UnaryOp::name() const { return kNames[static_cast<std::size_t>(kind_)]; }

std::vector<TensorSpec> UnaryOp::infer(std::span<const TensorSpec> inputs) const {
  const DType dtype = inputs[0].dtype;
  TENON_CHECK(is_floating(dtype) || keeps_integers(kind_), name(), ": needs a floating dtype, got ",
              dtype);
  TENON_CHECK(dtype != DType::Bool || (kind_ != UnaryKind::Neg && kind_ != UnaryKind::Sign), name(),
              ": not defined for bool; use logical_not, or convert with to()");
  return {inputs[0]};
}

std::vector<Tensor> UnaryOp::forward(std::span<const Tensor> inputs,
                                     std::span<const TensorSpec> outputs) const {
  const Tensor y = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(y.device(), unary(kind_, inputs[0], y));
  return {y};
}

Saved UnaryOp::saved(IndexMask) const {
  switch (kind_) {
    case UnaryKind::Neg:
    case UnaryKind::Sign:
    case UnaryKind::Floor:
      return {};
    case UnaryKind::Abs:
    case UnaryKind::Square:
    case UnaryKind::Log:
    case UnaryKind::Sin:
    case UnaryKind::Cos:
      return {.inputs = index_bit(0)};
    case UnaryKind::Exp:
    case UnaryKind::Sqrt:
    case UnaryKind::Rsqrt:
    case UnaryKind::Reciprocal:
      return {.outputs = index_bit(0)};
  }
  return {};
}

std::vector<Tensor> UnaryOp::backward(const BackwardContext& context,
                                      std::span<const Tensor> grad_outputs) const {
  const Tensor& g = grad_outputs[0];
  switch (kind_) {
    case UnaryKind::Neg:
      return {-g};
    case UnaryKind::Sign:
    case UnaryKind::Floor:
      return {zeros_like(g)};
    case UnaryKind::Abs:
      return {g * sign(context.input(0))};
    case UnaryKind::Square:
      return {g * (context.input(0) * 2)};
    case UnaryKind::Log:
      return {g / context.input(0)};
    case UnaryKind::Sin:
      return {g * cos(context.input(0))};
    case UnaryKind::Cos:
      return {-(g * sin(context.input(0)))};
    case UnaryKind::Exp:
      return {g * context.output(0)};
    case UnaryKind::Sqrt:
      return {g / (context.output(0) * 2)};
    case UnaryKind::Rsqrt:
      return {g * pow(context.output(0), 3) * -0.5};
    case UnaryKind::Reciprocal:
      return {-(g * square(context.output(0)))};
  }
  return {};
}

Tensor neg(const Tensor& x) { return apply(UnaryOp(UnaryKind::Neg), {x}); }
Tensor abs(const Tensor& x) { return apply(UnaryOp(UnaryKind::Abs), {x}); }
Tensor sign(const Tensor& x) { return apply(UnaryOp(UnaryKind::Sign), {x}); }
Tensor square(const Tensor& x) { return apply(UnaryOp(UnaryKind::Square), {x}); }
Tensor floor(const Tensor& x) { return apply(UnaryOp(UnaryKind::Floor), {x}); }
Tensor exp(const Tensor& x) { return apply_floating(UnaryKind::Exp, x); }
Tensor log(const Tensor& x) { return apply_floating(UnaryKind::Log, x); }
Tensor sqrt(const Tensor& x) { return apply_floating(UnaryKind::Sqrt, x); }
Tensor rsqrt(const Tensor& x) { return apply_floating(UnaryKind::Rsqrt, x); }
Tensor reciprocal(const Tensor& x) { return apply_floating(UnaryKind::Reciprocal, x); }
Tensor sin(const Tensor& x) { return apply_floating(UnaryKind::Sin, x); }
Tensor cos(const Tensor& x) { return apply_floating(UnaryKind::Cos, x); }

}  // namespace tenon::ops

namespace tenon {
Tensor operator-(const Tensor& x) { return ops::neg(x); }
}  // namespace tenon
