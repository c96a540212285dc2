// Functions of Eigen arrays that are right over the whole range of the type, where Eigen's own
// packet versions clamp.
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <limits>
#include <type_traits>

namespace tenon::ops::cpu {

/// e^x. Eigen's packet version clamps its argument, so that e^100 would be finite in float and
/// e^-∞ would not be 0; the square of e^(x/2) reaches both ends of the range.
template <class X>
auto exponential(const X& x) {
  using C = typename X::Scalar;
  return (x * C(0.5)).exp().square();
}

/// 1 / (1 + e^-x)
template <class X>
auto logistic(const X& x) {
  using C = typename X::Scalar;
  return (C(1) + (x * C(-0.5)).exp().square()).inverse();
}

/// √x, correctly rounded. Eigen's packet version multiplies x by an estimate of 1/√x, which gives
/// NaN at ∞ and 0 for denormal numbers.
template <class X>
auto square_root(const X& x) {
  using C = typename X::Scalar;
  return x.unaryExpr([](C value) { return std::sqrt(value); });
}

/// y = ln x. Eigen's packet version takes denormal numbers for the smallest normal one; they are
/// scaled up first.
template <class X, class Y>
void logarithm(const X& x, Y& y) {
  using C = typename X::Scalar;
  constexpr C kSmallest = std::numeric_limits<C>::min();
  constexpr C kScale = C(16777216);
  int denormals = 0;  // combined without branches, so that the loop vectorises
  for (Eigen::Index i = 0; i < x.size(); ++i) {
    const C value = x.coeff(i);
    denormals |= static_cast<int>(value < kSmallest) & static_cast<int>(value > C(0));
  }
  if (denormals == 0) {
    y = x.log();
  } else {
    // The logarithm stands alone in its assignment: one with `select` would compute it with
    // std::log, which rounds otherwise.
    y = (x < kSmallest).select(x * kScale, x);
    y = y.log();
    y = (x < kSmallest).select(y - std::log(kScale), y);
  }
}

}  // namespace tenon::ops::cpu
