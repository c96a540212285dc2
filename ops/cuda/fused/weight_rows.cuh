// The packed weights (pack_weights.h) on their way to shared memory.
#pragma once

#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/tile_place.cuh"

namespace tenon::ops::cuda {

/// The packed weights of a tile's unit, in rows of 16 bytes.
__device__ inline std::int64_t first_weight_row(const Tiling& t, KernelConfig config,
                                                const TilePlace& place) {
  const std::int64_t taps_before =
      static_cast<std::int64_t>(place.unit / t.sets) * t.first_tap(t.sets) + t.first_tap(place.set);
  return taps_before * t.stages * config.tap_rows();
}

/// Starts copying `rows` rows of packed weights; this thread is number `thread` of `threads`.
__device__ inline void copy_weights(const void* packed, std::int64_t first_row, int rows,
                                    char* shared, int thread, int threads) {
  const uint4* source = static_cast<const uint4*>(packed) + first_row;
  const std::uint32_t target = shared_address(shared);
  for (int row = thread; row < rows; row += threads) {
    copy_async(target + 16 * row, source + row);
  }
}

}  // namespace tenon::ops::cuda
