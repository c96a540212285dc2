#include <algorithm>
#include <cmath>
#include <numbers>

#include "tenon/ops/cpu/activation.h"
#include "tenon/ops/cpu/array_math.h"
#include "tenon/ops/cpu/map.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {
namespace {

/// grad where `passes(saved)`, otherwise 0 (even where grad is infinite or NaN).
template <class Condition>
void gate(const Tensor& grad, const Tensor& saved, const Tensor& grad_x, Condition passes) {
  map_floating<2>({grad, saved}, grad_x, [passes](const auto& g, const auto& s, auto& out) {
    using C = element_type<decltype(g)>;
    out = g.binaryExpr(s, [passes](C u, C v) { return passes(v) ? u : C(0); });
  });
}

/// f' = t + x·σ(x)·(1 - t²) with t = n/(n+2); in terms of e the second summand is
/// 4x·e·(e+1)/(n+2)². At x >= 20 it is below the rounding of t.
void mish_grad(const Tensor& grad, const Tensor& x, const Tensor& grad_x) {
  map_floating<2>({grad, x}, grad_x, [](const auto& g, const auto& a, auto& out) {
    using C = element_type<decltype(g)>;
    if constexpr (std::is_same_v<C, float>) {
      std::copy_n(g.data(), g.size(), out.data());
      simd::kernels().gradient(simd::kMishAlone, a.data(), out.data(), out.size());
    } else {
      out = exponential(a.min(C(20)));
      const LanesArray<C> n = out * (out + C(2));
      out = C(4) * out * (out + C(1)) / (n + C(2)).square();
      out = a.binaryExpr(out, [](C v, C slope) { return v >= C(20) ? C(0) : slope; });
      out = g * (n / (n + C(2)) + a * out);
    }
  });
}

void softplus_grad(const ActivationParameters& parameters, const Tensor& grad, const Tensor& x,
                   const Tensor& grad_x) {
  map_floating<2>({grad, x}, grad_x, [parameters](const auto& g, const auto& a, auto& out) {
    using C = element_type<decltype(g)>;
    const C beta = static_cast<C>(parameters.first);
    const C threshold = static_cast<C>(parameters.second);
    out = g * logistic(a * beta);
    out = (a * beta > threshold).select(g, out);
  });
}

void elu_grad(double alpha, const Tensor& grad, const Tensor& x, const Tensor& grad_x) {
  map_floating<2>({grad, x}, grad_x, [alpha](const auto& g, const auto& a, auto& out) {
    using C = element_type<decltype(g)>;
    out = static_cast<C>(alpha) * g * exponential(a);
    out = (a > C(0)).select(g, out);
  });
}

/// f' = Φ(x) + x·φ(x)
void gelu_grad(const Tensor& grad, const Tensor& x, const Tensor& grad_x) {
  map_floating<2>({grad, x}, grad_x, [](const auto& g, const auto& a, auto& out) {
    using C = element_type<decltype(g)>;
    constexpr C kDensityAtZero = C(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
    out = a * kDensityAtZero * exponential(C(-0.5) * a.square());
    out += a.unaryExpr([](C v) { return C(0.5) * std::erfc(v * C(-std::numbers::sqrt2 / 2)); });
    out *= g;
  });
}

/// f' = s + x·s·(1 - s)·u' with s = σ(u), u = 2√(2/π)·(x + 0.044715·x³).
void gelu_tanh_grad(const Tensor& grad, const Tensor& x, const Tensor& grad_x) {
  map_floating<2>({grad, x}, grad_x, [](const auto& g, const auto& a, auto& out) {
    using C = element_type<decltype(g)>;
    constexpr C kFactor = C(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
    out = kFactor * a * (C(1) + C(0.044715) * a.square());
    const LanesArray<C> s = logistic(out);
    out = kFactor * (C(1) + C(3 * 0.044715) * a.square());
    out = g * (s + a * s * (C(1) - s) * out);
  });
}

/// f' = s·(1 + x·(1 - s)) with s = σ(x).
void silu_grad(const Tensor& grad, const Tensor& x, const Tensor& grad_x) {
  map_floating<2>({grad, x}, grad_x, [](const auto& g, const auto& a, auto& out) {
    using C = element_type<decltype(g)>;
    const LanesArray<C> s = logistic(a);
    out = g * (s * (C(1) + a * (C(1) - s)));
  });
}

}  // namespace

void activation_grad(ActivationKind kind, const ActivationParameters& parameters,
                     const Tensor& grad, const Tensor& saved, const Tensor& grad_x) {
  const double first = parameters.first;
  const double second = parameters.second;
  switch (kind) {
    case ActivationKind::Relu:
      return gate(grad, saved, grad_x, [](auto v) { return !(v <= 0); });
    case ActivationKind::LeakyRelu:
      return map_floating<2>(
          {grad, saved}, grad_x, [first](const auto& g, const auto& a, auto& out) {
            using C = element_type<decltype(g)>;
            const C slope = static_cast<C>(first);
            out = g.binaryExpr(a, [slope](C u, C v) { return v > C(0) ? u : u * slope; });
          });
    case ActivationKind::Hardtanh:
      return gate(grad, saved, grad_x, [first, second](auto v) {
        using C = decltype(v);
        return v > static_cast<C>(first) && v < static_cast<C>(second);
      });
    case ActivationKind::Clamp:
      return gate(grad, saved, grad_x, [first, second](auto v) {
        using C = decltype(v);
        return v >= static_cast<C>(first) && v <= static_cast<C>(second);
      });
    case ActivationKind::Tanh:
      return map_floating<2>({grad, saved}, grad_x, [](const auto& g, const auto& y, auto& out) {
        using C = element_type<decltype(g)>;
        out = g * (C(1) - y.square());
      });
    case ActivationKind::Sigmoid:
      return map_floating<2>({grad, saved}, grad_x, [](const auto& g, const auto& y, auto& out) {
        using C = element_type<decltype(g)>;
        out = g * (y * (C(1) - y));
      });
    case ActivationKind::LogSigmoid:
      return map_floating<2>({grad, saved}, grad_x, [](const auto& g, const auto& a, auto& out) {
        out = g * logistic(-a);
      });
    case ActivationKind::Softplus:
      return softplus_grad(parameters, grad, saved, grad_x);
    case ActivationKind::Elu:
      return elu_grad(first, grad, saved, grad_x);
    case ActivationKind::Gelu:
      return gelu_grad(grad, saved, grad_x);
    case ActivationKind::GeluTanh:
      return gelu_tanh_grad(grad, saved, grad_x);
    case ActivationKind::Silu:
      return silu_grad(grad, saved, grad_x);
    case ActivationKind::Mish:
      return mish_grad(grad, saved, grad_x);
  }
}

}  // namespace tenon::ops::cpu
