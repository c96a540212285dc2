// Where tiles, and positions of a tile, lie.
#pragma once

#include "tenon/ops/cuda/fused/kernel_config.h"

namespace tenon::ops::cuda {

/// Where a tile lies.
struct TilePlace {
  int image;
  int row;  // of q
  int column;
  int set;
  int channel;  // of the group's output channels
  int group;
  int unit;

  __device__ TilePlace(const Tiling& t, int tile) {
    unit = tile % t.units();
    set = unit % t.sets;
    channel = unit / t.sets % t.channel_tiles * t.tile.out_channels;
    group = unit / t.sets / t.channel_tiles;
    int rest = tile / t.units();
    column = rest % t.column_tiles * t.tile.columns;
    rest /= t.column_tiles;
    row = rest % t.row_tiles * t.tile.rows;
    image = rest / t.row_tiles * t.tile.images;
  }
};

/// Where a position of the tile lies.
struct PositionPlace {
  int image;
  int row;
  int column;

  __device__ PositionPlace(const Tiling& t, int position) {
    const int line = position / t.tile.columns;
    column = position % t.tile.columns;
    row = line % t.tile.rows;
    image = line / t.tile.rows;
  }
};

/// The first window position of a block of 64 positions of the tile.
__device__ inline int first_window_position(const Tiling& t, int block) {
  const int row = 64 * block / t.tile.columns;
  return ((row / t.tile.rows) * t.window_rows + row % t.tile.rows) * t.window_columns +
         64 * block % t.tile.columns;
}

}  // namespace tenon::ops::cuda
