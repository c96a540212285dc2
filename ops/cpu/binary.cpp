#include "tenon/ops/cpu/binary.h"

#include <cmath>

#include "tenon/ops/cpu/map.h"

namespace tenon::ops::cpu {
namespace {

/// base^exponent; integers wrap around, and a negative exponent truncates the fraction.
template <class C>
C power(C base, C exponent) {
  if constexpr (std::is_floating_point_v<C>) {
    return std::pow(base, exponent);
  } else {
    if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
    std::uint64_t result = 1;
    std::uint64_t factor = static_cast<std::uint64_t>(base);
    for (; exponent > 0; exponent >>= 1) {
      if (exponent & 1) result *= factor;
      factor *= factor;
    }
    return static_cast<C>(result);
  }
}

template <class C>
C scalar_as(Scalar scalar) {
  if constexpr (std::is_integral_v<C>) {
    return scalar.to_int64();
  } else {
    return static_cast<C>(scalar.to_double());
  }
}

/// x^exponent, with the exponents that need no logarithm computed without one.
void power_scalar(const Tensor& x, Scalar exponent, const Tensor& out) {
  map_all<1>({x}, out, [exponent](const auto& a, auto& y) {
    using C = element_type<decltype(a)>;
    const C e = scalar_as<C>(exponent);
    if (e == C(1)) {
      y = a;
    } else if (e == C(2)) {
      y = a.square();
    } else if (e == C(3)) {
      y = a.cube();
    } else if (std::is_floating_point_v<C> && e == C(-1)) {
      y = C(1) / a;
    } else {
      y = a.unaryExpr([e](C v) { return power(v, e); });
    }
  });
}

}  // namespace

void binary(BinaryKind kind, const Tensor& a, const Tensor& b, const Tensor& out) {
  switch (kind) {
    case BinaryKind::Add:
      return map_all<2>({a, b}, out, [](const auto& x, const auto& y, auto& z) { z = x + y; });
    case BinaryKind::Sub:
      return map_all<2>({a, b}, out, [](const auto& x, const auto& y, auto& z) { z = x - y; });
    case BinaryKind::Mul:
      return map_all<2>({a, b}, out, [](const auto& x, const auto& y, auto& z) { z = x * y; });
    case BinaryKind::Div:
      return map_floating<2>({a, b}, out, [](const auto& x, const auto& y, auto& z) { z = x / y; });
    case BinaryKind::Pow:
      return map_all<2>({a, b}, out, [](const auto& x, const auto& y, auto& z) {
        using C = element_type<decltype(x)>;
        z = x.binaryExpr(y, [](C base, C exponent) { return power(base, exponent); });
      });
    case BinaryKind::Maximum:
      return map_all<2>({a, b}, out, [](const auto& x, const auto& y, auto& z) {
        using C = element_type<decltype(x)>;
        z = x.binaryExpr(y, [](C u, C v) { return u > v || u != u ? u : v; });
      });
    case BinaryKind::Minimum:
      return map_all<2>({a, b}, out, [](const auto& x, const auto& y, auto& z) {
        using C = element_type<decltype(x)>;
        z = x.binaryExpr(y, [](C u, C v) { return u < v || u != u ? u : v; });
      });
  }
}

void binary_scalar(BinaryKind kind, const Tensor& x, Scalar scalar, bool reversed,
                   const Tensor& out) {
  switch (kind) {
    case BinaryKind::Add:
      return map_all<1>({x}, out, [scalar](const auto& a, auto& y) {
        y = a + scalar_as<element_type<decltype(a)>>(scalar);
      });
    case BinaryKind::Sub:
      return map_all<1>({x}, out, [scalar, reversed](const auto& a, auto& y) {
        const auto s = scalar_as<element_type<decltype(a)>>(scalar);
        if (reversed) {
          y = s - a;
        } else {
          y = a - s;
        }
      });
    case BinaryKind::Mul:
      return map_all<1>({x}, out, [scalar](const auto& a, auto& y) {
        y = a * scalar_as<element_type<decltype(a)>>(scalar);
      });
    case BinaryKind::Div:
      return map_floating<1>({x}, out, [scalar, reversed](const auto& a, auto& y) {
        const auto s = scalar_as<element_type<decltype(a)>>(scalar);
        if (reversed) {
          y = s / a;
        } else {
          y = a / s;
        }
      });
    case BinaryKind::Pow:
      if (!reversed) return power_scalar(x, scalar, out);
      return map_all<1>({x}, out, [scalar](const auto& a, auto& y) {
        using C = element_type<decltype(a)>;
        const C base = scalar_as<C>(scalar);
        y = a.unaryExpr([base](C exponent) { return power(base, exponent); });
      });
    case BinaryKind::Maximum:
    case BinaryKind::Minimum:
      break;
  }
  tenon::detail::fail("maximum and minimum have no scalar form");
}

}  // namespace tenon::ops::cpu
