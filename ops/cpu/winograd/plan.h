// Transposed convolutions whose phases have two taps along each axis (kernel = 2·stride, as in most
// decoders), by minimal filtering, F(2, 2): two neighbouring outputs of two taps cost three
// products instead of four, so that a square of 2 x 2 outputs costs 9 instead of 16.
//
// Along one axis, with d the three elements that two outputs read and g the two taps:
//   y0 = d0·g0 + d1·g1 = m0 + m1        m0 = (d0 - d1)·g0
//   y1 = d1·g0 + d2·g1 = m1 - m2        m1 = d1·(g0 + g1),  m2 = (d1 - d2)·g1
// All factors are 1 and -1: results differ from the plain sum's by a few roundings, and whole
// numbers stay exact. Both gradients are of the same form (backward.cpp).
#pragma once

#include <algorithm>
#include <cstdint>

#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/fused/phases.h"

namespace tenon::ops::cpu::winograd {

/// A signed sum of elements of a small array along one axis.
struct Terms {
  int count;
  int places[2];
  float signs[2];
};

/// Factor number `a` of the data: of d0 … d3 (0, 1, 2), of which the windows that begin one later
/// use the last three (2, 3, 4); a = 2 serves both.
constexpr Terms data_terms(int a) {
  if (a % 2 == 1) return {1, {(a + 1) / 2, 0}, {1, 0}};
  return {2, {a / 2, a / 2 + 1}, {1, -1}};
}
/// Factor number `e` of the taps (g0, g1), and that of a gradient of (y0, y1).
constexpr Terms filter_terms(int e) {
  if (e == 1) return {2, {0, 1}, {1, 1}};
  return {1, {e / 2, 0}, {1, 0}};
}
/// Output number `r` of the products (m0, m1, m2).
constexpr Terms output_terms(int r) {
  if (r == 0) return {2, {0, 1}, {1, 1}};
  return {2, {1, 2}, {1, -1}};
}

/// An element itself.
inline constexpr Terms kOne{1, {0, 0}, {1, 0}};
/// Values of `a` for `data_terms`.
inline constexpr int kDataFactors = 5;

/// Sets what a signed sum adds up, `row_of(place, place)` being where an element's row lies.
template <class RowOf>
void set_terms(simd::SignedRows& rows, const Terms& vertical, const Terms& horizontal,
               const RowOf& row_of) {
  rows.count = 0;
  for (int i = 0; i < vertical.count; ++i) {
    for (int j = 0; j < horizontal.count; ++j) {
      rows.rows[rows.count] = row_of(vertical.places[i], horizontal.places[j]);
      rows.signs[rows.count++] = vertical.signs[i] * horizontal.signs[j];
    }
  }
}

/// Combines rows of `floats` floats, `row_of(place)` being where one begins; where there is but
/// one, it is that row, otherwise the sum in `target`. What follows along the other axis then reads
/// one row instead of two.
template <class RowOf>
const float* combine_rows(const simd::Kernels& kernels, const Terms& terms, std::int64_t floats,
                          const RowOf& row_of, float* target) {
  if (terms.count == 1) return row_of(terms.places[0]);
  simd::SignedRows rows{.width = floats, .target = target, .target_vector = kernels.lanes};
  set_terms(rows, terms, kOne, [&](int i, int) { return row_of(i); });
  kernels.add_rows(rows);
  return target;
}

/// One axis. Output phase + stride·q reads x at q + first + later(phase) and at the next place.
struct Axis {
  explicit Axis(const PhaseAxis& axis) : phase_axis(axis), first(window(0)) {
    tiles = (axis.output_count(0) + 1) / 2;
    input_tiles = (axis.input + 1) / 2;
    low = std::min<std::int64_t>(0, -first - 2);
    high = std::max(2 * tiles, 2 * input_tiles - first);
  }

  std::int64_t window(std::int64_t phase) const {
    return phase_axis.tap_shift(phase, phase_axis.first_tap(phase)) - 1;
  }
  int later(std::int64_t phase) const { return static_cast<int>(window(phase) - first); }
  /// The kernel's tap that is g`i` of `phase`.
  std::int64_t tap(std::int64_t phase, int i) const {
    return phase_axis.first_tap(phase) + (1 - i) * phase_axis.stride;
  }
  /// Factors of the data that phases multiply.
  int data_factors() const { return later(phase_axis.stride - 1) == 1 ? kDataFactors : 3; }

  PhaseAxis phase_axis;
  std::int64_t first;
  std::int64_t tiles;        ///< pairs of q
  std::int64_t input_tiles;  ///< pairs of positions of x
  std::int64_t low, high;    ///< q that tiles of x or of q reach: [low, high)
};

/// The sizes of one transposed convolution.
struct Plan {
  Plan(const Shape& x, const Shape& weight, const Shape& y, const ConvTranspose2dOptions& options)
      : batch(x[0]),
        in_channels(x[1]),
        out_channels(weight[1]),
        stride(options.stride),
        rows({x[2], y[2], weight[2], stride.h, options.padding.h, 1}),
        columns({x[3], y[3], weight[3], stride.w, options.padding.w, 1}) {}

  std::int64_t phases() const { return stride.h * stride.w; }
  std::int64_t taps() const { return 4 * phases(); }
  std::int64_t output_rows() const { return rows.phase_axis.output; }
  std::int64_t output_columns() const { return columns.phase_axis.output; }

  std::int64_t batch, in_channels, out_channels;
  Pair stride;
  Axis rows, columns;
};

/// Whether a block of x, weight and result y, float32, takes this way, forward and backward: the
/// backward must find every y where the forward found it.
bool suits(const Shape& x, const Shape& weight, const Shape& y,
           const ConvTranspose2dOptions& options);

}  // namespace tenon::ops::cpu::winograd
