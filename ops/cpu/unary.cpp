#include "tenon/ops/cpu/unary.h"

#include "tenon/ops/cpu/array_math.h"
#include "tenon/ops/cpu/map.h"

namespace tenon::ops::cpu {

void unary(UnaryKind kind, const Tensor& x, const Tensor& y) {
  switch (kind) {
    case UnaryKind::Neg:
      // Not -a, which Eigen 3.4 computes as 0 - a on AVX-512: that makes 0 of 0 instead of -0.
      return map_all<1>({x}, y,
                        [](const auto& a, auto& out) { out = a * element_type<decltype(a)>(-1); });
    case UnaryKind::Abs:
      return map_all<1>({x}, y, [](const auto& a, auto& out) { out = a.abs(); });
    case UnaryKind::Sign:
      return map_all<1>({x}, y, [](const auto& a, auto& out) {
        using C = element_type<decltype(a)>;
        out = a.unaryExpr([](C v) { return v > C(0) ? C(1) : v < C(0) ? C(-1) : C(0); });
      });
    case UnaryKind::Square:
      return map_all<1>({x}, y, [](const auto& a, auto& out) { out = a.square(); });
    case UnaryKind::Floor:
      return map_all<1>({x}, y, [](const auto& a, auto& out) {
        if constexpr (std::is_integral_v<element_type<decltype(a)>>) {
          out = a;
        } else {
          out = a.floor();
        }
      });
    case UnaryKind::Exp:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) { out = exponential(a); });
    case UnaryKind::Log:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) { logarithm(a, out); });
    case UnaryKind::Sqrt:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) { out = square_root(a); });
    case UnaryKind::Rsqrt:
      return map_floating<1>({x}, y,
                             [](const auto& a, auto& out) { out = square_root(a).inverse(); });
    case UnaryKind::Reciprocal:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) { out = a.inverse(); });
    case UnaryKind::Sin:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) { out = a.sin(); });
    case UnaryKind::Cos:
      return map_floating<1>({x}, y, [](const auto& a, auto& out) { out = a.cos(); });
  }
}

}  // namespace tenon::ops::cpu
