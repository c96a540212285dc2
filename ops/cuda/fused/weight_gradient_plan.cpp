#include <algorithm>
#include <array>
#include <cstdint>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/error.h"
#include "tenon/ops/cuda/fused/weight_gradient.h"
#include "tenon/ops/cuda/fused/weight_gradient_taps.h"
#include "tenon/ops/fused/ceil_div.h"

namespace tenon::ops::cuda {
namespace {

int int_of(std::int64_t value) { return static_cast<int>(value); }
int pieces(std::int64_t count, std::int64_t size) { return int_of(ceil_div(count, size)); }

int log2_of(int power) {
  int log = 0;
  while ((1 << log) < power) ++log;
  return log;
}

// ---- times -----------------------------------------------------------------------------------

// A model of the kernels' time, in cycles of 1.755 GHz of a multiprocessor of an H100, fitted to 33
// plans there, which it foretells to 5%. With warpgroups it is set by hand, not fitted:
// such that plans that load little from the L2 cache win, which a data gradient beside needs too.
// It only has to tell plans apart; what it knows of a device is the number of multiprocessors.

/// Until the bytes of a tile are there, once they are asked for: of memory those that the block's
/// neighbours do not read too, of the cache all.
double load_cycles(const WeightGradientPlan& plan) {
  const bool planes = plan.row->config.warpgroups > 0;  // by bulk copies
  const double memory_bytes = planes ? 28 : 17.5;       // that arrive in a cycle
  const double cache_bytes = planes ? 30 : 35;
  const WeightGradientTiling& t = plan.tiling;
  const double x_new = planes ? 1.0 * t.x_bytes / t.window_rows * t.tile.rows
                              : 1.0 * t.x_bytes / t.window_positions() * t.positions();
  const double from_memory = x_new / (t.out_tiles * t.tap_units) + 1.0 * t.dy_bytes / t.in_tiles;
  const double from_cache = t.x_bytes + t.dy_bytes;
  return std::max(from_memory / memory_bytes, from_cache / cache_bytes);
}

/// Until the products of a tile are formed, of 32 cycles each if nothing else were: in TF32 dy
/// comes through registers. All taps that a kernel can have count.
double warpgroup_cycles(const WeightGradientPlan& plan) {
  const double product = plan.row->operand == OperandKind::Tf32 ? 52 : 42;
  return product * plan.tiling.steps * plan.row->config.consumers;
}

/// Until the products of a tile are formed.
double multiply_cycles(const WeightGradientPlan& plan) {
  if (plan.row->config.warpgroups > 0) return warpgroup_cycles(plan);
  constexpr double kRead = 45;          // until a fragment is there
  constexpr double kCopies = 100;       // of a thread's four copies
  constexpr double kSharedBytes = 128;  // of shared memory that are read or written in a cycle
  constexpr double kContention = 0.3;   // of reads with products
  const WeightGradientTiling& t = plan.tiling;
  const WeightGradientConfig& c = plan.row->config;
  const double steps = static_cast<double>(t.steps) / t.tile.parts;
  // Of one warp's instruction, on its quarter of the multiprocessor.
  const double product = plan.row->operand == OperandKind::Tf32 ? 6.2 : 5.5;
  // Splitting a number takes three instructions, and a fragment of x has four, of dy two.
  const double splitting = c.split ? 3 * (4 * c.m_tiles + 2 * c.n_tiles) : 0;
  const double products = product * c.m_tiles * c.n_tiles * (c.split ? 3 : 1) + splitting;
  const double copied_bytes = t.x_bytes + t.dy_bytes;
  const double copies = kCopies * copied_bytes / 64 / (32 * c.producers);
  // Warps go around the quarters of a multiprocessor, producers first.
  double busiest = 0;
  for (int quarter = 0; quarter < 4; ++quarter) {
    const auto warps_until = [&](int end) { return (end - quarter + 3) / 4; };
    const int producers = warps_until(c.producers);
    const int consumers = warps_until(c.producers + t.consumers()) - producers;
    busiest = std::max(busiest, consumers * steps * products + producers * copies);
  }
  busiest = std::max(busiest, steps * (products + kRead * (c.m_tiles + 2)));
  const int fragments = 4 * c.m_tiles + 2 * c.n_tiles;
  const double read_bytes = 128 * steps * t.consumers() * fragments;
  const double moved = (read_bytes + copied_bytes) / kSharedBytes;
  return std::max(busiest, moved) + kContention * std::min(busiest, moved);
}

/// A tile, once the ring is full: copies begin as soon as a slot is empty, and take their way.
double tile_cycles(const WeightGradientPlan& plan) {
  const bool planes = plan.row->config.warpgroups > 0;
  constexpr double kLatency = 1250;
  const double tile = planes ? 100 : 200;
  const double load = load_cycles(plan) + kLatency / (plan.tiling.tile.stages - 1);
  return std::max(load, multiply_cycles(plan)) + tile;
}

/// Blocks of the plan that a multiprocessor holds at once.
int resident_blocks(const WeightGradientPlan& plan, const WeightGradientTarget& target) {
  const WeightGradientConfig& config = plan.row->config;
  const int by_threads = config.threads() / plan.tiling.threads(config);
  const int by_shared = (target.shared_bytes + 1024) / (plan.shared_bytes() + 1024);
  return std::clamp(std::min(by_threads, by_shared), 1, 4);
}

/// Both kernels with so many splits, where a tile takes `tile` cycles.
double plan_cycles(const WeightGradientPlan& plan, int splits, double tile, int resident,
                   int multiprocessors) {
  constexpr double kBlock = 3600;    // until the first tile is there, and after the last
  constexpr double kSum = 6700;      // of the second kernel
  constexpr double kSumBytes = 720;  // of the workspace, there and back, that pass in a cycle
  const WeightGradientTiling& t = plan.tiling;
  const std::int64_t blocks = std::int64_t{t.channel_units()} * t.tap_units * splits;
  const int waves = pieces(blocks, std::int64_t{resident} * multiprocessors);
  // Blocks that share a multiprocessor take turns.
  const int sharing = int_of(std::min<std::int64_t>(pieces(blocks, multiprocessors), resident));
  const double block = (pieces(t.tiles(), splits) + 1) * tile + kBlock;
  return waves * sharing * block + kSum +
         4.0 * static_cast<double>(t.split_floats()) * splits / kSumBytes;
}

/// Sets the number of splits, 0 for the best; returns the plan's time.
double set_splits(WeightGradientPlan& plan, const WeightGradientTarget& target, int splits) {
  // 26 MiB, or else one split: beside it the backward keeps 228 MiB of a slice (backward.cpp).
  constexpr std::int64_t kMostFloats = std::int64_t{26} << 18;
  WeightGradientTiling& t = plan.tiling;
  const int resident = resident_blocks(plan, target);
  const double tile = tile_cycles(plan);
  const auto time = [&](int count) {
    return plan_cycles(plan, count, tile, resident, target.multiprocessors);
  };
  t.splits = std::max(1, splits);
  if (splits > 0) return time(splits);
  const std::int64_t most =
      std::min<std::int64_t>(t.tiles(), std::max<std::int64_t>(1, kMostFloats / t.split_floats()));
  double best = time(1);
  // Those that fill the device once, twice, ...
  for (int waves = 1; waves <= 3 * resident; ++waves) {
    const std::int64_t filling =
        std::int64_t{waves} * target.multiprocessors / (t.channel_units() * t.tap_units);
    const int count = int_of(std::clamp<std::int64_t>(filling, 1, most));
    if (time(count) >= best) continue;
    best = time(count);
    t.splits = count;
  }
  return best;
}

}  // namespace

WeightGradientTarget WeightGradientTarget::of(Device device) {
  const tenon::cuda::DeviceProperties& own = tenon::cuda::properties(device);
  return {own.multiprocessors, int_of(static_cast<std::int64_t>(own.shared_memory_a_block)),
          own.compute_capability};
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
  t.in_tiles = pieces(shape.in_channels, t.in_channels);
  t.out_tiles = pieces(shape.out_channels, t.out_channels);
  // Phase 0 has the most outputs.
  t.row_tiles = pieces(shape.rows.output_count(0), tile.rows);
  t.column_tiles = pieces(
      config.warpgroups > 0 ? shape.columns.input : shape.columns.output_count(0), tile.columns);
  const TapList list = list_taps(shape.rows, shape.columns, static_cast<int>(shape.rows.stride), 0);
  t.tap_count = list.count;
  if (config.warpgroups > 0 && target.architecture < 90) return false;
  if (!cut_taps(config, row.operand, list, target.shared_bytes, t)) return false;
  const int step = row.operand == OperandKind::Tf32 ? 8 : 16;
  const int steps_of_row = std::max(1, tile.columns / step);
  t.steps = t.positions() / step;
  t.step_shift = log2_of(steps_of_row);
  t.step_mask = steps_of_row - 1;
  t.step_row = tile.columns < step ? 2 * t.window_columns : t.window_columns;
  t.second = tile.columns < step ? t.window_columns : 8;
  if (config.warpgroups > 0 && (t.steps == 0 || t.steps % 2 != 0)) return false;
  const int joined_bytes = 32 * t.consumers() / tile.parts * config.m_tiles * config.n_tiles * 16;
  if (tile.parts > 1 && joined_bytes > tile.stages * t.stage_bytes()) return false;
  plan.cycles = set_splits(plan, target, splits);
  return true;
}

WeightGradientPlan plan_weight_gradient(const WeightGradientProblem& problem,
                                        const WeightGradientTarget& target) {
  constexpr struct {
    int rows, columns;
    bool rows_of_x = true;  // not for planes alone
  } kTiles[] = {{2, 16},        {3, 16},       {4, 16},        {8, 16},        {2, 32},
                {3, 32},        {4, 32},       {2, 8},         {4, 8},         {6, 8},
                {8, 8},         {16, 8},       {1, 32, false}, {1, 64, false}, {2, 64, false},
                {4, 64, false}, {8, 32, false}};
  WeightGradientPlan best{};
  for (const WeightGradientRow& row : weight_gradient_rows()) {
    if (row.operand != problem.operand || row.config.split != problem.split) continue;
    for (const auto [rows, columns, rows_of_x] : kTiles) {
      if (!rows_of_x && row.config.warpgroups == 0) continue;
      for (const int out_warps : {1, 2}) {
        if ((out_warps - 1) * row.config.out_channels() >= problem.shape.out_channels) continue;
        for (const int parts : {1, 2, 4}) {
          for (const int stages : {4, 3, 2}) {
            if (stages == 4 && row.config.warpgroups == 0) continue;
            WeightGradientPlan plan;
            const WeightGradientTile tile{rows, columns, stages, out_warps, parts};
            if (!make_weight_gradient_plan(problem, target, row, tile, 0, plan)) continue;
            if (best.row == nullptr || plan.cycles < best.cycles) best = plan;
          }
        }
      }
    }
  }
  TENON_CHECK(best.row != nullptr, "weight_gradient: no kernel fits into ", target.shared_bytes,
              " bytes of shared memory");
  return best;
}

}  // namespace tenon::ops::cuda
