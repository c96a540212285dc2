// The source of the functions in kernels.h. A file that includes it defines
//   TENON_SIMD_NAMESPACE  a namespace of its own, which is the instruction set's name
//   TENON_SIMD_BYTES      the size of a vector
//   TENON_SIMD_CHANNELS   the most channels of a product
// and is compiled for that instruction set. So that the linker never takes another file's copy of a
// function compiled for a newer processor, nothing of the standard library but types is used here,
// and all that is defined is inside the namespace and has internal linkage.

#include <cstddef>
#include <cstdint>

#include "tenon/ops/cpu/simd/filter_source.h"
#include "tenon/ops/cpu/simd/function_source.h"
#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/cpu/simd/matrix_source.h"
#include "tenon/ops/cpu/simd/vector_source.h"

namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE {
namespace {

// ---- sums of products --------------------------------------------------------------------------

/// A lone channel has too few sums to keep the processor busy: every other term goes to a second
/// set of them.
template <int kVectors>
void multiply_one(const Product& product) {
  Vector sums[2][kVectors] = {};
  std::int64_t k = 0;
  const auto add_term = [&](int set) {
    const Vector weight = splat(product.weights[k]);
    for (int v = 0; v < kVectors; ++v) {
      const Vector values = load(product.vectors[v] + product.offsets[k]);
      sums[set][v] = multiply_add(weight, values, sums[set][v]);
    }
    ++k;
  };
  while (k + 1 < product.depth) {
    add_term(0);
    add_term(1);
  }
  if (k < product.depth) add_term(0);
  for (int v = 0; v < kVectors; ++v) {
    float* target = product.sums + v * kLanes;
    store(target, sums[0][v] + sums[1][v] +
                      (product.start == nullptr ? load(target) : splat(*product.start)));
  }
}

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
    multiply<kChannels, kVectors>(product);
  } else {
    multiply_one<kVectors>(product);
  }
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

/// `x`, loaded once: a compiler that sees three uses of a load makes it a memory operand of all
/// three, and loads then take longer than the multiplications.
inline Vector loaded_once(Vector x) {
#ifdef __x86_64__
#if TENON_SIMD_BYTES == 64
  asm("" : "+v"(x));
#else
  asm("" : "+x"(x));
#endif
#endif
  return x;
}

template <int kRows, int kVectors, bool kAdds>
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
        const Vector value = loaded_once(load(a + i * c.a_stride + k));
        for (int j = 0; j < kVectors; ++j) sums[i][j] = multiply_add(value, values[j], sums[i][j]);
      }
    }
  }
  for (int j = 0; j < kVectors; ++j) {
    for (int i = 0; i < kRows; ++i) {
      float* target = c.sums + (i + j * c.sums_stride) * kLanes;
      store(target, kAdds ? load(target) + sums[i][j] : sums[i][j]);
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
  if (c.adds) {
    correlate<kRows, kVectors, true>(c);
  } else {
    correlate<kRows, kVectors, false>(c);
  }
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
      load_turned_part(source + i * source_stride + j, source_stride, height, width, square);
      store_square(square, width, height, target + j * target_stride + i, target_stride);
    }
  }
}

/// Where column j of a LaneRow lies.
template <class Float>
inline Float* column_of(const LaneRow<Float>& row, std::int64_t j) {
  // Divisions of small numbers are faster.
  const std::uint32_t place = static_cast<std::uint32_t>(row.first + j);
  const std::uint32_t parts = static_cast<std::uint32_t>(row.parts);
  return row.data + place % parts * row.part_stride + place / parts * kLanes;
}

/// Calls `visit(c, column first + c)` for c < width <= kLanes. kParts is row.parts, or 0 for any.
template <int kParts, class Float, class Visit>
inline void for_each_column(const LaneRow<Float>& row, std::int64_t first, std::int64_t width,
                            const Visit& visit) {
  if constexpr (kParts == 0) {
    for (int c = 0; c < width; ++c) visit(c, column_of(row, first + c));
  } else {
    Float* columns[kParts];
    for (int p = 0; p < kParts; ++p) columns[p] = column_of(row, first + p);
    for (int c = 0; c < kLanes; ++c) {
      if (c < width) visit(c, columns[c % kParts] + c / kParts * kLanes);
    }
  }
}

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

template <int kParts>
void pack_parts(const float* source, std::int64_t image_stride, std::int64_t images,
                std::int64_t count, const LaneRow<float>& target) {
  const auto move = [&](std::int64_t first, std::int64_t width) __attribute__((always_inline)) {
    Vector square[kLanes];
    load_turned_part(source + first, image_stride, images, width, square);
    for_each_column<kParts>(target, first, width,
                            [&](int c, float* column) { store(column, square[c]); });
  };
  for_each_square(count, move);
}

void pack_lanes(const float* source, std::int64_t image_stride, std::int64_t images,
                std::int64_t count, const LaneRow<float>& target) {
  if (target.parts == 1) {
    pack_parts<1>(source, image_stride, images, count, target);
  } else if (target.parts == 2) {
    pack_parts<2>(source, image_stride, images, count, target);
  } else {
    pack_parts<0>(source, image_stride, images, count, target);
  }
}

template <int kParts>
void unpack_parts(const LaneRow<const float>& source, std::int64_t count, float* target,
                  std::int64_t image_stride, std::int64_t images) {
  const auto move = [&](std::int64_t first, std::int64_t width) __attribute__((always_inline)) {
    Vector square[kLanes] = {};
    if (width == kLanes) {
      const float* columns[kLanes];
      for_each_column<kParts>(source, first, kLanes,
                              [&](int c, const float* column) { columns[c] = column; });
      load_turned([&](int c) { return columns[c]; }, square);
    } else {
      for_each_column<kParts>(source, first, width,
                              [&](int c, const float* column) { square[c] = load(column); });
      transpose_square(square);
    }
    store_square(square, images, width, target + first, image_stride);
  };
  for_each_square(count, move);
}

void unpack_lanes(const LaneRow<const float>& source, std::int64_t count, float* target,
                  std::int64_t image_stride, std::int64_t images) {
  if (source.parts == 1) {
    unpack_parts<1>(source, count, target, image_stride, images);
  } else if (source.parts == 2) {
    unpack_parts<2>(source, count, target, image_stride, images);
  } else {
    unpack_parts<0>(source, count, target, image_stride, images);
  }
}

}  // namespace

const Kernels& table() {
  static constexpr Kernels kTable{TENON_SIMD_NAME,
                                  kLanes,
                                  TENON_SIMD_CHANNELS,
                                  kMostVectors,
                                  multiply_any,
                                  multiply_matrix,
                                  add_rows,
                                  data_factors,
                                  output_factors,
                                  outputs,
                                  add_taps,
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
