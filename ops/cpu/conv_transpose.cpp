#include "tenon/ops/cpu/conv.h"
#include "tenon/ops/cpu/conv_transpose_tiles.h"
#include "tenon/ops/cpu/transposed/forward.h"

namespace tenon::ops::cpu {
namespace {

/// Elements in the columns and outputs of a tile: what half of a usual second-level cache holds.
constexpr std::int64_t kTileElements = 1 << 17;

/// Bounds of the number of positions in a tile, however few or many channels there are.
constexpr std::int64_t kMinPositions = 32;
constexpr std::int64_t kMaxPositions = 4096;

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

TransposedPlan::TransposedPlan(const Shape& x, const Shape& weight, const Shape& y,
                               const ConvTranspose2dOptions& options)
    : batch(x[0]),
      groups(options.groups),
      in_channels(x[1] / options.groups),
      out_channels(weight[1]),
      kernel(weight[2], weight[3]),
      stride(options.stride),
      rows{x[2], y[2], weight[2], options.stride.h, options.padding.h, options.dilation.h},
      columns{x[3], y[3], weight[3], options.stride.w, options.padding.w, options.dilation.w},
      row_step(rows.tap_step()),
      column_step(columns.tap_step()) {
  std::int64_t weights = 0;
  for (std::int64_t row = 0; row < std::min(stride.h, rows.output); ++row) {
    for (std::int64_t column = 0; column < std::min(stride.w, columns.output); ++column) {
      Phase phase{.row = row,
                  .column = column,
                  .row_tap = rows.first_tap(row),
                  .row_taps = rows.tap_count(row),
                  .column_tap = columns.first_tap(column),
                  .column_taps = columns.tap_count(column),
                  .rows = rows.output_count(row),
                  .columns = columns.output_count(column),
                  .depth = 0,
                  .weights = weights};
      phase.depth = phase.row_taps * phase.column_taps * in_channels;
      weights += phase.depth * out_channels;
      max_depth = std::max(max_depth, phase.depth);
      phases.push_back(phase);
    }
  }
  const std::int64_t positions =
      std::clamp(kTileElements / (max_depth + out_channels), kMinPositions, kMaxPositions);
  const std::int64_t all_rows = rows.output_count(0);
  const std::int64_t all_columns = columns.output_count(0);
  column_tiles = ceil_divide(all_columns, positions);
  tile_columns = ceil_divide(all_columns, column_tiles);
  row_tiles = ceil_divide(all_rows, std::max<std::int64_t>(1, positions / tile_columns));
  tile_rows = ceil_divide(all_rows, row_tiles);
}

Tile TransposedPlan::tile(std::int64_t index, const Phase& phase) const {
  const std::int64_t row = index / column_tiles * tile_rows;
  const std::int64_t column = index % column_tiles * tile_columns;
  return {row, std::clamp<std::int64_t>(phase.rows - row, 0, tile_rows), column,
          std::clamp<std::int64_t>(phase.columns - column, 0, tile_columns)};
}

void conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const ConvTranspose2dOptions& options, const Tensor& y) {
  if (y.numel() == 0) return;
  if (y.dtype() == DType::Float32) {
    transposed_forward(x, weight, bias, options, nullptr, y);
    return;
  }
  const TransposedPlan plan(x.shape(), weight.shape(), y.shape(), options);
  visit_floating(x.dtype(), "conv_transpose2d", [&]<class T>() {
    run_tiles<T>(
        plan, x.data<T>(), weight.data<T>(), bias.defined() ? bias.data<T>() : nullptr,
        [](const compute_type<T>*, std::int64_t) {}, y.data<T>());
  });
}

}  // namespace tenon::ops::cpu
