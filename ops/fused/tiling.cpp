#include "tenon/ops/fused/tiling.h"

#include <algorithm>
#include <limits>
#include <span>

#include "tenon/core/shape.h"

namespace tenon::ops {
namespace {

int int_of(std::int64_t value) { return static_cast<int>(value); }

/// The number, or the largest int: a count that no int holds must not be taken for a small one.
int saturated(std::int64_t value) {
  return int_of(std::min<std::int64_t>(value, std::numeric_limits<int>::max()));
}

int tiles_for(std::int64_t count, int size) { return int_of((count + size - 1) / size); }

/// Appends a set's taps.
void append_taps(Tiling& tiling, int set, const TapList& list) {
  TapTable& table = tiling.taps;
  const int window = tiling.window_rows * tiling.window_columns;
  const int pitch = tiling.tile.flat ? tiling.line_columns : tiling.window_columns;
  const int column =
      tiling.tile.flat ? tiling.first_column - list.first_row_shift * pitch : tiling.first_column;
  int count = tiling.first_tap(set);
  for (int phase = 0, tap = 0; phase < tiling.phases; ++phase) {
    table.first[set * tiling.phases + phase] = count;
    for (; tap < list.count && list.taps[tap].phase == phase; ++tap, ++count) {
      const Tap& t = list.taps[tap];
      table.window[count] = t.source * window + (t.row_shift - list.first_row_shift) * pitch +
                            t.column_shift - column;
      table.kernel[count] = t.kernel;
    }
  }
  table.first[(set + 1) * tiling.phases] = count;
}

/// Places of a row of x and of q in a line, such that a tap never looks from one row of q into
/// another row of x than its own.
int line_length(const PhaseAxis& axis, ShiftRange shifts) {
  const int input = int_of(axis.input);
  const int count = int_of(axis.output_count(0));
  return std::max({input, count, count + shifts.last, input - shifts.first});
}

/// Finishes what is different for flat tiles, but for their number.
void lay_in_line(Tiling& t, const TapList& list) {
  const int vector = t.tile.vector;
  const ShiftRange rows{list.first_row_shift, list.last_row_shift};
  const ShiftRange columns{list.first_column_shift, list.last_column_shift};
  t.line_rows = line_length(t.shape.rows, rows);
  t.line_columns = tiles_for(line_length(t.shape.columns, columns), vector) * vector;
  const WindowColumns window =
      window_columns(ShiftRange{rows.first * t.line_columns + columns.first,
                                rows.last * t.line_columns + columns.last},
                     t.tile.columns, vector);
  t.first_row[0] = 0;
  t.first_column = window.first;
  t.window_rows = 1;
  t.window_columns = window.count;
  t.row_tiles = 1;
  t.image_tiles = 1;
}

bool is_ragged(const Tiling& t) {
  const TransposedShape& shape = t.shape;
  return t.tile.flat || shape.images % t.tile.images != 0 ||
         shape.rows.output % (t.tile.rows * shape.rows.stride) != 0 ||
         shape.columns.output % (t.tile.columns * shape.columns.stride) != 0 ||
         shape.out_channels % t.tile.out_channels != 0;
}

TilingDivisors divisors_of(const Tiling& t) {
  return {.units = Divisor(t.units()),
          .sets = Divisor(t.sets),
          .channel_tiles = Divisor(t.channel_tiles),
          .row_tiles = Divisor(t.row_tiles),
          .column_tiles = Divisor(t.column_tiles),
          .tile_rows = Divisor(t.tile.rows),
          .tile_columns = Divisor(t.tile.columns),
          .line_rows = Divisor(std::max(1, t.line_rows)),
          .line_columns = Divisor(std::max(1, t.line_columns))};
}

/// The tiles of `shape`, whose sets of row phases have these taps.
Tiling cut(const TransposedShape& shape, const TileShape& tile, std::span<const TapList> lists,
           int sources) {
  Tiling tiling{};
  tiling.shape = shape;
  tiling.tile = tile;
  tiling.sets = int_of(std::ssize(lists));
  tiling.phases = tile.row_phases * int_of(shape.columns.stride);
  tiling.channel_tiles = tiles_for(shape.out_channels, tile.out_channels);
  // Phase 0 has the most outputs.
  tiling.row_tiles = tiles_for(shape.rows.output_count(0), tile.rows);
  tiling.column_tiles = tiles_for(shape.columns.output_count(0), tile.columns);
  tiling.image_tiles = tiles_for(shape.images, tile.images);
  tiling.stages = tiles_for(shape.in_channels, tile.in_channels);
  int row_span = 0;
  for (int set = 0; set < tiling.sets; ++set) {
    const TapList& list = lists[static_cast<std::size_t>(set)];
    tiling.first_row[set] = list.first_row_shift;
    row_span = std::max(row_span, list.last_row_shift - list.first_row_shift);
  }
  const WindowColumns columns = window_columns(lists[0], tile.columns, tile.vector);
  tiling.first_column = columns.first;
  tiling.sources = sources;
  tiling.window_rows = tile.rows + row_span;
  tiling.window_columns = columns.count;
  if (tile.flat) {
    lay_in_line(tiling, lists[0]);
    tiling.column_tiles = saturated((line_positions(tiling) + tile.columns - 1) / tile.columns);
  }
  for (int set = 0; set < tiling.sets; ++set) {
    append_taps(tiling, set, lists[static_cast<std::size_t>(set)]);
  }
  tiling.ragged = is_ragged(tiling);
  tiling.by = divisors_of(tiling);
  return tiling;
}

}  // namespace

TransposedShape TransposedShape::of(const Shape& x, const Shape& weight, const Shape& y,
                                    const ConvTranspose2dOptions& options) {
  return {
      .images = saturated(x[0]),
      .groups = saturated(options.groups),
      .in_channels = saturated(x[1] / options.groups),
      .out_channels = saturated(weight[1]),
      .rows = {x[2], y[2], weight[2], options.stride.h, options.padding.h, options.dilation.h},
      .columns = {x[3], y[3], weight[3], options.stride.w, options.padding.w, options.dilation.w}};
}

bool tiling_fits(const TransposedShape& shape) {
  // Bounds how far a window reaches, and with it the padding that leaves an output.
  constexpr std::int64_t kMostDilation = std::int64_t{1} << 10;
  constexpr std::int64_t kMostPlane = std::int64_t{1} << 23;
  constexpr std::int64_t kMostPlanes = std::numeric_limits<std::int32_t>::max() / 8;
  const auto axis_fits = [](const PhaseAxis& axis) {
    return axis.kernel <= 7 && axis.stride <= kMostStride && axis.dilation <= kMostDilation &&
           axis.output > 0 && axis.input > 0;
  };
  const auto planes = [&](int channels) {
    return std::int64_t{shape.images} * shape.groups * channels;
  };
  return axis_fits(shape.rows) && axis_fits(shape.columns) &&
         shape.rows.output * shape.columns.output <= kMostPlane &&
         shape.rows.input * shape.columns.input <= kMostPlane && planes(shape.in_channels) > 0 &&
         planes(shape.out_channels) > 0 && planes(shape.in_channels) <= kMostPlanes &&
         planes(shape.out_channels) <= kMostPlanes;
}

std::int64_t line_positions(const Tiling& t) {
  const std::int64_t rows =
      std::int64_t{t.shape.images - 1} * t.line_rows + t.shape.rows.output_count(0) - 1;
  return rows * t.line_columns + t.shape.columns.output_count(0);
}

Tiling make_tiling(const TransposedShape& shape, const TileShape& tile) {
  TapList lists[kMostStride];
  const int sets = int_of(shape.rows.stride) / tile.row_phases;
  for (int set = 0; set < sets; ++set) {
    lists[set] = list_taps(shape.rows, shape.columns, tile.row_phases, set);
  }
  return cut(shape, tile, {lists, static_cast<std::size_t>(sets)}, 1);
}

Tiling make_gradient_tiling(const TransposedShape& shape, const TileShape& tile) {
  const TapList list = list_gradient_taps(shape.rows, shape.columns);
  // Phase 0 has the most rows and columns q.
  const auto adjoint = [](const PhaseAxis& axis) {
    return PhaseAxis{axis.output_count(0), axis.input, axis.kernel, 1, 0, 1};
  };
  const TransposedShape gradient{.images = shape.images,
                                 .groups = shape.groups,
                                 .in_channels = shape.out_channels,
                                 .out_channels = shape.in_channels,
                                 .rows = adjoint(shape.rows),
                                 .columns = adjoint(shape.columns)};
  return cut(gradient, tile, {&list, 1}, int_of(shape.rows.stride * shape.columns.stride));
}

}  // namespace tenon::ops
