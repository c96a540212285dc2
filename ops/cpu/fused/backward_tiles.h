// How the backward of a transposed convolution with an epilogue is cut into tiles.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tenon/ops/cpu/conv_transpose_tiles.h"

namespace tenon::ops::cpu {

/// One axis of a tile of x: its positions, the outputs they reach, and the outputs that count as
/// this tile's, so that each output of the axis is one tile's own.
struct BackwardSpan {
  std::int64_t begin, end;         // positions of x
  std::int64_t low, high;          // outputs reached or owned
  std::int64_t own_low, own_high;  // outputs owned

  BackwardSpan(const PhaseAxis& axis, std::int64_t first, std::int64_t size)
      : begin(first),
        end(std::min(first + size, axis.input)),
        own_low(first == 0 ? 0 : inside(axis, begin * axis.stride - axis.padding)),
        own_high(end == axis.input ? axis.output : inside(axis, end * axis.stride - axis.padding)) {
    const std::int64_t last =
        (end - 1) * axis.stride - axis.padding + (axis.kernel - 1) * axis.dilation;
    low = std::min(own_low, inside(axis, begin * axis.stride - axis.padding));
    high = std::max(own_high, inside(axis, last + 1));
  }

  static std::int64_t inside(const PhaseAxis& axis, std::int64_t output) {
    return std::clamp<std::int64_t>(output, 0, axis.output);
  }
  std::int64_t size() const { return end - begin; }
  std::int64_t outputs() const { return high - low; }

  /// The positions q of `phase` whose outputs lie in [low, high): the first, and how many.
  std::int64_t first_position(std::int64_t phase, std::int64_t stride) const {
    return low > phase ? (low - phase + stride - 1) / stride : 0;
  }
  std::int64_t position_count(std::int64_t phase, std::int64_t stride) const {
    const std::int64_t end_position = high > phase ? (high - phase + stride - 1) / stride : 0;
    return std::max<std::int64_t>(0, end_position - first_position(phase, stride));
  }
};

/// How a row of a tile's outputs lies in memory: first the columns 0, stride, 2·stride …, then 1,
/// 1 + stride … and so on.
struct SplitRow {
  std::int64_t outputs;
  std::int64_t stride;

  std::int64_t begin(std::int64_t phase) const {
    return phase * (outputs / stride) + std::min(phase, outputs % stride);
  }
  std::int64_t count(std::int64_t phase) const { return (outputs - phase + stride - 1) / stride; }
  /// The phase of a column, which may lie outside of the row, and its place among those of the
  /// phase.
  std::int64_t phase(std::int64_t column) const { return (column % stride + stride) % stride; }
  std::int64_t place(std::int64_t column) const { return (column - phase(column)) / stride; }
};

/// How x is cut into tiles, and how large the buffers of a tile must be.
struct BackwardTiles {
  std::int64_t rows, columns;            // of x in a tile
  std::int64_t row_tiles, column_tiles;  // of an image
  std::int64_t images = 1;               // in a tile; several only of whole images
  std::int64_t depth;                    // output channels times taps
  std::int64_t max_outputs = 0;          // of a tile's rectangle
  std::int64_t max_phase_outputs = 0;    // of one phase

  explicit BackwardTiles(const TransposedPlan& plan)
      : depth(plan.out_channels * plan.kernel.h * plan.kernel.w) {
    // Elements for each position of x: the larger columns, y and dy with its copy, x.
    const std::int64_t outputs =
        plan.out_channels * std::max<std::int64_t>(plan.stride.h * plan.stride.w + 2,
                                                   2 * plan.stride.h * plan.stride.w);
    const std::int64_t each = std::max(depth, plan.max_depth) + outputs + plan.in_channels;
    const std::int64_t positions =
        std::clamp<std::int64_t>(kTileElements / each, kMinPositions, kMaxPositions);
    column_tiles = ceil_divide(plan.columns.input, positions);
    columns = ceil_divide(plan.columns.input, column_tiles);
    row_tiles = ceil_divide(plan.rows.input, std::max<std::int64_t>(1, positions / columns));
    rows = ceil_divide(plan.rows.input, row_tiles);
    row_tiles = ceil_divide(plan.rows.input, rows);
    column_tiles = ceil_divide(plan.columns.input, columns);
    if (whole()) {
      const std::int64_t image = std::max<std::int64_t>(1, rows * columns);
      images = std::min(ceil_divide(kJoinedPositions, image), kJoinedElements / (each * image));
      images = std::clamp<std::int64_t>(images, 1, std::max<std::int64_t>(1, plan.batch));
    }
    for (std::int64_t index = 0; index < count(); ++index) {
      const BackwardSpan y = row_span(plan, index);
      const BackwardSpan x = column_span(plan, index);
      max_outputs = std::max(max_outputs, y.outputs() * x.outputs());
      max_phase_outputs = std::max(max_phase_outputs, ceil_divide(y.outputs(), plan.stride.h) *
                                                          ceil_divide(x.outputs(), plan.stride.w));
    }
  }

  /// True when a tile is whole images.
  bool whole() const { return count() == 1; }
  /// Of an image.
  std::int64_t count() const { return row_tiles * column_tiles; }
  /// Of a batch.
  std::int64_t items(std::int64_t batch) const { return ceil_divide(batch, images) * count(); }
  /// Positions of x in a tile.
  std::int64_t positions() const { return images * rows * columns; }
  BackwardSpan row_span(const TransposedPlan& plan, std::int64_t index) const {
    return {plan.rows, index / column_tiles * rows, rows};
  }
  BackwardSpan column_span(const TransposedPlan& plan, std::int64_t index) const {
    return {plan.columns, index % column_tiles * columns, columns};
  }

 private:
  static constexpr std::int64_t kTileElements = 1 << 18;
  static constexpr std::int64_t kMinPositions = 16;
  static constexpr std::int64_t kMaxPositions = 4096;
  /// Small images are joined to about so many positions, which make a product efficient, if they
  /// stay in half of a usual second-level cache.
  static constexpr std::int64_t kJoinedPositions = 256;
  static constexpr std::int64_t kJoinedElements = 1 << 17;

  static std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
};

}  // namespace tenon::ops::cpu
