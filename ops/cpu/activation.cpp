#include "tenon/ops/cpu/activation.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tenon/ops/cpu/array_math.h"
#include "tenon/ops/cpu/map.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {
namespace {

/// A bound in the compute type; infinite ones become the integer type's limits.
template <class C>
C bound(double value) {
  if constexpr (std::is_integral_v<C>) {
    if (value >= 9.2e18) return std::numeric_limits<C>::max();
    if (value <= -9.2e18) return std::numeric_limits<C>::min();
  }
  return static_cast<C>(value);
}

/// Limits first from below, then from above, so that `high` wins; comparisons with NaN fail and
/// leave it.
void limit(const Tensor& x, const ActivationParameters& bounds, const Tensor& y) {
  map_all<1>({x}, y, [bounds](const auto& a, auto& out) {
    using C = element_type<decltype(a)>;
    const C low = bound<C>(bounds.first);
    const C high = bound<C>(bounds.second);
    out = a.unaryExpr([low, high](C v) {
      const C raised = v < low ? low : v;
      return raised > high ? high : raised;
    });
  });
}

/// y·n/(n+2) with e = e^min(y, 20), n = e² + 2e: no cancellation for small e, no overflow for
/// large. At 20, n/(n+2) is 1 in double already.
void mish(const Tensor& x, const Tensor& y) {
  map_floating<1>({x}, y, [](const auto& a, auto& out) {
    using C = element_type<decltype(a)>;
    if constexpr (std::is_same_v<C, float>) {
      std::copy_n(a.data(), a.size(), out.data());
      simd::kernels().apply(simd::kMishAlone, out.data(), out.size());
    } else {
      out = exponential(a.min(C(20)));
      out = out * (out + C(2));
      out = a * (out / (out + C(2)));
    }
  });
}

void softplus(const ActivationParameters& parameters, const Tensor& x, const Tensor& y) {
  map_floating<1>({x}, y, [parameters](const auto& a, auto& out) {
    using C = element_type<decltype(a)>;
    const C beta = static_cast<C>(parameters.first);
    const C threshold = static_cast<C>(parameters.second);
    out = exponential(a * beta).log1p() / beta;
    out = (a * beta > threshold).select(a, out);
  });
}

void elu(double alpha, const Tensor& x, const Tensor& y) {
  map_floating<1>({x}, y, [alpha](const auto& a, auto& out) {
    using C = element_type<decltype(a)>;
    out = static_cast<C>(alpha) * a.min(C(0)).expm1();
    out = (a > C(0)).select(a, out);
    out = (a == a).select(out, a);
  });
}

void gelu(const Tensor& x, const Tensor& y) {
  map_floating<1>({x}, y, [](const auto& a, auto& out) {
    using C = element_type<decltype(a)>;
    // erfc keeps the relative accuracy of the left tail, which 1 + erf loses.
    out = a.unaryExpr([](C v) { return C(0.5) * v * std::erfc(v * C(-std::numbers::sqrt2 / 2)); });
  });
}

void gelu_tanh(const Tensor& x, const Tensor& y) {
  map_floating<1>({x}, y, [](const auto& a, auto& out) {
    using C = element_type<decltype(a)>;
    // (1 + tanh u) / 2 = 1 / (1 + e^-2u), without the cancellation in the left tail.
    constexpr C kFactor = C(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
    out = kFactor * a * (C(1) + C(0.044715) * a.square());
    out = a * logistic(out);
  });
}

}  // namespace

void activation(ActivationKind kind, const ActivationParameters& parameters, const Tensor& x,
                const Tensor& y) {
  switch (kind) {
    case ActivationKind::Relu:
      return limit(x, {0, std::numeric_limits<double>::infinity()}, y);
    case ActivationKind::LeakyRelu:
      return map_floating<1>({x}, y, [slope = parameters.first](const auto& a, auto& out) {
        using C = element_type<decltype(a)>;
        const C s = static_cast<C>(slope);
        out = a.unaryExpr([s](C v) { return v > C(0) ? v : v * s; });
      });
    case ActivationKind::Hardtanh:
    case ActivationKind::Clamp:
      return limit(x, parameters, y);
    case ActivationKind::Tanh:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) { out = a.tanh(); });
    case ActivationKind::Sigmoid:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) { out = logistic(a); });
    case ActivationKind::LogSigmoid:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) {
        using C = element_type<decltype(a)>;
        out = exponential(-a.abs()).log1p();
        out = a.binaryExpr(out, [](C v, C rest) { return (v > C(0) ? C(0) : v) - rest; });
      });
    case ActivationKind::Softplus:
      return softplus(parameters, x, y);
    case ActivationKind::Elu:
      return elu(parameters.first, x, y);
    case ActivationKind::Gelu:
      return gelu(x, y);
    case ActivationKind::GeluTanh:
      return gelu_tanh(x, y);
    case ActivationKind::Silu:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) {
        using C = element_type<decltype(a)>;
        out = a / (C(1) + exponential(-a));
      });
    case ActivationKind::Mish:
      return mish(x, y);
  }
}

}  // namespace tenon::ops::cpu
