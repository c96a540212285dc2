// The source of the functions in kernels.h. A file that includes it defines
//   TENON_SIMD_NAMESPACE  a namespace of its own, which is the instruction set's name
//   TENON_SIMD_BYTES      the size of a vector
//   TENON_SIMD_CHANNELS   the most channels of a product
// and is compiled for that instruction set. So that the linker never takes another file's copy of a
// function compiled for a newer processor, nothing of the standard library but types is used here,
// and all that is defined is inside the namespace and has internal linkage.

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

// ---- sums of products --------------------------------------------------------------------------

/// All sums stay in registers: channels·vectors of them, beside one vector of each and a weight.
template <int kChannels, int kVectors>
void multiply(const Product& product) {
  Vector sums[kChannels][kVectors] = {};
  const float* x[kVectors];
  for (int v = 0; v < kVectors; ++v) x[v] = product.vectors[v];
  const float* weights = product.weights;
  for (std::int64_t k = 0; k < product.depth; ++k, weights += kChannels) {
    const std::int64_t offset = product.offsets[k];
    Vector values[kVectors];
    for (int v = 0; v < kVectors; ++v) values[v] = load(x[v] + offset);
    for (int c = 0; c < kChannels; ++c) {
      const Vector weight = splat(weights[c]);
      for (int v = 0; v < kVectors; ++v) sums[c][v] = multiply_add(weight, values[v], sums[c][v]);
    }
  }
  for (int c = 0; c < kChannels; ++c) {
    float* target = product.sums + c * product.sums_stride;
    for (int v = 0; v < kVectors; ++v, target += kLanes) {
      store(target,
            sums[c][v] + (product.start == nullptr ? load(target) : splat(product.start[c])));
    }
  }
}

template <int kVectors, int kChannels>
void multiply_channels(const Product& product) {
  if constexpr (kChannels > 1) {
    if (product.channels < kChannels) {
      multiply_channels<kVectors, kChannels - 1>(product);
      return;
    }
  }
  multiply<kChannels, kVectors>(product);
}

void multiply_any(const Product& product) {
  switch (product.vector_count) {
    case 1:
      return multiply_channels<1, TENON_SIMD_CHANNELS>(product);
    case 2:
      return multiply_channels<2, TENON_SIMD_CHANNELS>(product);
    default:
      return multiply_channels<3, TENON_SIMD_CHANNELS>(product);
  }
}

template <int kRows, int kVectors>
void correlate(const Correlation& c) {
  Vector sums[kRows][kVectors] = {};
  for (std::int64_t row = 0; row < c.rows; ++row) {
    const float* a = c.a + row * c.a_row;
    const float* b[kVectors];
    for (int j = 0; j < kVectors; ++j) b[j] = c.b[j] + row * c.b_row;
    for (std::int64_t k = 0; k < c.columns * kLanes; k += kLanes) {
      Vector values[kVectors];
      for (int j = 0; j < kVectors; ++j) values[j] = load(b[j] + k);
      for (int i = 0; i < kRows; ++i) {
        const Vector value = load(a + i * c.a_stride + k);
        for (int j = 0; j < kVectors; ++j) sums[i][j] = multiply_add(value, values[j], sums[i][j]);
      }
    }
  }
  for (int j = 0; j < kVectors; ++j) {
    for (int i = 0; i < kRows; ++i) {
      float* target = c.sums + (i + j * c.sums_stride) * kLanes;
      store(target, load(target) + sums[i][j]);
    }
  }
}

template <int kVectors, int kRows>
void correlate_rows(const Correlation& c) {
  if constexpr (kRows > 1) {
    if (c.a_count < kRows) {
      correlate_rows<kVectors, kRows - 1>(c);
      return;
    }
  }
  correlate<kRows, kVectors>(c);
}

void correlate_any(const Correlation& c) {
  switch (c.b_count) {
    case 1:
      return correlate_rows<1, TENON_SIMD_CHANNELS>(c);
    case 2:
      return correlate_rows<2, TENON_SIMD_CHANNELS>(c);
    default:
      return correlate_rows<3, TENON_SIMD_CHANNELS>(c);
  }
}

/// Dot products of kDotRows rows of a with kLanes / kDotRows rows of b at once: as many vectors of
/// partial sums as a vector has lanes, so that turning them as a square leaves one vector to each
/// lane of which to add.
constexpr int kDotRows = kLanes >= 8 ? 4 : 2;
constexpr int kDotColumns = kLanes / kDotRows;

inline Vector dot_square(const float* const a[kDotRows], const float* const b[kDotColumns],
                         std::int64_t count) {
  Vector sums[kLanes] = {};
  for (std::int64_t k = 0; k < count; k += kLanes) {
    const std::int64_t left = count - k;
    Vector right[kDotColumns];
    for (int j = 0; j < kDotColumns; ++j) right[j] = load_most(b[j] + k, left);
    for (int i = 0; i < kDotRows; ++i) {
      const Vector value = load_most(a[i] + k, left);
      for (int j = 0; j < kDotColumns; ++j) {
        Vector& sum = sums[i * kDotColumns + j];
        sum = multiply_add(value, right[j], sum);
      }
    }
  }
  transpose_square(sums);
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) sums[i] += sums[i + step];
  }
  return sums[0];
}

void dot(const float* a, std::int64_t a_stride, std::int64_t rows, const float* b,
         std::int64_t b_stride, std::int64_t columns, std::int64_t count, float* sums,
         std::int64_t sums_stride) {
  for (std::int64_t j = 0; j < columns; j += kDotColumns) {
    for (std::int64_t i = 0; i < rows; i += kDotRows) {
      // What sticks out reads the last row again.
      const float* left[kDotRows];
      const float* right[kDotColumns];
      for (int r = 0; r < kDotRows; ++r) left[r] = a + least(i + r, rows - 1) * a_stride;
      for (int c = 0; c < kDotColumns; ++c) right[c] = b + least(j + c, columns - 1) * b_stride;
      float square[kLanes];
      store(square, dot_square(left, right, count));
      for (std::int64_t r = 0; r < least(kDotRows, rows - i); ++r) {
        for (std::int64_t c = 0; c < least(kDotColumns, columns - j); ++c) {
          sums[(i + r) * sums_stride + j + c] += square[r * kDotColumns + c];
        }
      }
    }
  }
}

// ---- functions of single values ----------------------------------------------------------------

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

/// e^min(x, most), most <= 90: with n = round(x / ln 2) and r = x - n·ln 2, 2^n times a polynomial
/// of r. 2^n as two factors, so that the result may be denormal, zero or infinite.
inline Vector exponential(Vector x, float most) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kLn2High = 0.693359375f;  // n·kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5·2^23: adding it leaves whole numbers
  x = minimum(maximum(x, splat(-110.0f)), splat(most));
  const Vector shifted = multiply_add(x, splat(kLog2E), splat(kRound));
  const Vector n = shifted - kRound;
  const Integers whole = reinterpret_cast<Integers>(shifted) - 0x4B400000;
  const Vector r = multiply_add(n, splat(-kLn2Low), multiply_add(n, splat(-kLn2High), x));
  Vector p = splat(1.9875691500e-4f);
  p = multiply_add(p, r, splat(1.3981999507e-3f));
  p = multiply_add(p, r, splat(8.3334519073e-3f));
  p = multiply_add(p, r, splat(4.1665795894e-2f));
  p = multiply_add(p, r, splat(1.6666665459e-1f));
  p = multiply_add(p, r, splat(5.0000001201e-1f));
  p = multiply_add(p, r * r, r) + 1.0f;
  const Integers half = whole >> 1;
  const Vector first = reinterpret_cast<Vector>((half + 127) << 23);
  const Vector second = reinterpret_cast<Vector>((whole - half + 127) << 23);
  return p * first * second;
}

/// mish(y) = y·gate and, where gate = n / (n + 2), e = exp(min(y, 20)) and n = e² + 2e, its
/// derivative gate + y·bend, bend = 4e(e + 1) / (n + 2)².
struct Mish {
  Vector e, gate, inverse;

  explicit Mish(Vector y) : e(exponential(y, 20.0f)) {
    const Vector n = e * (e + 2.0f);
    inverse = 1.0f / (n + 2.0f);
    gate = n * inverse;
  }
  /// Above 20 its second part is below the last digit; zero makes mish'(∞) the NaN that PyTorch has
  /// there.
  Vector slope(Vector y) const {
    const Vector bend = 4.0f * e * (e + 1.0f) * (inverse * inverse);
    return multiply_add(y, y >= 20.0f ? Vector{} : bend, gate);
  }
};

inline Vector chain_result(const Chain& chain, Vector y) {
  if (chain.mish) y *= Mish(y).gate;
  return minimum(maximum(y + chain.add, splat(chain.min)), splat(chain.max)) * chain.scale;
}

inline Vector chain_gradient(const Chain& chain, Vector y, Vector gradient) {
  Vector slope = splat(chain.scale);
  if (chain.mish) {
    const Mish mish(y);
    slope = mish.slope(y) * chain.scale;
    y *= mish.gate;
  }
  if (chain.clamps) {
    const Vector value = y + chain.add;
    gradient = value >= chain.first_inside ? gradient : Vector{};
    gradient = value <= chain.last_inside ? gradient : Vector{};
  }
  return gradient * slope;
}

/// Replaces every vector of `count` values by `change(i, vector)`, i being where it begins. The
/// last one, which may be a part, goes through the same code.
template <class Change>
inline void for_each_vector(float* values, std::int64_t count, const Change& change) {
  for (std::int64_t i = 0; i < count; i += kLanes) {
    store_most(values + i, change(i, load_most(values + i, count - i)), count - i);
  }
}

void exponential_of(float* values, std::int64_t count) {
  for_each_vector(values, count, [](std::int64_t, Vector x) { return exponential(x, 90.0f); });
}

void apply(const Chain& chain, float* values, std::int64_t count) {
  const Chain local = chain;  // a copy, which what is written cannot be
  for_each_vector(values, count, [&](std::int64_t, Vector y) { return chain_result(local, y); });
}

/// `values` may be read up to the end of a vector.
void gradient(const Chain& chain, const float* values, float* gradients, std::int64_t count) {
  const Chain local = chain;
  for_each_vector(gradients, count, [&](std::int64_t i, Vector g) {
    return chain_gradient(local, load(values + i), g);
  });
}

// ---- moving ------------------------------------------------------------------------------------

void interleave(const float* source, std::int64_t stride, std::int64_t parts, std::int64_t count,
                float* target) {
  if (parts > 2) {
    for (std::int64_t i = 0, at = 0; at < count; ++i) {
      for (std::int64_t p = 0; p < parts && at < count; ++p) {
        target[at++] = source[p * stride + i];
      }
    }
    return;
  }
  for (std::int64_t at = 0; at < count; at += kLanes * parts, source += kLanes) {
    const Vector a = load(source);
    if (parts == 1) {
      store_most(target + at, a, count - at);
      continue;
    }
    const Vector b = load(source + stride);
    store_most(target + at, mix_low(a, b), count - at);
    store_most(target + at + kLanes, mix_high(a, b), count - at - kLanes);
  }
}

void split(const float* source, std::int64_t parts, std::int64_t count, float* target,
           std::int64_t stride) {
  if (parts > 2) {
    for (std::int64_t i = 0, at = 0; at < count; ++i) {
      for (std::int64_t p = 0; p < parts && at < count; ++p) target[p * stride + i] = source[at++];
    }
    return;
  }
  for (std::int64_t at = 0; at < count; at += kLanes * parts, target += kLanes) {
    const std::int64_t left = count - at;
    const Vector a = load_most(source + at, left);
    if (parts == 1) {
      store_most(target, a, left);
      continue;
    }
    const Vector b = left > kLanes ? load_most(source + at + kLanes, left - kLanes) : Vector{};
    store_most(target, evens(a, b), (left + 1) / 2);
    store_most(target + stride, odds(a, b), left / 2);
  }
}

void join(const float* source, std::int64_t source_stride, std::int64_t runs, std::int64_t count,
          float* target) {
  for (std::int64_t run = 0; run < runs; ++run, source += source_stride, target += count) {
    for (std::int64_t i = 0; i < count; i += kLanes) store(target + i, load(source + i));
  }
}

void transpose(const float* source, std::int64_t source_stride, std::int64_t rows,
               std::int64_t columns, float* target, std::int64_t target_stride) {
  for (std::int64_t j = 0; j < columns; j += kLanes) {
    const std::int64_t width = least(kLanes, columns - j);
    for (std::int64_t i = 0; i < rows; i += kLanes) {
      const std::int64_t height = least(kLanes, rows - i);
      Vector square[kLanes];
      load_square(source + i * source_stride + j, source_stride, height, width, square);
      transpose_square(square);
      store_square(square, width, height, target + j * target_stride + i, target_stride);
    }
  }
}

/// Where columns first, first + 1, … of a LaneRow lie.
template <class Float>
class LaneColumns {
 public:
  LaneColumns(const LaneRow<Float>& row, std::int64_t first)
      : at_(row.data), part_(row.first + first), parts_(row.parts), part_stride_(row.part_stride) {
    // Divisions of small numbers are faster.
    const std::uint32_t column = static_cast<std::uint32_t>(part_);
    const std::uint32_t parts = static_cast<std::uint32_t>(parts_);
    at_ += column / parts * kLanes;
    part_ = column % parts;
  }
  Float* next() {
    Float* column = at_ + part_ * part_stride_;
    if (++part_ == parts_) {
      part_ = 0;
      at_ += kLanes;
    }
    return column;
  }

 private:
  Float* at_;
  std::int64_t part_;
  std::int64_t parts_, part_stride_;
};

/// Calls `move(first, width)` for squares of columns that cover 0 … count - 1. Where there are
/// enough, the last one begins early instead of being a part.
template <class Move>
inline void for_each_square(std::int64_t count, const Move& move) {
  std::int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) move(j, kLanes);
  if (j == count) return;
  if (count > kLanes) {
    move(count - kLanes, kLanes);
  } else {
    move(0, count);
  }
}

void pack_lanes(const float* source, std::int64_t image_stride, std::int64_t images,
                std::int64_t count, const LaneRow<float>& target) {
  for_each_square(count, [&](std::int64_t first, std::int64_t width) {
    Vector square[kLanes];
    load_square(source + first, image_stride, images, width, square);
    transpose_square(square);
    LaneColumns<float> columns(target, first);
    for (int c = 0; c < kLanes; ++c) {
      if (c < width) store(columns.next(), square[c]);
    }
  });
}

void unpack_lanes(const LaneRow<const float>& source, std::int64_t count, float* target,
                  std::int64_t image_stride, std::int64_t images) {
  for_each_square(count, [&](std::int64_t first, std::int64_t width) {
    LaneColumns<const float> columns(source, first);
    Vector square[kLanes];
    for (int c = 0; c < kLanes; ++c) square[c] = c < width ? load(columns.next()) : Vector{};
    transpose_square(square);
    store_square(square, images, width, target + first, image_stride);
  });
}

}  // namespace

const Kernels& table() {
  static constexpr Kernels kTable{TENON_SIMD_NAME,
                                  kLanes,
                                  TENON_SIMD_CHANNELS,
                                  kMostVectors,
                                  multiply_any,
                                  correlate_any,
                                  dot,
                                  exponential_of,
                                  apply,
                                  gradient,
                                  interleave,
                                  split,
                                  join,
                                  transpose,
                                  pack_lanes,
                                  unpack_lanes};
  return kTable;
}

}  // namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE
