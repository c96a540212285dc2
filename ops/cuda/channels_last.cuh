// Walking an image in both memory orders at once: tiles of channels by pixels that are read along
// one and written along the other, through shared memory.
#pragma once

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

inline constexpr int kTile = 32;     // channels and pixels of a tile
inline constexpr int kTileRows = 8;  // rows of a tile that a block handles at once

/// [N, C, H·W] cut into tiles; a block takes one tile of one image.
struct TileGrid {
  std::int64_t images, channels, pixels;
  std::int64_t channel_tiles, pixel_tiles;

  explicit TileGrid(const Shape& shape)
      : images(shape[0]),
        channels(shape[1]),
        pixels(shape[2] * shape[3]),
        channel_tiles((channels + kTile - 1) / kTile),
        pixel_tiles((pixels + kTile - 1) / kTile) {}

  unsigned blocks() const { return static_cast<unsigned>(images * pixel_tiles * channel_tiles); }
  static dim3 threads() { return dim3(kTile, kTileRows); }
};

/// The tile of this block.
struct Tile {
  std::int64_t image, first_channel, first_pixel, pixel_tile;

  __device__ explicit Tile(const TileGrid& grid) {
    // Channel tiles vary fastest: they share the cache lines of channels-last rows.
    const std::int64_t block = blockIdx.x;
    first_channel = block % grid.channel_tiles * kTile;
    pixel_tile = block / grid.channel_tiles % grid.pixel_tiles;
    first_pixel = pixel_tile * kTile;
    image = block / grid.channel_tiles / grid.pixel_tiles;
  }
};

/// target[n, c, p] = function(source[n, p, c], c).
template <class T, class Function>
__global__ void __launch_bounds__(kTile* kTileRows)
    spread_channels_kernel(const T* source, T* target, TileGrid grid, Function function) {
  __shared__ T values[kTile][kTile + 1];
  const Tile tile(grid);
  const int column = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(threadIdx.y);
  const T* from = source + tile.image * grid.pixels * grid.channels;
#pragma unroll
  for (int r = row; r < kTile; r += kTileRows) {
    const std::int64_t pixel = tile.first_pixel + r;
    const std::int64_t channel = tile.first_channel + column;
    if (pixel < grid.pixels && channel < grid.channels) {
      values[r][column] = from[pixel * grid.channels + channel];
    }
  }
  __syncthreads();
  T* to = target + tile.image * grid.pixels * grid.channels;
#pragma unroll
  for (int r = row; r < kTile; r += kTileRows) {
    const std::int64_t channel = tile.first_channel + r;
    const std::int64_t pixel = tile.first_pixel + column;
    if (pixel < grid.pixels && channel < grid.channels) {
      to[channel * grid.pixels + pixel] = function(values[column][r], channel);
    }
  }
}

/// target[n, p, c] = function(source[n, c, p], n, p, c), where every block's results are also
/// summed over its pixels into partial[n, pixel tile, c] unless that is null.
template <class T, class Function>
__global__ void __launch_bounds__(kTile* kTileRows)
    gather_channels_kernel(const T* source, T* target, TileGrid grid, Function function,
                           tenon::cuda::compute_type<T>* partial) {
  using C = tenon::cuda::compute_type<T>;
  __shared__ T values[kTile][kTile + 1];
  __shared__ C sums[kTileRows][kTile];
  const Tile tile(grid);
  const int column = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(threadIdx.y);
  const std::int64_t image = tile.image * grid.pixels * grid.channels;
#pragma unroll
  for (int r = row; r < kTile; r += kTileRows) {
    const std::int64_t channel = tile.first_channel + r;
    const std::int64_t pixel = tile.first_pixel + column;
    if (pixel < grid.pixels && channel < grid.channels) {
      values[r][column] = source[image + channel * grid.pixels + pixel];
    }
  }
  __syncthreads();
  const std::int64_t channel = tile.first_channel + column;
  C sum(0);
#pragma unroll
  for (int r = row; r < kTile; r += kTileRows) {
    const std::int64_t pixel = tile.first_pixel + r;
    if (pixel < grid.pixels && channel < grid.channels) {
      const std::int64_t at = image + pixel * grid.channels + channel;
      const C result = function(values[column][r], at, channel);
      target[at] = tenon::cuda::convert<T>(result);
      sum += result;
    }
  }
  if (partial == nullptr) return;
  sums[row][column] = sum;
  __syncthreads();
  if (row != 0 || channel >= grid.channels) return;
  for (int r = 1; r < kTileRows; ++r) sum += sums[r][column];
  partial[(tile.image * grid.pixel_tiles + tile.pixel_tile) * grid.channels + channel] = sum;
}

}  // namespace tenon::ops::cuda
