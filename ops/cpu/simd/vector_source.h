// Vectors and their shuffles: a part of kernel_source.h, which see.
#pragma once

#if TENON_SIMD_BYTES > 16
#include <immintrin.h>
#endif

#include <cstddef>
#include <cstdint>

#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE {
namespace {

constexpr int kLanes = TENON_SIMD_BYTES / 4;

typedef float Vector __attribute__((vector_size(TENON_SIMD_BYTES)));
typedef std::int32_t Integers __attribute__((vector_size(TENON_SIMD_BYTES)));
typedef float InMemory __attribute__((vector_size(TENON_SIMD_BYTES), aligned(4), may_alias));

inline Vector load(const float* p) { return *reinterpret_cast<const InMemory*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<InMemory*>(p) = v; }
inline Vector splat(float x) { return x - Vector{}; }

/// a·b + c, rounded once where the instruction set can. Said outright, and the compiler's own
/// contractions are off (CMakeLists.txt): it joins some multiplications and additions and not
/// others, differently in each copy of a loop, and the number of threads decides which copy a value
/// goes through.
inline Vector multiply_add(Vector a, Vector b, Vector c) {
#if TENON_SIMD_BYTES == 64
  return _mm512_fmadd_ps(a, b, c);
#elif TENON_SIMD_BYTES == 32
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__FP_FAST_FMAF)
  for (int i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#else
  return a * b + c;
#endif
}

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

/// Copies `count` < kLanes floats in pieces of whole powers of two.
[[maybe_unused]] inline void copy_part(const float* from, float* to, std::int64_t count) {
  for (std::int64_t piece = kLanes / 2; piece > 0; piece /= 2) {
    if ((count & piece) == 0) continue;
    __builtin_memcpy(to, from, static_cast<std::size_t>(piece) * sizeof(float));
    from += piece;
    to += piece;
  }
}

/// The first `count` floats from p, as many as there are lanes at most, then zeros. Put together in
/// memory they would have to wait there for each other, where the processor can load them at once.
inline Vector load_most(const float* p, std::int64_t count) {
  if (count >= kLanes) return load(p);
#if TENON_SIMD_BYTES == 64
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
#elif TENON_SIMD_BYTES == 32
  constexpr Integers kPlaces = {0, 1, 2, 3, 4, 5, 6, 7};
  const Integers wanted = kPlaces < static_cast<std::int32_t>(count);
  return _mm256_maskload_ps(p, reinterpret_cast<__m256i>(wanted));
#else
  float room[kLanes] = {};
  copy_part(p, room, count);
  return load(room);
#endif
}

/// The first `count` floats of v, all of them where it has no more.
inline void store_most(float* p, Vector v, std::int64_t count) {
  if (count >= kLanes) {
    store(p, v);
  } else if (count > 0) {
#if TENON_SIMD_BYTES == 64
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
#elif TENON_SIMD_BYTES == 32
    // Masked stores take tens of cycles on some processors.
    __m128 rest = _mm256_castps256_ps128(v);
    if ((count & 4) != 0) {
      _mm_storeu_ps(p, rest);
      rest = _mm256_extractf128_ps(v, 1);
      p += 4;
    }
    if ((count & 2) != 0) {
      _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
      rest = _mm_movehl_ps(rest, rest);
      p += 2;
    }
    if ((count & 1) != 0) _mm_store_ss(p, rest);
#else
    float room[kLanes];
    store(room, v);
    copy_part(room, p, count);
#endif
  }
}

// ---- shuffles ----------------------------------------------------------------------------------

/// a0 b0 a1 b1 … of the lower halves of a and b, and of the upper ones; of pairs the even and the
/// odd elements.
#if TENON_SIMD_BYTES == 64
#define TENON_SIMD_SHUFFLE(name, ...) \
  inline Vector name(Vector a, Vector b) { return __builtin_shufflevector(a, b, __VA_ARGS__); }
TENON_SIMD_SHUFFLE(mix_low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
TENON_SIMD_SHUFFLE(mix_high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
TENON_SIMD_SHUFFLE(evens, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
TENON_SIMD_SHUFFLE(odds, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#elif TENON_SIMD_BYTES == 32
#define TENON_SIMD_SHUFFLE(name, ...) \
  inline Vector name(Vector a, Vector b) { return __builtin_shufflevector(a, b, __VA_ARGS__); }
TENON_SIMD_SHUFFLE(mix_low, 0, 8, 1, 9, 2, 10, 3, 11)
TENON_SIMD_SHUFFLE(mix_high, 4, 12, 5, 13, 6, 14, 7, 15)
TENON_SIMD_SHUFFLE(evens, 0, 2, 4, 6, 8, 10, 12, 14)
TENON_SIMD_SHUFFLE(odds, 1, 3, 5, 7, 9, 11, 13, 15)
#else
#define TENON_SIMD_SHUFFLE(name, ...) \
  inline Vector name(Vector a, Vector b) { return __builtin_shufflevector(a, b, __VA_ARGS__); }
TENON_SIMD_SHUFFLE(mix_low, 0, 4, 1, 5)
TENON_SIMD_SHUFFLE(mix_high, 2, 6, 3, 7)
TENON_SIMD_SHUFFLE(evens, 0, 2, 4, 6)
TENON_SIMD_SHUFFLE(odds, 1, 3, 5, 7)
#endif
#undef TENON_SIMD_SHUFFLE

#if TENON_SIMD_BYTES == 32
/// Turns a square of kLanes x kLanes. Within halves of vectors, where a shuffle is one instruction,
/// until halves are exchanged.
inline void transpose_square(Vector rows[kLanes]) {
  Vector pairs[kLanes];
  for (int i = 0; i < kLanes; i += 2) {
    pairs[i] = __builtin_shufflevector(rows[i], rows[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    pairs[i + 1] = __builtin_shufflevector(rows[i], rows[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  Vector fours[kLanes];  // columns i and i + 4 of rows 0 … 3, and of rows 4 … 7
  for (int i = 0; i < kLanes; i += 4) {
    for (int j = 0; j < 2; ++j) {
      const Vector a = pairs[i + j];
      const Vector b = pairs[i + j + 2];
      fours[i + 2 * j] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
      fours[i + 2 * j + 1] = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    rows[i] = __builtin_shufflevector(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    rows[i + 4] = __builtin_shufflevector(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}
#else
/// A square of kLanes x kLanes: log2(kLanes) times, rows i and i + kLanes/2 are mixed into rows 2i
/// and 2i + 1.
inline void transpose_square(Vector rows[kLanes]) {
  for (int step = 1; step < kLanes; step *= 2) {
    Vector mixed[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      mixed[2 * i] = mix_low(rows[i], rows[i + kLanes / 2]);
      mixed[2 * i + 1] = mix_high(rows[i], rows[i + kLanes / 2]);
    }
    for (int i = 0; i < kLanes; ++i) rows[i] = mixed[i];
  }
}
#endif

/// A whole square's columns from memory, `row_of(r)` being where row r begins.
template <class RowOf>
inline void load_turned(const RowOf& row_of, Vector square[kLanes]) {
#if TENON_SIMD_BYTES == 64
  // Quarters of four rows put together as they are loaded, for which there is no waiting for the
  // one unit that shuffles; then squares of 4 x 4 within quarters.
  for (int j = 0; j < kLanes; j += 4) {
    Vector rows[4];
    for (int r = 0; r < 4; ++r) {
      __m512 quarters = _mm512_castps128_ps512(_mm_loadu_ps(row_of(r) + j));
      quarters = _mm512_insertf32x4(quarters, _mm_loadu_ps(row_of(r + 4) + j), 1);
      quarters = _mm512_insertf32x4(quarters, _mm_loadu_ps(row_of(r + 8) + j), 2);
      rows[r] = _mm512_insertf32x4(quarters, _mm_loadu_ps(row_of(r + 12) + j), 3);
    }
    const __m512d low_a = _mm512_castps_pd(_mm512_unpacklo_ps(rows[0], rows[1]));
    const __m512d high_a = _mm512_castps_pd(_mm512_unpackhi_ps(rows[0], rows[1]));
    const __m512d low_b = _mm512_castps_pd(_mm512_unpacklo_ps(rows[2], rows[3]));
    const __m512d high_b = _mm512_castps_pd(_mm512_unpackhi_ps(rows[2], rows[3]));
    square[j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low_a, low_b));
    square[j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low_a, low_b));
    square[j + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high_a, high_b));
    square[j + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high_a, high_b));
  }
#else
  for (int r = 0; r < kLanes; ++r) square[r] = load(row_of(r));
  transpose_square(square);
#endif
}

/// A square's rows from memory, zeros beyond `rows` and `width`; and to memory.
inline void load_square(const float* from, std::int64_t stride, std::int64_t rows,
                        std::int64_t width, Vector square[kLanes]) {
  if (rows >= kLanes && width >= kLanes) {
    for (int r = 0; r < kLanes; ++r) square[r] = load(from + r * stride);
    return;
  }
  if (rows >= kLanes) {
    for (int r = 0; r < kLanes; ++r) square[r] = load_most(from + r * stride, width);
    return;
  }
  for (int r = 0; r < kLanes; ++r) {
    square[r] = r < rows ? load_most(from + r * stride, width) : Vector{};
  }
}

/// A square's columns from memory, zeros beyond `rows` and `width`.
inline void load_turned_part(const float* from, std::int64_t stride, std::int64_t rows,
                             std::int64_t width, Vector square[kLanes]) {
  if (rows >= kLanes && width >= kLanes) {
    load_turned([&](int r) { return from + r * stride; }, square);
  } else {
    load_square(from, stride, rows, width, square);
    transpose_square(square);
  }
}

inline void store_square(const Vector square[kLanes], std::int64_t rows, std::int64_t width,
                         float* to, std::int64_t stride) {
  if (rows >= kLanes && width >= kLanes) {
    for (int r = 0; r < kLanes; ++r) store(to + r * stride, square[r]);
    return;
  }
  for (int r = 0; r < kLanes; ++r) {
    if (r < rows) store_most(to + r * stride, square[r], width);
  }
}

}  // namespace
}  // namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE
