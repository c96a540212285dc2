#include <algorithm>
#include <cstdint>
#include <optional>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/error.h"
#include "tenon/ops/cuda/fused/weight_gradient.h"

namespace tenon::ops::cuda {
namespace {

int int_of(std::int64_t value) { return static_cast<int>(value); }
int ceil_div(std::int64_t count, std::int64_t size) { return int_of((count + size - 1) / size); }

int log2_of(int power) {
  int log = 0;
  while ((1 << log) < power) ++log;
  return log;
}

// ---- taps ------------------------------------------------------------------------------------

/// Appends the unit of `count` taps from `first` of `list`; widens the window to its own.
void append_unit(WeightGradientTiling& t, const TapList& list, int first, int count) {
  const auto [row, last_row] =
      std::minmax_element(list.taps + first, list.taps + first + count,
                          [](const Tap& a, const Tap& b) { return a.row_shift < b.row_shift; });
  const auto [column, last_column] = std::minmax_element(
      list.taps + first, list.taps + first + count,
      [](const Tap& a, const Tap& b) { return a.column_shift < b.column_shift; });
  t.units[t.tap_units++] = {first, count, 0, 0, row->row_shift, column->column_shift};
  t.window_rows = std::max(t.window_rows, t.tile.rows + last_row->row_shift - row->row_shift);
  t.window_columns =
      std::max(t.window_columns, t.tile.columns + last_column->column_shift - column->column_shift);
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
        unit.slots - 1, tap.kernel};
  }
  t.most_slots = std::max(t.most_slots, unit.slots);
  t.most_taps = std::max(t.most_taps, unit.taps);
}

/// Cuts the taps into `count` units of nearly as many, and finds what they take of shared memory.
void cut_taps(WeightGradientPlan& plan, const TapList& list, int count) {
  WeightGradientTiling& t = plan.tiling;
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
  const int row = row_channels(plan.row->operand);
  const auto chunks = [&](int channels, int most) {
    return ceil_div(std::min(channels, most), row);
  };
  t.x_chunk_rows = padded(t.window_positions());
  t.dy_chunk_rows = padded(t.most_slots * t.positions());
  t.m_tile_bytes = 16 * t.x_chunk_rows * (16 / row);
  t.two_dy_chunks = 2 * 16 * t.dy_chunk_rows;
  t.x_half_bytes = 16 * chunks(t.shape.in_channels, t.in_channels) * t.x_chunk_rows;
  t.dy_half_bytes = 16 * chunks(t.shape.out_channels, t.out_channels) * t.dy_chunk_rows;
  t.x_read_bytes = 16 * t.in_channels / row * t.x_chunk_rows;
  t.dy_read_bytes = 16 * t.out_channels / row * t.dy_chunk_rows;
}

// ---- splits ----------------------------------------------------------------------------------

/// Blocks of the plan that a multiprocessor holds at once, of which none has threads for itself.
int resident_blocks(const WeightGradientPlan& plan, const WeightGradientTarget& target) {
  const int by_warps = plan.row->config.threads() / plan.tiling.threads(plan.row->config);
  const int by_shared = (target.shared_bytes + 1024) / (plan.shared_bytes() + 1024);
  return std::clamp(std::min(by_warps, by_shared), 1, 4);
}

/// The time of `splits`, in tiles of a block: full waves of blocks, what a block does beside
/// walking over tiles, and the pass over the workspace.
double time_of(const WeightGradientPlan& plan, int splits, int resident, int multiprocessors) {
  constexpr double kBlockTiles = 3;
  const WeightGradientTiling& t = plan.tiling;
  const std::int64_t blocks = std::int64_t{t.channel_units()} * t.tap_units * splits;
  const int waves = ceil_div(blocks, std::int64_t{resident} * multiprocessors);
  // Blocks that share a multiprocessor take turns.
  const int shared = int_of(std::min<std::int64_t>(ceil_div(blocks, multiprocessors), resident));
  return waves * shared * (ceil_div(t.tiles(), splits) + kBlockTiles);
}

int choose_splits(const WeightGradientPlan& plan, const WeightGradientTarget& target) {
  constexpr std::int64_t kMostFloats = std::int64_t{48} << 18;  // 48 MB
  const WeightGradientTiling& t = plan.tiling;
  const int resident = resident_blocks(plan, target);
  const std::int64_t units = std::int64_t{t.channel_units()} * t.tap_units;
  const std::int64_t most = std::min<std::int64_t>(
      {t.tiles(), std::max<std::int64_t>(1, kMostFloats / t.split_floats()),
       std::max<std::int64_t>(1, 4 * resident * target.multiprocessors / units)});
  int best = 1;
  double best_time = time_of(plan, 1, resident, target.multiprocessors);
  for (int splits = 2; splits <= most; ++splits) {
    const double time = time_of(plan, splits, resident, target.multiprocessors);
    if (time < best_time) {
      best = splits;
      best_time = time;
    }
  }
  return best;
}

}  // namespace

WeightGradientTarget WeightGradientTarget::of(Device device) {
  const tenon::cuda::DeviceProperties& own = tenon::cuda::properties(device);
  return {own.multiprocessors, int_of(static_cast<std::int64_t>(own.shared_memory_a_block))};
}

bool make_weight_gradient_plan(const WeightGradientProblem& problem,
                               const WeightGradientTarget& target, const WeightGradientRow& row,
                               const WeightGradientTile& tile, int splits,
                               WeightGradientPlan& plan) {
  const WeightGradientConfig& config = row.config;
  const TransposedShape& shape = problem.shape;
  plan.row = &row;
  WeightGradientTiling& t = plan.tiling;
  t = {};
  t.shape = shape;
  t.tile = tile;
  t.in_channels = config.in_channels();
  t.out_channels = config.out_channels() * tile.out_warps;
  t.in_tiles = ceil_div(shape.in_channels, t.in_channels);
  t.out_tiles = ceil_div(shape.out_channels, t.out_channels);
  // Phase 0 has the most outputs.
  t.row_tiles = ceil_div(shape.rows.output_count(0), tile.rows);
  t.column_tiles = ceil_div(shape.columns.output_count(0), tile.columns);
  const TapList list = list_taps(shape.rows, shape.columns, static_cast<int>(shape.rows.stride), 0);
  t.tap_count = list.count;
  const int most_taps = config.consumers / (tile.out_warps * tile.parts);
  if (most_taps == 0) return false;
  int units = ceil_div(list.count, most_taps);
  for (cut_taps(plan, list, units); plan.shared_bytes() > target.shared_bytes;
       cut_taps(plan, list, units)) {
    if (++units > list.count) return false;
  }
  const int step = row.operand == OperandKind::Tf32 ? 8 : 16;
  const int steps_of_row = std::max(1, tile.columns / step);
  t.steps = t.positions() / step;
  t.step_shift = log2_of(steps_of_row);
  t.step_mask = steps_of_row - 1;
  t.step_row = tile.columns < step ? 2 * t.window_columns : t.window_columns;
  t.second = tile.columns < step ? t.window_columns : 8;
  const int joined_bytes = 32 * t.consumers() / tile.parts * config.m_tiles * config.n_tiles * 16;
  if (tile.parts > 1 && joined_bytes > tile.stages * t.stage_bytes(config.halves())) return false;
  t.splits = 1;
  t.splits = splits > 0 ? splits : choose_splits(plan, target);
  return true;
}

WeightGradientPlan plan_weight_gradient(const WeightGradientProblem& problem,
                                        const WeightGradientTarget& target) {
  WeightGradientPlan plan;
  for (const WeightGradientRow& row : weight_gradient_rows()) {
    if (row.operand != problem.operand || row.config.split != problem.split) continue;
    for (const int columns : {16, 8}) {
      for (int stages = 4; stages >= 2; --stages) {
        if (make_weight_gradient_plan(problem, target, row,
                                      {columns == 16 ? 2 : 4, columns, stages, 1, 1}, 0, plan))
          return plan;
      }
    }
  }
  TENON_CHECK(false, "weight_gradient: no kernel fits");
  return plan;
}

}  // namespace tenon::ops::cuda
