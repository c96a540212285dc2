// The producers of the backward's kernels, but for dy's of planes: their input lies in memory as
// the tensor cores read it (channel_rows.h), so that a window is a copy. On sm_90 one thread asks
// for it as one box of a bulk copy; elsewhere each thread copies rows of 16 bytes, and the copies
// themselves announce the slot as full, so that the producers run ahead as far as the ring goes.
#pragma once

#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/tile_place.cuh"
#include "tenon/ops/cuda/fused/weight_rows.cuh"

namespace tenon::ops::cuda {

/// Arrivals that make a slot full.
template <class Config, class Multiplier>
constexpr int row_arrivals() {
  if constexpr (Multiplier::kAsync) return Config::value.resident ? 1 : 2;
  return 32 * kProducerWarps;
}

/// The window of stage `stage` of a tile into the slot at `shared`, by copies of this thread;
/// `places` says where each position lies, as image·sources + source, row and column.
template <class Config>
__device__ void copy_window(const KernelArguments& arguments, const TilePlace& place, int stage,
                            const int* places, char* shared) {
  const Tiling& t = arguments.tiling;
  const ChannelRows& rows = arguments.rows;
  constexpr int kChunks = Config::value.chunks;
  const std::int64_t chunk_rows = rows.chunk_rows();
  const std::int64_t first_chunk =
      static_cast<std::int64_t>(place.group) * rows.chunks + stage * kChunks;
  const auto* source = static_cast<const uint4*>(rows.data) + first_chunk * chunk_rows;
  const std::uint32_t target = shared_address(shared);
  const int positions = t.window_positions();
  const int first_row = place.row + t.first_row[place.set];
  const int first_column = place.column + t.first_column;
  for (int p = static_cast<int>(threadIdx.x) % (32 * kProducerWarps); p < positions;
       p += 32 * kProducerWarps) {
    const int at = places[p];
    const int image = place.image + (at >> 20) / t.sources;
    const int phase = (at >> 20) % t.sources;
    const int row = first_row + (at >> 10 & 1023);
    const int column = first_column + (at & 1023);
    const bool inside =
        image < rows.images && row >= 0 && row < rows.rows && column >= 0 && column < rows.columns;
    const uint4* from =
        source +
        (inside ? image * rows.image_rows() +
                      (static_cast<std::int64_t>(phase) * rows.rows + row) * rows.columns + column
                : 0);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      copy_async(target + 16 * (chunk * t.chunk_rows() + p), from + chunk * chunk_rows, inside);
    }
  }
}

/// Fills the slots of the ring, tile by tile and stage by stage.
template <class Config, class Multiplier>
__device__ void produce_rows(const KernelArguments& arguments, const SharedLayout& layout,
                             char* shared) {
  constexpr bool kBulk = Multiplier::kAsync;
  constexpr int kThreads = 32 * kProducerWarps;
  constexpr int kChunks = Config::value.chunks;
  const Tiling& t = arguments.tiling;
  auto* full = reinterpret_cast<PipelineBarrier*>(shared + layout.barriers);
  PipelineBarrier* empty = full + arguments.slots;
  const auto* places = reinterpret_cast<const int*>(shared + layout.places);
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  if (kBulk && thread != 0) return;
  const int tiles = t.tiles();
  RingPosition ring{0, 1};  // all slots are empty at first
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const TilePlace place(t, tile_of<Config>(t, tile));
    const int weight_rows = t.taps_of_set(place.set) * Config::value.tap_rows();
    std::int64_t weight_row = first_weight_row(t, Config::value, place);
    for (int stage = 0; stage < t.stages; ++stage, weight_row += weight_rows) {
      empty[ring.slot].wait(ring.parity);
      char* window = shared + layout.x + ring.slot * layout.x_bytes;
      char* weights = shared + layout.weights + ring.slot * layout.weight_bytes;
      if constexpr (kBulk) {
        copy_rows(window, arguments.x_map, 2 * (place.column + t.first_column),
                  place.row + t.first_row[place.set], place.image,
                  place.group * arguments.rows.chunks + stage * kChunks,
                  16 * kChunks * t.chunk_rows(), full[ring.slot]);
        if constexpr (!Config::value.resident) {
          copy_bulk(weights, static_cast<const uint4*>(arguments.packed) + weight_row,
                    16 * weight_rows, full[ring.slot]);
        }
      } else {
        copy_window<Config>(arguments, place, stage, places, window);
        copy_weights(arguments.packed, weight_row, weight_rows, weights, thread, kThreads);
        copy_async_arrive(full[ring.slot]);
      }
      ring.advance(arguments.slots);
    }
    if (kBulk && arguments.progress != nullptr && Config::value.work == Work::DataGradient) {
      atomicAdd(arguments.progress, 1);
    }
  }
}

}  // namespace tenon::ops::cuda
