// The weight gradient's kernel: see weight_gradient_tiling.h for what blocks and warps do.
//
//   producers (config.producers warps)      consumers (a warp for each tap, out_warp and part)
//                                           sums of the slice before, or zeros
//   for each tile of positions:             for each tile of positions:
//     wait until the slot is empty            wait until the slot is full
//     window of x, phases of dy -> slot       sums += x at the tap's offset · dy of its phase
//     announce the slot as full               release the slot
//                                           sums to the workspace
//
// A tap is an offset in the window of x, no more, so that the same code serves every geometry.
#pragma once

#include "tenon/core/cuda/launch.cuh"
#include "tenon/ops/cuda/fused/weight_gradient_loader.cuh"
#include "tenon/ops/cuda/fused/weight_gradient_multiplier.cuh"

namespace tenon::ops::cuda {

template <int kMTiles, int kNTiles, int kConsumers, int kProducers, bool kSplit>
struct StaticWeightGradientConfig {
  static constexpr WeightGradientConfig value{kMTiles, kNTiles, kConsumers, kProducers, kSplit};
};

// ---- kernel ----------------------------------------------------------------------------------

/// What both kinds of warps know of their block.
template <class Operand, class Config>
struct BlockView {
  static constexpr int kRow = OperandTraits<Operand>::kRow;

  const WeightGradientArguments& arguments;
  const WeightGradientTiling& t;
  const BlockUnit block;
  const TapUnit& unit;
  char* shared;
  int x_chunks;
  int dy_chunks;

  __device__ BlockView(const WeightGradientArguments& all, char* memory, int block_index)
      : arguments(all),
        t(all.tiling),
        block(all.tiling, block_index),
        unit(all.tiling.units[block.taps]),
        shared(memory),
        x_chunks(chunks_of<Operand>(t.shape.in_channels, block.in_tile, t.in_channels)),
        dy_chunks(chunks_of<Operand>(t.shape.out_channels, block.out_tile, t.out_channels)) {}

  __device__ PipelineBarrier* full() const { return reinterpret_cast<PipelineBarrier*>(shared); }
  __device__ PipelineBarrier* empty() const { return full() + kMostStages; }
  __device__ Place* places() const {
    return reinterpret_cast<Place*>(shared + WeightGradientTiling::kBarrierBytes);
  }
  __device__ char* ring() const { return shared + t.ring_offset(); }
  __device__ std::uint32_t stage(int slot) const {
    return shared_address(ring()) + slot * t.stage_bytes();
  }
};

template <class Operand, class Config>
__device__ void produce(const BlockView<Operand, Config>& view) {
  constexpr int kThreads = 32 * Config::value.producers;
  constexpr int kRow = OperandTraits<Operand>::kRow;
  const WeightGradientTiling& t = view.t;
  const WeightGradientArguments& arguments = view.arguments;
  const OperandLoader x_loader(arguments.x, view.places(), view.block.group,
                               view.block.in_tile * (t.in_channels / kRow), view.x_chunks,
                               t.window_positions(), 16 * t.x_chunk_rows);
  const OperandLoader dy_loader(arguments.dy, view.places() + t.window_positions(),
                                view.block.group, view.block.out_tile * (t.out_channels / kRow),
                                view.dy_chunks, view.unit.slots * t.positions(),
                                16 * t.dy_chunk_rows);
  const TilePosition step(t, t.splits);
  // A data gradient goes through dy backwards, and what one of the two has read is in the L2 cache
  // for the other.
  const bool backwards = arguments.beside;
  TilePosition tile(t, backwards ? t.tiles() - 1 - view.block.split : view.block.split);
  RingPosition ring{0, 1};  // all slots are empty at first
  for (int number = view.block.split; number < t.tiles(); number += t.splits) {
    view.empty()[ring.slot].wait(ring.parity);
    const std::uint32_t x = view.stage(ring.slot);
    const std::uint32_t dy = x + t.dy_offset();
    const int item = x_loader.template load<kThreads>(x, tile.image, tile.row + view.unit.first_row,
                                                      tile.column + view.unit.first_column,
                                                      static_cast<int>(threadIdx.x));
    dy_loader.template load<kThreads>(dy, tile.image, tile.row, tile.column, item);
    arrive_with_copies(view.full()[ring.slot]);
    if (backwards) {
      tile.retreat(t, step);
    } else {
      tile.advance(t, step);
    }
    ring.advance(t.tile.stages);
  }
}

template <class Operand, class Config>
__device__ bool has_work(const BlockView<Operand, Config>& view, const WarpRole& role) {
  return role.tap < view.unit.taps && role.out_warp * Config::value.out_channels() <
                                          view.dy_chunks * OperandTraits<Operand>::kRow;
}

/// Where the sums of a warp that has work, and of the other parts of its tap, lie.
template <class Operand, class Config>
__device__ StoredSums stored_sums(const BlockView<Operand, Config>& view, const WarpRole& role) {
  const WeightGradientTiling& t = view.t;
  float* data =
      view.arguments.workspace + view.block.split * t.split_floats() +
      (view.block.channels * t.tap_count + view.unit.first_tap + role.tap) * t.tap_floats() +
      role.out_warp * Config::value.out_channels();
  return {data, t.out_channels, t.shape.in_channels - view.block.in_tile * t.in_channels};
}

/// What a warp's sums begin with: the first of the parts goes on where it stopped, if any did.
template <class Operand, class Config>
__device__ void begin(const BlockView<Operand, Config>& view, const WarpRole& role, bool active,
                      TileSums<Config>& sums) {
  clear_sums<Config>(sums);
  if (!view.arguments.continues || !active || role.part != 0) return;
  load_sums<Operand, Config>(stored_sums(view, role), sums);
}

/// Brings a warp's sums to the workspace.
template <class Operand, class Config>
__device__ void finish(const BlockView<Operand, Config>& view, const WarpRole& role,
                       TileSums<Config>& sums) {
  join_parts<Config>(reinterpret_cast<float*>(view.ring()), role, view.t, sums);
  if (!has_work(view, role) || role.part != 0) return;
  store_sums<Operand, Config>(stored_sums(view, role), sums);
}

template <class Operand, class Config>
__device__ void consume(const BlockView<Operand, Config>& view) {
  constexpr WeightGradientConfig kConfig = Config::value;
  // Steps of positions whose three products each are summed before they join the totals.
  constexpr int kPositionSteps = kStepsOfSum / 3;
  const WeightGradientTiling& t = view.t;
  int warp = static_cast<int>(threadIdx.x) / 32 - kConfig.producers;
  const WarpRole role(t, warp);
  const bool active = has_work(view, role);
  const TapMultiplier<Operand, Config> multiplier(
      t, t.taps[view.unit.first_tap + (active ? role.tap : 0)], role);
  TileSums<Config> sums;
  [[maybe_unused]] TileSums<Config> totals;
  if constexpr (kConfig.split) {
    clear_sums<Config>(sums);
    begin(view, role, active, totals);
  } else {
    begin(view, role, active, sums);
  }
  [[maybe_unused]] int steps = 0;
  RingPosition ring;
  for (int number = view.block.split; number < t.tiles(); number += t.splits) {
    view.full()[ring.slot].wait(ring.parity);
    if (active) {
      const std::uint32_t x = view.stage(ring.slot);
      multiplier.add(x, x + t.dy_offset(), sums);
    }
    __syncwarp();
    view.empty()[ring.slot].arrive_as_warp();
    if constexpr (kConfig.split) {
      steps += t.steps;
      if (steps >= kPositionSteps) {
        add_sums<Config>(sums, totals);
        clear_sums<Config>(sums);
        steps = 0;
      }
    }
    ring.advance(t.tile.stages);
  }
  if constexpr (kConfig.split) add_sums<Config>(totals, sums);
  // Found again: kept over the loop all this would take registers that there are not.
  int block = static_cast<int>(blockIdx.x);
  asm volatile("" : "+r"(warp), "+r"(block));
  finish(BlockView<Operand, Config>(view.arguments, view.shared, block), WarpRole(t, warp), sums);
}

/// Runs by t.blocks() blocks of t.threads(config) threads with t.shared_bytes() of dynamic shared
/// memory.
template <class Operand, class Config>
__global__ void __launch_bounds__(Config::value.threads(), 1)
    weight_gradient_kernel(const tenon::cuda::PreviousKernel previous,
                           const __grid_constant__ WeightGradientArguments arguments) {
  extern __shared__ __align__(128) char shared[];
  const BlockView<Operand, Config> view(arguments, shared, static_cast<int>(blockIdx.x));
  list_places(arguments, view.unit, view.places());
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < view.t.tile.stages; ++slot) {
      view.full()[slot].init(32 * Config::value.producers);
      view.empty()[slot].init(view.t.consumers() * kWarpArrivals);
    }
  }
  __syncthreads();
  if (arguments.beside) {
    let_next_kernel_begin();  // it may be one of those that run beside others, too
  } else {
    previous.wait();
  }
  if (threadIdx.x < 32 * Config::value.producers) {
    produce(view);
  } else {
    consume(view);
  }
  // Whoever waits for this kernel relies on those ahead of it, too.
  if (arguments.beside) previous.wait();
}

template <class Operand, class Config>
void launch_weight_gradient(const WeightGradientArguments& arguments, int shared_bytes,
                            Device device) {
  constexpr auto kKernel = weight_gradient_kernel<Operand, Config>;
  tenon::cuda::launch<kKernel>({static_cast<unsigned>(arguments.tiling.blocks()),
                                static_cast<unsigned>(arguments.tiling.threads(Config::value)),
                                static_cast<std::size_t>(shared_bytes)},
                               device, arguments);
}

/// A row of the table.
template <class Operand, class Config>
constexpr WeightGradientRow weight_gradient_row() {
  OperandKind operand = OperandKind::Tf32;
  if constexpr (std::is_same_v<Operand, __nv_bfloat16>) operand = OperandKind::BFloat16;
  if constexpr (std::is_same_v<Operand, __half>) operand = OperandKind::Float16;
  return {operand, Config::value, launch_weight_gradient<Operand, Config>};
}

}  // namespace tenon::ops::cuda
