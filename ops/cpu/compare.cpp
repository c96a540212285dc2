#include "tenon/ops/cpu/compare.h"

#include <cmath>

#include "tenon/ops/cpu/map.h"

namespace tenon::ops::cpu {
namespace {

/// out[i] = relation(a[i], b[i]) as 0 or 1 of the compute type, in a loop that the compiler
/// vectorises.
template <class Relation>
void relate(const Tensor& a, const Tensor& b, const Tensor& out, Relation relation) {
  map_all<2>({a, b}, out, [relation](const auto& x, const auto& y, auto& z) {
    using C = element_type<decltype(x)>;
    z = x.binaryExpr(y, [relation](C u, C v) { return relation(u, v) ? C(1) : C(0); });
  });
}

template <class Relation>
void relate_scalar(const Tensor& x, Scalar scalar, const Tensor& out, Relation relation) {
  map_all<1>({x}, out, [scalar, relation](const auto& a, auto& z) {
    using C = element_type<decltype(a)>;
    const C s = std::is_integral_v<C> ? static_cast<C>(scalar.to_int64())
                                      : static_cast<C>(scalar.to_double());
    z = a.unaryExpr([s, relation](C u) { return relation(u, s) ? C(1) : C(0); });
  });
}

/// Calls `run` with the relation of `kind`.
template <class Run>
void with_relation(CompareKind kind, Run run) {
  switch (kind) {
    case CompareKind::Eq:
      return run([](auto u, auto v) { return u == v; });
    case CompareKind::Ne:
      return run([](auto u, auto v) { return u != v; });
    case CompareKind::Lt:
      return run([](auto u, auto v) { return u < v; });
    case CompareKind::Le:
      return run([](auto u, auto v) { return u <= v; });
    case CompareKind::Gt:
      return run([](auto u, auto v) { return u > v; });
    case CompareKind::Ge:
      return run([](auto u, auto v) { return u >= v; });
    case CompareKind::LogicalAnd:
      return run([](auto u, auto v) { return u != 0 && v != 0; });
    case CompareKind::LogicalOr:
      return run([](auto u, auto v) { return u != 0 || v != 0; });
  }
}

}  // namespace

void compare(CompareKind kind, const Tensor& a, const Tensor& b, const Tensor& out) {
  with_relation(kind, [&](auto relation) { relate(a, b, out, relation); });
}

void compare_scalar(CompareKind kind, const Tensor& x, Scalar scalar, const Tensor& out) {
  with_relation(kind, [&](auto relation) { relate_scalar(x, scalar, out, relation); });
}

void test(TestKind kind, const Tensor& x, const Tensor& out) {
  switch (kind) {
    case TestKind::LogicalNot:
      return map_all<1>({x}, out, [](const auto& a, auto& z) {
        using C = element_type<decltype(a)>;
        z = a.unaryExpr([](C v) { return v == C(0) ? C(1) : C(0); });
      });
    case TestKind::IsNan:
      return map_all<1>({x}, out, [](const auto& a, auto& z) {
        using C = element_type<decltype(a)>;
        z = a.unaryExpr([](C v) { return v != v ? C(1) : C(0); });
      });
    case TestKind::IsFinite:
      return map_all<1>({x}, out, [](const auto& a, auto& z) {
        using C = element_type<decltype(a)>;
        // Infinite and NaN are the values whose difference from themselves is not 0.
        z = a.unaryExpr([](C v) { return v - v == C(0) ? C(1) : C(0); });
      });
  }
}

}  // namespace tenon::ops::cpu
