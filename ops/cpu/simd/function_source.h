// Functions of single values, and the fused block's chain: a part of kernel_source.h, which see.
#pragma once

#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/cpu/simd/vector_source.h"

namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE {
namespace {

// The instructions give their second operand where one is NaN: both keep the NaN of x.
#if TENON_SIMD_BYTES == 64
inline Vector minimum(Vector x, Vector bound) { return _mm512_min_ps(bound, x); }
inline Vector maximum(Vector x, Vector bound) { return _mm512_max_ps(bound, x); }
#elif TENON_SIMD_BYTES == 32
inline Vector minimum(Vector x, Vector bound) { return _mm256_min_ps(bound, x); }
inline Vector maximum(Vector x, Vector bound) { return _mm256_max_ps(bound, x); }
#else
inline Vector minimum(Vector x, Vector bound) { return x > bound ? bound : x; }
inline Vector maximum(Vector x, Vector bound) { return x < bound ? bound : x; }
#endif

/// Two vectors that go through the same operations side by side: a processor that sees far enough
/// ahead for one chain of dependent operations sees two of them.
struct Two {
  Vector a, b;
};

#define TENON_SIMD_OPERATOR(op)                                                           \
  inline Two operator op(const Two& x, const Two& y) { return {x.a op y.a, x.b op y.b}; } \
  inline Two operator op(const Two& x, float y) { return {x.a op y, x.b op y}; }          \
  inline Two operator op(float x, const Two& y) { return {x op y.a, x op y.b}; }
TENON_SIMD_OPERATOR(+)
TENON_SIMD_OPERATOR(-)
TENON_SIMD_OPERATOR(*)
TENON_SIMD_OPERATOR(/)
#undef TENON_SIMD_OPERATOR

inline Two both(float x) { return {splat(x), splat(x)}; }
inline Two multiply_add(const Two& x, const Two& y, const Two& z) {
  return {multiply_add(x.a, y.a, z.a), multiply_add(x.b, y.b, z.b)};
}
inline Two clamped(const Two& x, float low, float high) {
  const Two raised{maximum(x.a, splat(low)), maximum(x.b, splat(low))};
  return {minimum(raised.a, splat(high)), minimum(raised.b, splat(high))};
}
/// x where `passes`, otherwise 0.
template <class Condition>
inline Two where(const Two& value, const Two& x, const Condition& passes) {
  return {passes(value.a) ? x.a : Vector{}, passes(value.b) ? x.b : Vector{}};
}

/// x·2^n, n as the lowest bits of n + 1.5·2^23; the result may be denormal, zero or infinite.
inline Vector times_power(Vector x, Vector shifted) {
#if TENON_SIMD_BYTES == 64
  return _mm512_scalef_ps(x, shifted - 12582912.0f);
#else
  // 2^n as two factors.
  const Integers whole = reinterpret_cast<Integers>(shifted) - 0x4B400000;
  const Integers half = whole >> 1;
  const Vector first = reinterpret_cast<Vector>((half + 127) << 23);
  const Vector second = reinterpret_cast<Vector>((whole - half + 127) << 23);
  return x * first * second;
#endif
}

/// 1 / x for x from 2 to 2^60. A division keeps the divider of a processor with wide vectors busy
/// for as long as all the rest of the chain takes: there, an estimate of 14 bits and one step of
/// Newton's, which leaves an error of 2^-28 beside the rounding.
inline Vector reciprocal(Vector x) {
#if TENON_SIMD_BYTES == 64
  const Vector estimate = _mm512_rcp14_ps(x);
  return multiply_add(estimate, _mm512_fnmadd_ps(x, estimate, splat(1.0f)), estimate);
#else
  return 1.0f / x;
#endif
}

/// e^min(x, most), most <= 90: with n = round(x / ln 2) and r = x - n·ln 2, 2^n times a polynomial
/// of r.
inline Two exponential(const Two& argument, float most) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLn2High = 0.693359375f;  // n·kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5·2^23: adding it leaves whole numbers
  const Two x = clamped(argument, -110.0f, most);
  const Two shifted = multiply_add(x, both(kLog2E), both(kRound));
  const Two n = shifted - kRound;
  const Two r = multiply_add(n, both(-kLn2Low), multiply_add(n, both(-kLn2High), x));
  Two p = both(1.9875691500e-4f);
  p = multiply_add(p, r, both(1.3981999507e-3f));
  p = multiply_add(p, r, both(8.3334519073e-3f));
  p = multiply_add(p, r, both(4.1665795894e-2f));
  p = multiply_add(p, r, both(1.6666665459e-1f));
  p = multiply_add(p, r, both(5.0000001201e-1f));
  p = multiply_add(p, r * r, r) + 1.0f;
  return {times_power(p.a, shifted.a), times_power(p.b, shifted.b)};
}

/// mish(y) = y·gate and, where gate = n / (n + 2), e = exp(min(y, 20)) and n = e² + 2e, its
/// derivative gate + y·bend, bend = 4e(e + 1) / (n + 2)².
struct Mish {
  Two e, gate, inverse;

  explicit Mish(const Two& y) : e(exponential(y, 20.0f)) {
    const Two n = e * (e + 2.0f);
    const Two whole = n + 2.0f;
    inverse = {reciprocal(whole.a), reciprocal(whole.b)};
    gate = n * inverse;
  }
  /// Above 20 its second part is below the last digit; zero makes mish'(∞) the NaN that PyTorch has
  /// there.
  Two slope(const Two& y) const {
    const Two bend = 4.0f * e * (e + 1.0f) * (inverse * inverse);
    return multiply_add(y, where(y, bend, [](Vector v) { return !(v >= 20.0f); }), gate);
  }
};

inline Two chain_result(const Chain& chain, Two y) {
  if (chain.mish) y = y * Mish(y).gate;
  return clamped(y + chain.add, chain.min, chain.max) * chain.scale;
}

inline Two chain_gradient(const Chain& chain, Two y, Two gradient) {
  Two slope = both(chain.scale);
  if (chain.mish) {
    const Mish mish(y);
    slope = mish.slope(y) * chain.scale;
    y = y * mish.gate;
  }
  if (chain.clamps) {
    const Two value = y + chain.add;
    gradient = where(value, gradient, [&](Vector v) { return v >= chain.first_inside; });
    gradient = where(value, gradient, [&](Vector v) { return v <= chain.last_inside; });
  }
  return gradient * slope;
}

/// Two vectors' values from p, zeros where they are more than `count`; and back.
inline Two load_two(const float* p, std::int64_t count) {
  return {load_most(p, count), count > kLanes ? load_most(p + kLanes, count - kLanes) : Vector{}};
}

/// Replaces two vectors of `count` values at a time by `change(i, them)`, i being where they begin.
/// The last ones, which may be a part, go through the same code.
template <class Change>
inline void for_each_two(float* values, std::int64_t count, const Change& change) {
  for (std::int64_t i = 0; i < count; i += 2 * kLanes) {
    const std::int64_t left = count - i;
    const Two result = change(i, load_two(values + i, left));
    store_most(values + i, result.a, left);
    store_most(values + i + kLanes, result.b, left - kLanes);
  }
}

void exponential_of(float* values, std::int64_t count) {
  for_each_two(values, count, [](std::int64_t, const Two& x) { return exponential(x, 90.0f); });
}

void apply(const Chain& chain, float* values, std::int64_t count) {
  const Chain local = chain;  // a copy, which what is written cannot be
  for_each_two(values, count, [&](std::int64_t, const Two& y) { return chain_result(local, y); });
}

/// `values` may be read up to the end of a vector.
void gradient(const Chain& chain, const float* values, float* gradients, std::int64_t count) {
  const Chain local = chain;
  for_each_two(gradients, count, [&](std::int64_t i, const Two& g) {
    const Vector second = count - i > kLanes ? load(values + i + kLanes) : Vector{};
    return chain_gradient(local, {load(values + i), second}, g);
  });
}

}  // namespace
}  // namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE
