// The weight gradient at 16 bits by products of warpgroups (sm_90a).
//
// A block is as in weight_gradient.cuh, but its warpgroups have up to three taps each: 64 input
// channels by 64 output channels, summed over positions. Both operands lie in shared memory as rows
// of channels, of which the tensor cores take the positions for what is summed over, from any row
// on: a tap is an offset in the window of x. One thread brings windows and phases by bulk copies.
#include <array>

#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/ops/cuda/fused/warpgroup.cuh"
#include "tenon/ops/cuda/fused/weight_gradient_loader.cuh"

namespace tenon::ops::cuda {
namespace {

constexpr int kGroups = 3;  // that multiply
constexpr int kTaps = kWarpgroupTaps / kGroups;
constexpr int kChannels = 64;
static_assert(kWarpgroupThreads == 128 * (kGroups + 1));

using TapSums = float[kTaps][32];

__device__ PipelineBarrier* full_barriers(char* shared) {
  return reinterpret_cast<PipelineBarrier*>(shared);
}
__device__ PipelineBarrier* empty_barriers(char* shared) {
  return full_barriers(shared) + kMostStages;
}

/// Run by one thread.
__device__ void produce(const WeightGradientArguments& arguments, const BlockUnit& block,
                        char* shared) {
  const WeightGradientTiling& t = arguments.tiling;
  const TapUnit& unit = t.units[block.taps];
  const int x_bytes = 16 * t.x_chunks * t.x_chunk_rows;
  const int dy_bytes = 16 * t.dy_chunks * t.dy_chunk_rows;
  const int x_chunk = block.group * arguments.x_chunks + block.in_tile * (kChannels / 8);
  const int dy_chunk = block.group * arguments.dy_chunks + block.out_tile * (kChannels / 8);
  const TilePosition step(t, t.splits);
  TilePosition tile(t, arguments.beside ? t.tiles() - 1 - block.split : block.split);
  RingPosition ring{0, 1};  // all slots are empty at first
  for (int number = block.split; number < t.tiles(); number += t.splits) {
    empty_barriers(shared)[ring.slot].wait(ring.parity);
    char* x = shared + t.ring_offset() + ring.slot * t.stage_bytes(1);
    PipelineBarrier& full = full_barriers(shared)[ring.slot];
    copy_rows(x, arguments.x_map, 2 * (tile.column + unit.first_column), tile.row + unit.first_row,
              tile.image, x_chunk, x_bytes, full);
    copy_rows(x + t.dy_offset(1), arguments.dy_map, 2 * tile.column, tile.row, tile.image, dy_chunk,
              dy_bytes, full, t.phases[unit.first_slot]);
    if (arguments.beside) {
      tile.retreat(t, step);
    } else {
      tile.advance(t, step);
    }
    ring.advance(t.tile.stages);
  }
}

/// Stores a tap's sums, or adds them to those of the slices before. `nothing`: there were none.
__device__ void store_sums(float* data, const float (&sums)[32], bool continues, bool nothing) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int row = thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      auto* at =
          reinterpret_cast<float2*>(data + (row + 8 * half) * kChannels + 8 * j + thread % 4 * 2);
      float2 pair = continues ? *at : make_float2(0.0f, 0.0f);
      if (!nothing) {
        pair.x += sums[4 * j + 2 * half];
        pair.y += sums[4 * j + 2 * half + 1];
      }
      *at = pair;
    }
  }
}

/// Where tap `tap` of a block's unit has its sums.
__device__ float* tap_sums(const WeightGradientArguments& arguments, const BlockUnit& block,
                           int tap) {
  const WeightGradientTiling& t = arguments.tiling;
  return arguments.workspace + block.split * t.split_floats() +
         (block.channels * t.tap_count + t.units[block.taps].first_tap + tap) * t.tap_floats();
}

template <class Operand>
__device__ void consume(const WeightGradientArguments& arguments, const BlockUnit& block,
                        char* shared, int group) {
  const WeightGradientTiling& t = arguments.tiling;
  const TapUnit& unit = t.units[block.taps];
  const bool leader = threadIdx.x % 32 == 0;
  const auto tap_of = [&](int i) { return group + i * kGroups; };
  TapSums sums;
  std::uint32_t x_row[kTaps];
  std::uint32_t dy_row[kTaps];
#pragma unroll
  for (int i = 0; i < kTaps; ++i) {
    // What there is none of is multiplied like the last, and not stored.
    const UnitTap& tap = t.taps[unit.first_tap + min(tap_of(i), unit.taps - 1)];
    x_row[i] = tap.window;
    dy_row[i] = tap.slot * t.positions();
  }
  const std::uint32_t ring_row = shared_address(shared + t.ring_offset()) >> 4;
  const std::uint32_t stage_rows = t.stage_bytes(1) >> 4;
  const std::uint32_t dy_offset = t.dy_offset(1) >> 4;
  const std::uint32_t x_chunk_bytes = 16 * t.x_chunk_rows;
  const std::uint32_t dy_chunk_bytes = 16 * t.dy_chunk_rows;
  const std::uint32_t second = 16 * t.second;
  bool fresh = true;    // the first products overwrite what the sums hold
  int unfinished = -1;  // the slot whose products may still be under way
  RingPosition ring;
  for (int number = block.split; number < t.tiles(); number += t.splits) {
    full_barriers(shared)[ring.slot].wait(ring.parity);
    const std::uint32_t x = ring_row + ring.slot * stage_rows;
    const std::uint32_t dy = x + dy_offset;
    warpgroup_begin();
    for (int step = 0; step < t.steps; ++step) {
      const std::uint32_t x_step =
          x + (step >> t.step_shift) * t.step_row + (step & t.step_mask) * 16;
      const std::uint32_t dy_step = dy + 16 * step;
#pragma unroll
      for (int i = 0; i < kTaps; ++i) {
        warpgroup_multiply_across<Operand>(
            sums[i], descriptor_across(x_step + x_row[i], x_chunk_bytes, second),
            descriptor_across(dy_step + dy_row[i], dy_chunk_bytes, 128), !fresh || step > 0);
      }
    }
    warpgroup_commit();
    fresh = false;
    if (unfinished >= 0) {
      warpgroup_wait<1>();
      if (leader) empty_barriers(shared)[unfinished].arrive();
    }
    unfinished = ring.slot;
    ring.advance(t.tile.stages);
  }
  warpgroup_wait<0>();
#pragma unroll
  for (int i = 0; i < kTaps; ++i) {
#pragma unroll
    for (int k = 0; k < 32; ++k) asm volatile("" : "+f"(sums[i][k]));
    if (tap_of(i) < unit.taps) {
      store_sums(tap_sums(arguments, block, tap_of(i)), sums[i], arguments.continues, fresh);
    }
  }
}

template <class Operand>
__global__ void __launch_bounds__(kWarpgroupThreads, 1)
    weight_gradient_warpgroup_kernel(const tenon::cuda::PreviousKernel previous,
                                     const __grid_constant__ WeightGradientArguments arguments) {
  extern __shared__ __align__(128) char shared[];
  const WeightGradientTiling& t = arguments.tiling;
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < t.tile.stages; ++slot) {
      full_barriers(shared)[slot].init(2);  // of two copies
      empty_barriers(shared)[slot].init(4 * kGroups);
    }
    fence_async_proxy();
  }
  __syncthreads();
  if (arguments.beside) {
    let_next_kernel_begin();
  } else {
    previous.wait();
  }
  const BlockUnit block(t, static_cast<int>(blockIdx.x));
  const int group = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == kGroups) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    if (threadIdx.x % 128 == 0) produce(arguments, block, shared);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 144;");
    consume<Operand>(arguments, block, shared, group);
    if (arguments.beside) previous.wait();
  }
}

template <class Operand>
void launch(const WeightGradientArguments& arguments, int shared_bytes, Device device) {
  constexpr auto kKernel = weight_gradient_warpgroup_kernel<Operand>;
  // The most that any plan may want: the limit is the kernel's, not the launch's.
  TENON_CUDA_CHECK(cudaFuncSetAttribute(
      kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
      static_cast<int>(tenon::cuda::properties(device).shared_memory_a_block)));
  tenon::cuda::launch<kKernel>(
      {static_cast<unsigned>(arguments.tiling.blocks()), static_cast<unsigned>(kWarpgroupThreads),
       static_cast<std::size_t>(shared_bytes)},
      device, arguments);
}

constexpr WeightGradientConfig kConfig{4, 8, kWarpgroupTaps, 4, false, true};

}  // namespace

std::span<const WeightGradientRow> weight_gradient_rows_sm90() {
  static constexpr std::array kRows{
      WeightGradientRow{OperandKind::BFloat16, kConfig, launch<__nv_bfloat16>},
      WeightGradientRow{OperandKind::Float16, kConfig, launch<__half>}};
  return kRows;
}

}  // namespace tenon::ops::cuda
