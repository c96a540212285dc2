// What the activation functions and their derivatives share on the device.
#pragma once

#include <numbers>

namespace tenon::ops::cuda {

/// 1 / (1 + e^-x)
template <class C>
__device__ C logistic(C x) {
  return C(1) / (C(1) + ::exp(-x));
}

/// The standard normal distribution function. erfc keeps the relative accuracy of the left tail,
/// which 1 + erf loses.
template <class C>
__device__ C normal_distribution(C x) {
  return C(0.5) * ::erfc(x * C(-std::numbers::sqrt2 / 2));
}

/// The factor 2·√(2/π) of gelu's approximation (1 + tanh u) / 2 = 1 / (1 + e^-2u), which has no
/// cancellation in the left tail.
template <class C>
inline constexpr C kGeluTanhFactor = C(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);

/// 2u of that, u = √(2/π)·(x + 0.044715·x³).
template <class C>
__device__ C gelu_tanh_argument(C x) {
  return kGeluTanhFactor<C> * x * (C(1) + C(0.044715) * (x * x));
}

/// n = e² + 2e, with which tanh(softplus(x)) is n/(n + 2) for e = e^x: no cancellation for small
/// e. Limit x to 20, where n/(n + 2) is 1 in double already, and there is no overflow either.
template <class C>
__device__ C mish_numerator(C e) {
  return e * (e + C(2));
}

}  // namespace tenon::ops::cuda
