// How the fused kernel cuts a transposed convolution into tiles: which outputs a tile holds, which
// part of x it reads, where in that part each tap of the kernel looks, and in which order the
// weights are packed. Plain numbers: made on the host once a call and read by the kernel as a
// parameter, or made by the compiler where a kernel is compiled for one geometry.
//
// An output o of an axis is phase + stride·q (ops/fused/phases.h). A tile is a block of
// images x rows x columns of q with all column phases and one *set* of row phases: one position q
// of it stands for row_phases·stride.w neighbouring outputs, all of which one window of x feeds.
#pragma once

#include <cstdint>

#include "tenon/ops/conv.h"
#include "tenon/ops/fused/divisor.h"
#include "tenon/ops/fused/phases.h"

namespace tenon::ops {

/// The largest kernel (7 x 7), and what follows from strides up to 4, that the tables hold.
inline constexpr int kMostTaps = 49;
inline constexpr int kMostStride = 4;

// ---- taps ------------------------------------------------------------------------------------

/// One tap of the kernel: the phase whose sum it adds to, and the x it reads, relative to q.
struct Tap {
  int phase = 0;  ///< row phase within the set · column phases + column phase
  int row_shift = 0;
  int column_shift = 0;
  int kernel = 0;  ///< kernel row · kernel columns + kernel column
  int source = 0;  ///< of the data gradient: the phase of dy that it reads
};

/// The taps of a set of row phases, sorted by phase: the order in which their weights are packed.
struct TapList {
  Tap taps[kMostTaps];
  int count = 0;
  int first_row_shift = 0;
  int last_row_shift = 0;
  int first_column_shift = 0;
  int last_column_shift = 0;
};

/// The least and greatest x, relative to q, that phases `begin` to `end` read; 0 and 0 for none.
struct ShiftRange {
  int first = 0;
  int last = 0;
};
constexpr ShiftRange shifts_of(const PhaseAxis& axis, std::int64_t begin, std::int64_t end) {
  ShiftRange range;
  bool any = false;
  for (std::int64_t phase = begin; phase < end; ++phase) {
    for (std::int64_t k = axis.first_tap(phase); k < axis.kernel; k += axis.tap_step()) {
      const int shift = static_cast<int>(axis.tap_shift(phase, k));
      if (!any || shift < range.first) range.first = shift;
      if (!any || shift > range.last) range.last = shift;
      any = true;
    }
  }
  return range;
}

/// Of row phases set·row_phases and following.
constexpr TapList list_taps(const PhaseAxis& rows, const PhaseAxis& columns, int row_phases,
                            int set) {
  TapList list;
  const int column_phases = static_cast<int>(columns.stride);
  const ShiftRange row_range = shifts_of(rows, set * row_phases, (set + 1) * row_phases);
  const ShiftRange column_range = shifts_of(columns, 0, column_phases);
  list.first_row_shift = row_range.first;
  list.last_row_shift = row_range.last;
  list.first_column_shift = column_range.first;
  list.last_column_shift = column_range.last;
  for (int phase = 0; phase < row_phases * column_phases; ++phase) {
    const int row = set * row_phases + phase / column_phases;
    const int column = phase % column_phases;
    for (std::int64_t k = rows.first_tap(row); k < rows.kernel; k += rows.tap_step()) {
      for (std::int64_t l = columns.first_tap(column); l < columns.kernel;
           l += columns.tap_step()) {
        list.taps[list.count++] = {phase, static_cast<int>(rows.tap_shift(row, k)),
                                   static_cast<int>(columns.tap_shift(column, l)),
                                   static_cast<int>(k * columns.kernel + l)};
      }
    }
  }
  return list;
}

/// The taps of the data gradient: every phase of dy is a window of its own ("source"), and all of
/// them add to one sum, that of x at i. What a tap reads at q + shift forwards it reads at
/// i - shift here.
constexpr TapList list_gradient_taps(const PhaseAxis& rows, const PhaseAxis& columns) {
  TapList list;
  const ShiftRange row_range = shifts_of(rows, 0, rows.stride);
  const ShiftRange column_range = shifts_of(columns, 0, columns.stride);
  list.first_row_shift = -row_range.last;
  list.last_row_shift = -row_range.first;
  list.first_column_shift = -column_range.last;
  list.last_column_shift = -column_range.first;
  for (std::int64_t row = 0; row < rows.stride; ++row) {
    for (std::int64_t column = 0; column < columns.stride; ++column) {
      for (std::int64_t k = rows.first_tap(row); k < rows.kernel; k += rows.tap_step()) {
        for (std::int64_t l = columns.first_tap(column); l < columns.kernel;
             l += columns.tap_step()) {
          list.taps[list.count++] = {0, -static_cast<int>(rows.tap_shift(row, k)),
                                     -static_cast<int>(columns.tap_shift(column, l)),
                                     static_cast<int>(k * columns.kernel + l),
                                     static_cast<int>(row * columns.stride + column)};
        }
      }
    }
  }
  return list;
}

/// The columns of x that a tile's window holds, relative to the tile's first q: whole vectors.
struct WindowColumns {
  int first;
  int count;
};
constexpr WindowColumns window_columns(ShiftRange shifts, int columns, int vector) {
  const int first = shifts.first - ((shifts.first % vector) + vector) % vector;
  const int needed = columns + shifts.last - first;
  return {first, (needed + vector - 1) / vector * vector};
}
constexpr WindowColumns window_columns(const TapList& list, int columns, int vector) {
  return window_columns(ShiftRange{list.first_column_shift, list.last_column_shift}, columns,
                        vector);
}

// ---- tiles -----------------------------------------------------------------------------------

/// A transposed convolution's sizes: x [images, groups·in_channels, ...] to
/// y [images, groups·out_channels, ...].
struct TransposedShape {
  int images;
  int groups;
  int in_channels;   ///< of one group
  int out_channels;  ///< of one group
  PhaseAxis rows;
  PhaseAxis columns;

  /// Of x [N, Cin, H, W], weight [Cin, Cout/groups, kH, kW] and y [N, Cout, Hout, Wout].
  static TransposedShape of(const Shape& x, const Shape& weight, const Shape& y,
                            const ConvTranspose2dOptions& options);
};

/// What a kernel is compiled or launched for.
struct TileShape {
  int images;          ///< of a tile
  int rows;            ///< of positions q
  int columns;         ///< likewise
  int row_phases;      ///< in one set
  int out_channels;    ///< of a tile
  int in_channels;     ///< of one stage of the pipeline
  int vector;          ///< columns of x that are read at once; divides `columns`
  bool flat = false;   ///< a run of `columns` positions; images and rows are 1
  bool dense = false;  ///< windows are copied as they are: chunk follows chunk without a gap

  int positions() const { return images * rows * columns; }
};

/// The taps of all sets, sorted by set and phase, as kernels for any geometry look them up.
struct TapTable {
  int first[kMostStride * kMostStride + 1];  ///< tap of phase `set·phases + phase`
  int window[kMostTaps];                     ///< where it reads: a position of the image's windows
  int kernel[kMostTaps];                     ///< kernel row · kernel columns + kernel column
};

/// What the kernel divides the numbers of tiles and positions by.
struct TilingDivisors {
  Divisor units;
  Divisor sets;
  Divisor channel_tiles;
  Divisor row_tiles;
  Divisor column_tiles;
  Divisor tile_rows;
  Divisor tile_columns;
  Divisor line_rows;
  Divisor line_columns;
};

/// Everything that says which tile does what.
struct Tiling {
  TransposedShape shape;
  TileShape tile;
  int sets;           ///< of row phases
  int phases;         ///< of one set: row_phases · stride.w
  int channel_tiles;  ///< of one group's output channels
  int row_tiles;      ///< tiles an image has along rows of q
  int column_tiles;   ///< with flat tiles all of a unit
  int image_tiles;
  bool ragged;      ///< not all tiles lie inside of y as a whole
  int stages;       ///< of in_channels each that a tile sums over
  int sources;      ///< windows an image has: 1, or the phases of dy of a data gradient
  int window_rows;  ///< of x, for one image of a tile
  int window_columns;
  int first_row[kMostStride];  ///< of the window of a set, relative to the tile's first q
  int first_column;
  int line_rows;     ///< of an image; with flat tiles
  int line_columns;  ///< a multiple of the vector
  TapTable taps;
  TilingDivisors by;

  /// Tiles with the same weights: group, tile of output channels, set.
  TENON_HOST_DEVICE int units() const { return shape.groups * channel_tiles * sets; }
  TENON_HOST_DEVICE int tiles() const { return image_tiles * row_tiles * column_tiles * units(); }
  TENON_HOST_DEVICE int window_positions() const {
    return tile.images * sources * window_rows * window_columns;
  }
  /// Rows of 16 bytes from one chunk of channels to the next, in shared memory: such that what a
  /// warp writes at once, four chunks of two vectors, falls on different banks.
  TENON_HOST_DEVICE int chunk_rows() const {
    return tile.dense ? window_positions() : (window_positions() + 6) / 8 * 8 + 1;
  }
  /// The first tap of a set, and how many it has.
  TENON_HOST_DEVICE int first_tap(int set) const { return taps.first[set * phases]; }
  TENON_HOST_DEVICE int taps_of_set(int set) const { return first_tap(set + 1) - first_tap(set); }
  TENON_HOST_DEVICE int most_taps() const {
    int most = 0;
    for (int set = 0; set < sets; ++set) {
      if (taps_of_set(set) > most) most = taps_of_set(set);
    }
    return most;
  }
};

/// Whether the tables and the kernel's 32-bit offsets can hold the convolution: kernels to 7 x 7,
/// strides to 4, dilations to 2^10, planes of x and y to 2^23 elements, no empty tensor.
bool tiling_fits(const TransposedShape& shape);

/// Positions of a line of flat tiles, up to the last that is wanted.
std::int64_t line_positions(const Tiling& tiling);

/// Cuts `shape`, which fits, into tiles of `tile`; `tile.row_phases` divides the stride, and is the
/// stride for flat tiles, whose windows must be as small as those of kernels without dilation.
Tiling make_tiling(const TransposedShape& shape, const TileShape& tile);

/// Cuts the data gradient of `shape`, which fits, into tiles: a correlation of stride 1 of the
/// phases of dy with x's positions as outputs, whose `shape` the result therefore has: its input
/// channels are those of y, its output channels those of x. `tile.row_phases` is 1.
Tiling make_gradient_tiling(const TransposedShape& shape, const TileShape& tile);

}  // namespace tenon::ops
