#include "tenon/ops/cuda/fused/weight_gradient_taps.h"

#include <algorithm>
#include <span>
#include <tuple>
#include <vector>

#include "tenon/ops/cuda/fused/channel_rows_ops.h"
#include "tenon/ops/fused/ceil_div.h"

namespace tenon::ops::cuda {
namespace {

/// The least and the largest shift of taps along each axis.
struct Shifts {
  ShiftRange rows;
  ShiftRange columns;

  explicit Shifts(std::span<const Tap> taps)
      : rows{taps[0].row_shift, taps[0].row_shift},
        columns{taps[0].column_shift, taps[0].column_shift} {
    for (const Tap& tap : taps) {
      rows = {std::min(rows.first, tap.row_shift), std::max(rows.last, tap.row_shift)};
      columns = {std::min(columns.first, tap.column_shift),
                 std::max(columns.last, tap.column_shift)};
    }
  }
};

// ---- from rows of x and dy -------------------------------------------------------------------

/// Appends the unit of `count` taps from `first` of `list`; widens the window to its own.
void append_unit(WeightGradientTiling& t, const TapList& list, int first, int count) {
  const Shifts shifts(std::span(list.taps).subspan(first, count));
  t.units[t.tap_units++] = {first, count, 0, 0, shifts.rows.first, shifts.columns.first};
  t.window_rows = std::max(t.window_rows, t.tile.rows + shifts.rows.last - shifts.rows.first);
  t.window_columns =
      std::max(t.window_columns, t.tile.columns + shifts.columns.last - shifts.columns.first);
}

/// Lists what the taps of a unit need; the window is known.
void list_unit(WeightGradientTiling& t, const TapList& list, TapUnit& unit) {
  for (int i = unit.first_tap; i < unit.first_tap + unit.taps; ++i) {
    const Tap& tap = list.taps[i];
    if (i == unit.first_tap || tap.phase != list.taps[i - 1].phase) {
      t.phases[unit.first_slot + unit.slots++] = tap.phase;
    }
    t.taps[i] = {
        (tap.row_shift - unit.first_row) * t.window_columns + tap.column_shift - unit.first_column,
        (unit.slots - 1) * t.positions(), tap.kernel};
  }
  t.most_slots = std::max(t.most_slots, unit.slots);
  t.most_taps = std::max(t.most_taps, unit.taps);
}

/// Cuts the taps into `count` units of nearly as many, and finds what they take of shared memory.
void cut_evenly(OperandKind operand, const TapList& list, int count, WeightGradientTiling& t) {
  t.tap_units = 0;
  t.window_rows = t.window_columns = t.most_slots = t.most_taps = 0;
  for (int unit = 0; unit < count; ++unit) {
    const int first = list.count * unit / count;
    append_unit(t, list, first, list.count * (unit + 1) / count - first);
  }
  for (int unit = 0; unit < count; ++unit) {
    if (unit > 0) {
      t.units[unit].first_slot = t.units[unit - 1].first_slot + t.units[unit - 1].slots;
    }
    list_unit(t, list, t.units[unit]);
  }
  // 4 more than a multiple of 8, so that neighbouring chunks lie on different halves of the banks.
  const auto padded = [](int rows) { return (rows + 3) / 8 * 8 + 4; };
  const int row = row_channels(operand);
  const auto chunks = [&](int channels, int most) {
    return ceil_div(std::min(channels, most), row);
  };
  t.x_chunk_rows = padded(t.window_positions());
  t.dy_chunk_rows = padded(t.most_slots * t.positions());
  t.m_tile_bytes = 16 * t.x_chunk_rows * (16 / row);
  t.two_dy_chunks = 2 * 16 * t.dy_chunk_rows;
  t.x_bytes = 16 * chunks(t.shape.in_channels, t.in_channels) * t.x_chunk_rows;
  t.dy_bytes = 16 * chunks(t.shape.out_channels, t.out_channels) * t.dy_chunk_rows;
  t.x_read_bytes = 16 * t.in_channels / row * t.x_chunk_rows;
  t.dy_read_bytes = 16 * t.out_channels / row * t.dy_chunk_rows;
}

// ---- from planes of x ------------------------------------------------------------------------

using Run = std::vector<Tap>;

/// The taps in runs: of the same phase and column shift, with row shifts one behind the other.
std::vector<Run> runs_of(const TapList& list, int most) {
  std::vector<Tap> taps(list.taps, list.taps + list.count);
  const auto key = [](const Tap& tap) {
    return std::tuple(tap.phase, tap.column_shift, tap.row_shift);
  };
  std::sort(taps.begin(), taps.end(), [&](const Tap& a, const Tap& b) { return key(a) < key(b); });
  std::vector<Run> runs;
  for (const Tap& tap : taps) {
    const bool goes_on =
        !runs.empty() && static_cast<int>(runs.back().size()) < most &&
        key(runs.back().back()) == std::tuple(tap.phase, tap.column_shift, tap.row_shift - 1);
    if (!goes_on) runs.emplace_back();
    runs.back().push_back(tap);
  }
  return runs;
}

/// The runs of each warpgroup of each unit, two of each, of which the second or both may be empty.
/// Long ones come first: those that no second place can hold.
std::vector<Run> place_runs(const WeightGradientConfig& config, const TapList& list) {
  std::vector<Run> runs = runs_of(list, config.first_run);
  const auto size = [](const Run& run) { return static_cast<int>(run.size()); };
  const auto short_ones =
      config.second_run == 0 ? runs.end()
                             : std::stable_partition(runs.begin(), runs.end(), [&](const Run& run) {
                                 return size(run) > config.second_run;
                               });
  auto next_long = runs.begin();
  auto next_short = short_ones;
  std::vector<Run> placed;
  while (next_long != short_ones || next_short != runs.end()) {
    std::vector<Run> firsts(config.warpgroups);
    std::vector<Run> seconds(config.warpgroups);
    for (Run& run : firsts) {
      if (next_long != short_ones) {
        run = *next_long++;
      } else if (next_short != runs.end()) {
        run = *next_short++;
      }
    }
    for (Run& run : seconds) {
      if (config.second_run > 0 && next_short != runs.end()) run = *next_short++;
    }
    for (int group = 0; group < config.warpgroups; ++group) {
      placed.push_back(firsts[group]);
      placed.push_back(seconds[group]);
    }
  }
  return placed;
}

/// Lists the unit's taps: its window of x begins at the least shift of rows, that of dy where the
/// tap with the largest shift of columns reads it.
void list_plane_unit(std::span<const Run> runs, WeightGradientTiling& t, int& taps) {
  Run all;
  for (const Run& run : runs) all.insert(all.end(), run.begin(), run.end());
  const Shifts shifts(all);
  const auto [first, last] = std::minmax_element(
      all.begin(), all.end(), [](const Tap& a, const Tap& b) { return a.phase < b.phase; });
  TapUnit& unit = t.units[t.tap_units];
  // Its phases are neighbours, so that the first says it all.
  t.phases[t.tap_units] = first->phase;
  unit = {taps,
          static_cast<int>(all.size()),
          t.tap_units,
          last->phase - first->phase + 1,
          shifts.rows.first,
          -shifts.columns.last};
  int number = t.tap_units * static_cast<int>(runs.size());
  for (const Run& run : runs) {
    t.runs[number++] = {taps, static_cast<int>(run.size())};
    for (const Tap& tap : run) {
      const int slot = tap.phase - first->phase;
      t.taps[taps++] = {
          tap.row_shift - unit.first_row,
          slot * t.tile.rows * t.window_columns - tap.column_shift - unit.first_column, tap.kernel};
    }
  }
  t.window_rows = std::max(t.window_rows, t.tile.rows + shifts.rows.last - shifts.rows.first);
  t.window_columns =
      std::max(t.window_columns, t.tile.columns + shifts.columns.last - shifts.columns.first);
  t.most_slots = std::max(t.most_slots, unit.slots);
  t.most_taps = std::max(t.most_taps, unit.taps);
  ++t.tap_units;
}

void list_plane_units(std::span<const Run> runs, int runs_of_unit, WeightGradientTiling& t) {
  t.tap_units = t.most_slots = t.most_taps = 0;
  int taps = 0;
  for (std::size_t first = 0; first < runs.size(); first += runs_of_unit) {
    list_plane_unit(runs.subspan(first, runs_of_unit), t, taps);
  }
}

/// What a stage takes of shared memory: lines of x as they lie in its planes, [window
/// row][channel][line], and windows of dy as rows. Bulk copies leave no gaps; parts of lines change
/// places within 1024 bytes, so that all begins at multiples of that.
void lay_out_planes(const WeightGradientConfig& config, OperandKind operand,
                    WeightGradientTiling& t) {
  constexpr int kUnit = WeightGradientTiling::kPlanesOffset;
  const auto whole = [&](int bytes) { return (bytes + kUnit - 1) / kUnit * kUnit; };
  const int row = row_channels(operand);
  t.line_bytes = 16 * t.tile.columns / row;
  t.dy_chunks = ceil_div(std::min(t.shape.out_channels, t.out_channels), row);
  t.dy_chunk_rows = t.most_slots * t.tile.rows * t.window_columns;
  const int window_row_bytes = t.in_channels * t.line_bytes;
  t.x_bytes = whole(t.window_rows * window_row_bytes);
  t.dy_bytes = whole(16 * t.dy_chunks * t.dy_chunk_rows);
  // What is not there of a run is multiplied too.
  t.x_read_bytes = (t.window_rows + config.first_run - 1) * window_row_bytes;
  t.dy_read_bytes = 16 * t.out_channels / row * t.dy_chunk_rows;
}

bool cut_into_runs(const WeightGradientConfig& config, OperandKind operand, const TapList& list,
                   int shared_bytes, WeightGradientTiling& t) {
  constexpr int kMostInABox = 256;
  constexpr int kMostOfLine = 128;
  // Bulk copies are of lines that begin at multiples of 16 bytes.
  if (t.tile.out_warps > 1 || t.tile.parts > 1 ||
      t.shape.columns.input % row_channels(operand) != 0) {
    return false;
  }
  const std::vector<Run> runs = place_runs(config, list);
  const int runs_of_unit = 2 * config.warpgroups;
  if (std::ssize(runs) > std::ssize(t.runs)) return false;
  // Once to know the windows and again to know where taps read them; and neighbouring chunks of dy
  // must not share a quarter of the banks.
  t.window_rows = t.window_columns = 0;
  list_plane_units(runs, runs_of_unit, t);
  while (t.most_slots * t.tile.rows * t.window_columns % 4 != 0) ++t.window_columns;
  list_plane_units(runs, runs_of_unit, t);
  lay_out_planes(config, operand, t);
  return t.line_bytes <= kMostOfLine &&
         std::max(2 * t.window_columns, t.window_rows) <= kMostInABox &&
         t.shared_bytes() <= shared_bytes;
}

}  // namespace

bool cut_taps(const WeightGradientConfig& config, OperandKind operand, const TapList& list,
              int shared_bytes, WeightGradientTiling& t) {
  if (config.warpgroups > 0) return cut_into_runs(config, operand, list, shared_bytes, t);
  const int most_taps = config.consumers / (t.tile.out_warps * t.tile.parts);
  if (most_taps == 0) return false;
  for (int units = ceil_div(list.count, most_taps); units <= list.count; ++units) {
    cut_evenly(operand, list, units, t);
    if (t.shared_bytes() <= shared_bytes) return true;
  }
  return false;
}

}  // namespace tenon::ops::cuda
