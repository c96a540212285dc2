#include "tenon/ops/activation.h"

#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "tenon/core/factories.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/compare.h"
#include "tenon/ops/cpu/activation.h"
#include "tenon/ops/cuda/activation.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/promotion.h"
#include "tenon/ops/unary.h"
#include "tenon/ops/where.h"

namespace tenon::ops {
namespace {

std::string_view kind_name(ActivationKind kind) {
  // In the order of the enumeration.
  constexpr std::array<std::string_view, 13> kNames{
      "relu",     "leaky_relu", "hardtanh", "clamp", "tanh", "sigmoid", "log_sigmoid",
      "softplus", "elu",        "gelu",     "gelu",  "silu", "mish"};
  return kNames[static_cast<std::size_t>(kind)];
}

bool takes_integers(ActivationKind kind) {
  return kind == ActivationKind::Relu || kind == ActivationKind::Hardtanh ||
         kind == ActivationKind::Clamp;
}

/// Whether the derivative is computed from the output instead of the input.
bool saves_output(ActivationKind kind) {
  return kind == ActivationKind::Relu || kind == ActivationKind::Tanh ||
         kind == ActivationKind::Sigmoid;
}

/// Whether the derivative is piecewise constant.
bool is_piecewise_linear(ActivationKind kind) {
  return takes_integers(kind) || kind == ActivationKind::LeakyRelu;
}

Attributes kind_attributes(ActivationKind kind, const ActivationParameters& parameters) {
  switch (kind) {
    case ActivationKind::LeakyRelu:
      return {{"negative_slope", parameters.first}};
    case ActivationKind::Hardtanh:
      return {{"min", parameters.first}, {"max", parameters.second}};
    case ActivationKind::Clamp: {
      Attributes result;
      if (std::isfinite(parameters.first)) result.push_back({"min", parameters.first});
      if (std::isfinite(parameters.second)) result.push_back({"max", parameters.second});
      return result;
    }
    case ActivationKind::Softplus:
      return {{"beta", parameters.first}, {"threshold", parameters.second}};
    case ActivationKind::Elu:
      return {{"alpha", parameters.first}};
    case ActivationKind::Gelu:
      return {{"approximate", std::string("none")}};
    case ActivationKind::GeluTanh:
      return {{"approximate", std::string("tanh")}};
    default:
      return {};
  }
}

/// d/dx of Φ(x) + x·φ(x).
Tensor gelu_curvature(const Tensor& x) {
  const double density_at_zero = std::numbers::inv_sqrtpi / std::numbers::sqrt2;
  const Tensor density = exp(square(x) * -0.5) * density_at_zero;
  return density * (2 - square(x));
}

/// Second derivative of x·σ(u), u = c·(x + 0.044715·x³).
Tensor gelu_tanh_curvature(const Tensor& x) {
  const double c = 2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
  const double cubic = 0.044715;
  const Tensor x2 = square(x);
  const Tensor s = sigmoid(x * (1 + cubic * x2) * c);
  const Tensor u1 = (1 + (3 * cubic) * x2) * c;
  const Tensor u2 = x * (6 * cubic * c);
  const Tensor slope = s * (1 - s);
  return slope * (2 * u1 + x * (u2 + square(u1) * (1 - 2 * s)));
}

/// With t = tanh(softplus(x)): t' = σ·(1 - t²), f'' = 2t' + x·t''.
Tensor mish_curvature(const Tensor& x) {
  const Tensor s = sigmoid(x);
  const Tensor t = tanh(softplus(x));
  const Tensor rest = 1 - square(t);
  const Tensor t1 = s * rest;
  const Tensor t2 = s * (1 - s) * rest - 2 * t * t1 * s;
  return 2 * t1 + x * t2;
}

/// Derivative of the derivative, as a function of what the derivative is computed from.
Tensor curvature(ActivationKind kind, const ActivationParameters& parameters, const Tensor& s) {
  switch (kind) {
    case ActivationKind::Tanh:
      return s * -2;
    case ActivationKind::Sigmoid:
      return 1 - s * 2;
    case ActivationKind::LogSigmoid: {
      const Tensor y = sigmoid(s);
      return -(y * (1 - y));
    }
    case ActivationKind::Softplus: {
      const Tensor scaled = s * parameters.first;
      const Tensor y = sigmoid(scaled);
      return where(gt(scaled, parameters.second), 0, y * (1 - y) * parameters.first);
    }
    case ActivationKind::Elu:
      return where(gt(s, 0), 0, exp(s) * parameters.first);
    case ActivationKind::Gelu:
      return gelu_curvature(s);
    case ActivationKind::GeluTanh:
      return gelu_tanh_curvature(s);
    case ActivationKind::Silu: {
      const Tensor y = sigmoid(s);
      return y * (1 - y) * (2 + s * (1 - 2 * y));
    }
    case ActivationKind::Mish:
      return mish_curvature(s);
    default:
      return zeros_like(s);
  }
}

Tensor apply_activation(const Tensor& x, ActivationKind kind,
                        ActivationParameters parameters = {}) {
  const DType dtype = takes_integers(kind) ? x.dtype() : floating_type(x.dtype());
  return apply(ActivationOp(kind, parameters), {x.to(dtype)});
}

}  // namespace

// ---- the activation -----------------------------------------------------------------------------

std::string_view ActivationOp::name() const { return kind_name(kind_); }

Attributes ActivationOp::attributes() const { return kind_attributes(kind_, parameters_); }

std::vector<TensorSpec> ActivationOp::infer(std::span<const TensorSpec> inputs) const {
  const DType dtype = inputs[0].dtype;
  TENON_CHECK(is_floating(dtype) || (takes_integers(kind_) && dtype != DType::Bool), name(),
              takes_integers(kind_) ? ": not defined for " : ": needs a floating dtype, got ",
              dtype);
  return {inputs[0]};
}

std::vector<Tensor> ActivationOp::forward(std::span<const Tensor> inputs,
                                          std::span<const TensorSpec> outputs) const {
  const Tensor y = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(y.device(), activation(kind_, parameters_, inputs[0], y));
  return {y};
}

Saved ActivationOp::saved(IndexMask) const {
  return saves_output(kind_) ? Saved{.outputs = index_bit(0)} : Saved{.inputs = index_bit(0)};
}

std::vector<Tensor> ActivationOp::backward(const BackwardContext& context,
                                           std::span<const Tensor> grad_outputs) const {
  const Tensor saved = saves_output(kind_) ? context.output(0) : context.input(0);
  return {apply(ActivationGradOp(kind_, parameters_), {grad_outputs[0], saved})};
}

// ---- its gradient -------------------------------------------------------------------------------

Attributes ActivationGradOp::attributes() const {
  Attributes result{{"of", std::string(kind_name(kind_))}};
  for (Attribute& attribute : kind_attributes(kind_, parameters_)) {
    result.push_back(std::move(attribute));
  }
  return result;
}

std::vector<TensorSpec> ActivationGradOp::infer(std::span<const TensorSpec> inputs) const {
  TENON_CHECK(inputs[0] == inputs[1], "activation_grad: the gradient is ", inputs[0],
              " but the tensor is ", inputs[1]);
  TENON_CHECK(is_floating(inputs[0].dtype), "activation_grad: needs a floating dtype, got ",
              inputs[0].dtype);
  return {inputs[0]};
}

std::vector<Tensor> ActivationGradOp::forward(std::span<const Tensor> inputs,
                                              std::span<const TensorSpec> outputs) const {
  const Tensor grad_x = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(grad_x.device(),
                 activation_grad(kind_, parameters_, inputs[0], inputs[1], grad_x));
  return {grad_x};
}

Saved ActivationGradOp::saved(IndexMask needs_grad) const {
  const bool needs_saved = (needs_grad & index_bit(1)) != 0 && !is_piecewise_linear(kind_);
  return {.inputs = index_bit(1) | (needs_saved ? index_bit(0) : 0)};
}

std::vector<Tensor> ActivationGradOp::backward(const BackwardContext& context,
                                               std::span<const Tensor> grad_outputs) const {
  const Tensor& g = grad_outputs[0];
  const Tensor saved = context.input(1);
  std::vector<Tensor> grads(2);
  if (context.needs_grad(0)) {
    grads[0] = apply(ActivationGradOp(kind_, parameters_), {g, saved});
  }
  if (context.needs_grad(1)) {
    grads[1] = is_piecewise_linear(kind_)
                   ? zeros_like(g)
                   : g * context.input(0) * curvature(kind_, parameters_, saved);
  }
  return grads;
}

// ---- free functions -----------------------------------------------------------------------------

Tensor relu(const Tensor& x) { return apply_activation(x, ActivationKind::Relu); }

Tensor leaky_relu(const Tensor& x, double negative_slope) {
  return apply_activation(x, ActivationKind::LeakyRelu, {.first = negative_slope});
}

Tensor hardtanh(const Tensor& x, double min, double max) {
  TENON_CHECK(min <= max, "hardtanh: min ", min, " is above max ", max);
  return apply_activation(x, ActivationKind::Hardtanh, {.first = min, .second = max});
}

Tensor clamp(const Tensor& x, std::optional<Scalar> min, std::optional<Scalar> max) {
  TENON_CHECK(min.has_value() || max.has_value(), "clamp: give min, max or both");
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  DType dtype = x.dtype();
  ActivationParameters parameters{.first = -kInfinity, .second = kInfinity};
  if (min.has_value()) {
    dtype = promote_with_scalar(dtype, min->kind());
    parameters.first = min->to_double();
  }
  if (max.has_value()) {
    dtype = promote_with_scalar(dtype, max->kind());
    parameters.second = max->to_double();
  }
  return apply_activation(x.to(dtype), ActivationKind::Clamp, parameters);
}

Tensor tanh(const Tensor& x) { return apply_activation(x, ActivationKind::Tanh); }
Tensor sigmoid(const Tensor& x) { return apply_activation(x, ActivationKind::Sigmoid); }
Tensor log_sigmoid(const Tensor& x) { return apply_activation(x, ActivationKind::LogSigmoid); }

Tensor softplus(const Tensor& x, double beta, double threshold) {
  TENON_CHECK(beta != 0, "softplus: beta must not be 0");
  return apply_activation(x, ActivationKind::Softplus, {.first = beta, .second = threshold});
}

Tensor elu(const Tensor& x, double alpha) {
  return apply_activation(x, ActivationKind::Elu, {.first = alpha});
}

Tensor gelu(const Tensor& x, GeluApproximation approximation) {
  return apply_activation(x, approximation == GeluApproximation::Tanh ? ActivationKind::GeluTanh
                                                                      : ActivationKind::Gelu);
}

Tensor silu(const Tensor& x) { return apply_activation(x, ActivationKind::Silu); }
Tensor mish(const Tensor& x) { return apply_activation(x, ActivationKind::Mish); }

}  // namespace tenon::ops
