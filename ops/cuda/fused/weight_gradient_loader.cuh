// How the weight gradient's operands get to shared memory: rows of 16 bytes,
// [chunk of channels][position], by asynchronous copies, with zeros where a window reaches
// beyond an image.
#pragma once

#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/weight_gradient_rows.h"

namespace tenon::ops::cuda {

// ---- copies ----------------------------------------------------------------------------------

/// Starts a copy of 16 bytes, or writes zeros and reads nothing.
__device__ inline void copy_async_or_zero(std::uint32_t shared, const void* global, bool copy) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(copy ? 16 : 0)
               : "memory");
}
/// Arrives at `barrier` once all copies are there that this thread has started.
__device__ inline void arrive_with_copies(PipelineBarrier& barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier.address())
               : "memory");
}

// ---- places ----------------------------------------------------------------------------------

/// What a block works on: channels, taps and every t.splits-th tile from tile `split` on. So blocks
/// read neighbouring memory at a time, which keeps its pages open and x's halos in the cache.
struct BlockUnit {
  int split;
  int channels;  // index of its channels among channel_units()
  int group;
  int in_tile;
  int out_tile;
  int taps;  // index of its TapUnit

  // Neighbouring blocks walk over the same positions, at the same time if all goes well.
  __device__ BlockUnit(const WeightGradientTiling& t, int index) {
    taps = index % t.tap_units;
    index /= t.tap_units;
    channels = index % t.channel_units();
    split = index / t.channel_units();
    out_tile = channels % t.out_tiles;
    in_tile = channels / t.out_tiles % t.in_tiles;
    group = channels / t.out_tiles / t.in_tiles;
  }
};

/// A tile's first position.
struct TilePosition {
  int image;
  int row;
  int column;

  __device__ TilePosition(const WeightGradientTiling& t, int tile)
      : image(tile / (t.row_tiles * t.column_tiles)),
        row(tile / t.column_tiles % t.row_tiles * t.tile.rows),
        column(tile % t.column_tiles * t.tile.columns) {}

  /// By the tiles that `step`, the place of a tile of that number, stands for.
  __device__ void advance(const WeightGradientTiling& t, const TilePosition& step) {
    const int columns = t.column_tiles * t.tile.columns;
    const int rows = t.row_tiles * t.tile.rows;
    image += step.image;
    row += step.row;
    column += step.column;
    if (column >= columns) {
      column -= columns;
      row += t.tile.rows;
    }
    if (row >= rows) {
      row -= rows;
      ++image;
    }
  }
  /// The same backwards.
  __device__ void retreat(const WeightGradientTiling& t, const TilePosition& step) {
    image -= step.image;
    row -= step.row;
    column -= step.column;
    if (column < 0) {
      column += t.column_tiles * t.tile.columns;
      row -= t.tile.rows;
    }
    if (row < 0) {
      row += t.row_tiles * t.tile.rows;
      --image;
    }
  }
};

// ---- filling ---------------------------------------------------------------------------------

/// Where a position of a tile lies relative to the first: in memory, in rows of 16 bytes, and on
/// the plane, as row << 16 | column.
struct Place {
  int source;
  int on_plane;
};

/// Fills one operand's part of a stage. Lanes copy neighbouring positions to neighbouring rows:
/// wherever a sector's two rows part on their way, the copies take twice as long.
struct OperandLoader {
  static constexpr int kChunks = 4;  // that a thread copies of a position
  static constexpr int kBatch = 4;   // positions that it looks up together

  const OperandSource& operand;
  const Place* places;
  const char* data;  // of the group's and block's first chunk
  int positions;
  int chunks;
  int chunk_stride;     // bytes, in shared memory
  unsigned reciprocal;  // 2^32 / positions, rounded up; there are more than one

  __device__ OperandLoader(const OperandSource& source, const Place* list, int group,
                           int first_chunk, int chunk_count, int position_count, int stride)
      : operand(source),
        places(list),
        data(source.chunk(group, first_chunk)),
        positions(position_count),
        chunks(chunk_count),
        chunk_stride(stride),
        reciprocal(0xffffffffU / position_count + 1) {}

  /// Starts the copies of the tile whose first position is (row, column) of `image`, to `shared`,
  /// those of number `item` and every kThreads-th from there on; returns the next number.
  template <int kThreads>
  __device__ int load(std::uint32_t shared, int image, int row, int column, int item) const {
    const char* base = data + image * operand.image_bytes +
                       16 * (static_cast<std::int64_t>(row) * operand.width + column);
    if (chunks % kChunks == 0) return load_all<kThreads, true>(shared, base, row, column, item);
    return load_all<kThreads, false>(shared, base, row, column, item);
  }

 private:
  /// kWhole: all chunks of an item exist.
  template <int kThreads, bool kWhole>
  __device__ int load_all(std::uint32_t shared, const char* base, int row, int column,
                          int item) const {
    const int items = (chunks + kChunks - 1) / kChunks * positions;
    for (int first = item; first < items; first += kBatch * kThreads) {
      // All at once, so that a read of one hides behind the others'.
      int group[kBatch];
      int position[kBatch];
      Place place[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int number = min(first + i * kThreads, items - 1);
        group[i] = static_cast<int>(__umulhi(number, reciprocal));
        position[i] = number - group[i] * positions;
        place[i] = places[position[i]];
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (first + i * kThreads >= items) break;
        const bool inside = static_cast<unsigned>(row + (place[i].on_plane >> 16)) <
                                static_cast<unsigned>(operand.height) &&
                            static_cast<unsigned>(column + (place[i].on_plane & 0xffff)) <
                                static_cast<unsigned>(operand.width);
        int source = place[i].source + group[i] * kChunks * operand.chunk_rows;
        std::uint32_t target = shared + group[i] * kChunks * chunk_stride + 16 * position[i];
#pragma unroll
        for (int c = 0; c < kChunks; ++c) {
          if (kWhole || group[i] * kChunks + c < chunks) {
            copy_async_or_zero(target, base + 16 * static_cast<std::int64_t>(source), inside);
          }
          source += operand.chunk_rows;
          target += chunk_stride;
        }
      }
    }
    if (item < items) item += (items - item + kThreads - 1) / kThreads * kThreads;
    return item - items;
  }
};

/// Chunks that tile `tile` of `tile_channels` has of `channels`.
template <class Operand>
__device__ int chunks_of(int channels, int tile, int tile_channels) {
  constexpr int kRow = OperandTraits<Operand>::kRow;
  return (min(channels - tile * tile_channels, tile_channels) + kRow - 1) / kRow;
}

/// Lists the places of a unit's window of x, then those of its phases of dy.
__device__ inline void list_places(const WeightGradientArguments& arguments, const TapUnit& unit,
                                   Place* places) {
  const WeightGradientTiling& t = arguments.tiling;
  const int window = t.window_positions();
  const int count = window + unit.slots * t.positions();
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    if (i < window) {
      const int row = i / t.window_columns;
      const int column = i % t.window_columns;
      places[i] = {row * arguments.x.width + column, row << 16 | column};
    } else {
      const int phase = t.phases[unit.first_slot + (i - window) / t.positions()];
      const int row = (i - window) / t.tile.columns % t.tile.rows;
      const int column = (i - window) % t.tile.columns;
      places[i] = {(phase * arguments.dy.height + row) * arguments.dy.width + column,
                   row << 16 | column};
    }
  }
}

}  // namespace tenon::ops::cuda
