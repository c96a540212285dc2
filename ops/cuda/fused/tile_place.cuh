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
  int tile;  // its number

  __device__ TilePlace(const Tiling& t, int tile) : tile(tile) {
    unit = t.by.units.rest(tile);
    set = t.by.sets.rest(unit);
    const int channel_unit = t.by.sets.quotient(unit);
    channel = t.by.channel_tiles.rest(channel_unit) * t.tile.out_channels;
    group = t.by.channel_tiles.quotient(channel_unit);
    int rest = t.by.units.quotient(tile);
    column = t.by.column_tiles.rest(rest) * t.tile.columns;
    rest = t.by.column_tiles.quotient(rest);
    row = t.by.row_tiles.rest(rest) * t.tile.rows;
    image = t.by.row_tiles.quotient(rest) * t.tile.images;
  }
};

/// A block's tile number `index`, of all blocks' together. A data gradient goes through the tiles
/// backwards: what of dy was written last is in the L2 cache still.
template <class Config>
__device__ int tile_of(const Tiling& t, int index) {
  return Config::value.work == Work::DataGradient ? t.tiles() - 1 - index : index;
}

// Whether a tile's place is kept over the products: before sm_90 there are too few registers.
#if __CUDA_ARCH__ >= 900
inline constexpr bool kKeepsPlaces = true;
#else
inline constexpr bool kKeepsPlaces = false;
#endif

/// Where a position lies.
struct PositionPlace {
  int image;
  int row;
  int column;

  /// Of a tile that is not flat, in the tile.
  __device__ PositionPlace(const Tiling& t, int position) {
    const int line = t.by.tile_columns.quotient(position);
    column = t.by.tile_columns.rest(position);
    row = t.by.tile_rows.rest(line);
    image = t.by.tile_rows.quotient(line);
  }

  /// Position `position` of a line of flat tiles, in x and y as a whole.
  __device__ static PositionPlace in_line(const Tiling& t, int position) {
    PositionPlace place;
    const int line = t.by.line_columns.quotient(position);
    place.column = t.by.line_columns.rest(position);
    place.row = t.by.line_rows.rest(line);
    place.image = t.by.line_rows.quotient(line);
    return place;
  }

  /// Position `position` of a tile in y as a whole.
  template <bool kFlat>
  __device__ static PositionPlace of_tile(const Tiling& t, const TilePlace& tile, int position) {
    if constexpr (kFlat) return in_line(t, tile.column + position);
    PositionPlace place(t, position);
    place.column += tile.column;
    place.row += tile.row;
    place.image += tile.image;
    return place;
  }

 private:
  PositionPlace() = default;
};

/// The first window position of a block of 64 positions of the tile.
__device__ inline int first_window_position(const Tiling& t, int block) {
  const int row = 64 * block / t.tile.columns;
  return ((row / t.tile.rows) * t.sources * t.window_rows + row % t.tile.rows) * t.window_columns +
         64 * block % t.tile.columns;
}

}  // namespace tenon::ops::cuda
