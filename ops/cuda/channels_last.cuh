// Changing the memory order of images: matrices [rows, columns] of one image become [columns,
// rows], tile by tile through shared memory, so that both sides are accessed in whole lines.
// [pixels, channels] is an image in channels-last memory, [channels, pixels] a contiguous one.
#pragma once

#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

inline constexpr int kTile = 64;  // rows and columns of a tile
inline constexpr int kTileThreads = 256;

/// Images of matrices [rows, columns] cut into tiles; a block takes one tile of one image.
struct TileGrid {
  std::int64_t images, rows, columns;
  std::int64_t row_tiles, column_tiles;

  TileGrid(std::int64_t image_count, std::int64_t row_count, std::int64_t column_count)
      : images(image_count),
        rows(row_count),
        columns(column_count),
        row_tiles((rows + kTile - 1) / kTile),
        column_tiles((columns + kTile - 1) / kTile) {}

  /// True when rows and columns are whole packs of `count`.
  bool packs(int count) const { return rows % count == 0 && columns % count == 0; }
  unsigned blocks() const { return static_cast<unsigned>(images * row_tiles * column_tiles); }
};

/// The tile of this block, and this thread's part of it: packs of kPack neighbours.
template <int kPack>
struct Tile {
  static constexpr int kLine = kTile / kPack;          // threads along a line
  static constexpr int kLines = kTileThreads / kLine;  // lines handled at once

  std::int64_t image, row_tile, first_row, first_column;
  int along, line;  // this thread's first element along its line, and its first line

  __device__ explicit Tile(const TileGrid& grid)
      : along(static_cast<int>(threadIdx.x) % kLine * kPack),
        line(static_cast<int>(threadIdx.x) / kLine) {
    const std::int64_t block = blockIdx.x;
    first_column = block % grid.column_tiles * kTile;
    row_tile = block / grid.column_tiles % grid.row_tiles;
    first_row = row_tile * kTile;
    image = block / grid.column_tiles / grid.row_tiles;
  }
};

/// A tile in shared memory, by columns; the odd line length spreads columns over the banks.
template <class T>
using TileValues = T[kTile][kTile + 1];

/// Loads the tile's rows; element (row, column) goes to values[column][row].
template <class T, int kPack>
__device__ void load_tile(const T* source, const TileGrid& grid, const Tile<kPack>& tile,
                          TileValues<T>& values) {
  using tenon::cuda::Pack;
  const std::int64_t column = tile.first_column + tile.along;
  const T* from = source + tile.image * grid.rows * grid.columns + column;
#pragma unroll
  for (int r = tile.line; r < kTile; r += Tile<kPack>::kLines) {
    const std::int64_t row = tile.first_row + r;
    if (row >= grid.rows || column >= grid.columns) continue;
    const auto pack = *reinterpret_cast<const Pack<T, kPack>*>(from + row * grid.columns);
#pragma unroll
    for (int i = 0; i < kPack; ++i) values[tile.along + i][r] = pack.values[i];
  }
  __syncthreads();
}

/// target[image, column, row] = function(source[image, row, column], row, column).
template <class T, int kPack, class Function>
__global__ void __launch_bounds__(kTileThreads)
    transpose_kernel(const T* source, T* target, TileGrid grid, Function function) {
  using tenon::cuda::Pack;
  __shared__ TileValues<T> values;
  const Tile<kPack> tile(grid);
  load_tile<T, kPack>(source, grid, tile, values);
  const std::int64_t row = tile.first_row + tile.along;
  T* to = target + tile.image * grid.rows * grid.columns + row;
#pragma unroll
  for (int c = tile.line; c < kTile; c += Tile<kPack>::kLines) {
    const std::int64_t column = tile.first_column + c;
    if (row >= grid.rows || column >= grid.columns) continue;
    Pack<T, kPack> pack;
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      pack.values[i] = function(values[c][tile.along + i], row + i, column);
    }
    *reinterpret_cast<Pack<T, kPack>*>(to + column * grid.rows) = pack;
  }
}

/// True when `data` can be accessed 16 bytes at a time.
inline bool is_aligned(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

template <class T, class Function>
void launch_transpose(const T* source, T* target, const TileGrid& grid, const Function& function,
                      Device device) {
  constexpr int kPack = static_cast<int>(16 / sizeof(T));
  const cudaStream_t stream = tenon::cuda::current_stream(device);
  if (grid.packs(kPack) && is_aligned(source) && is_aligned(target)) {
    transpose_kernel<T, kPack>
        <<<grid.blocks(), kTileThreads, 0, stream>>>(source, target, grid, function);
  } else {
    transpose_kernel<T, 1>
        <<<grid.blocks(), kTileThreads, 0, stream>>>(source, target, grid, function);
  }
  TENON_CUDA_CHECK(cudaGetLastError());
}

}  // namespace tenon::ops::cuda
