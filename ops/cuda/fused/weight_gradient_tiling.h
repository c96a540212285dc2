// How the weight's gradient is cut into blocks and warps: plain numbers, made on the host once a
// call and read by the kernels as a parameter.
//
// dW[ci, co, tap] is a sum over the positions q of a phase, of which every tap has one
// (ops/fused/phases.h): x[ci, q + shift(tap)]·dy[co, phase(tap), q]. A warp sums one tap for a tile
// of ci x co, which stays in its registers. The warps of a block are the taps of a *tap unit*, for
// each of them `out_warps` tiles of co side by side and `parts` that share the positions; the block
// walks over a share of the tiles of positions, and all *splits* of these shares are added up in
// the end. Of a batch in slices they are added up behind the last: with each slice a block goes on
// from its sums of the one before.
#pragma once

#include <cstdint>

#include "tenon/ops/fused/tiling.h"

namespace tenon::ops::cuda {

/// What a kernel is compiled for.
struct WeightGradientConfig {
  int m_tiles;    ///< of 16 input channels, that a warp sums for: 2 or 4
  int n_tiles;    ///< of 8 output channels
  int consumers;  ///< warps of a block that multiply, at most
  int producers;  ///< warps that fill shared memory
  bool split;     ///< float32 accuracy by three products of TF32 heads and tails
  /// With products of warpgroups on sm_90, of planes of x (weight_gradient_sm90_planes.cu): those
  /// that multiply, beside one that copies. Each has the taps of up to two runs, of at most so
  /// many; `consumers` are all of these.
  int warpgroups = 0;
  int first_run = 0;
  int second_run = 0;

  constexpr int in_channels() const { return 16 * m_tiles; }
  constexpr int out_channels() const { return 8 * n_tiles; }
  constexpr int threads() const {
    return warpgroups > 0 ? 128 * (warpgroups + 1) : 32 * (consumers + producers);
  }
};

/// Of the ring of tiles in shared memory.
inline constexpr int kMostStages = 4;

/// What a kernel is launched with.
struct WeightGradientTile {
  int rows;     ///< of q
  int columns;  ///< 8, or a multiple of 16 that is a power of 2
  int stages;   ///< 2 to kMostStages
  int out_warps;
  int parts;
};

/// Taps that are summed together, the phases that they take from dy, and where the window of x
/// begins that they read, relative to the tile's first q. With warpgroups a tile is of q's rows and
/// x's columns, so that windows are of x's rows and dy's columns.
struct TapUnit {
  int first_tap;
  int taps;
  int first_slot;
  int slots;
  int first_row;
  int first_column;
};

/// A tap as a warp of its unit needs it.
struct UnitTap {
  int window;  ///< window row · window columns + window column; with warpgroups the window row
  int dy;      ///< the first position of dy of its phase, with warpgroups that it reads
  int kernel;  ///< kernel row · kernel columns + kernel column
};

/// Taps of a unit, with warpgroups, that read the same of dy, and rows of x one behind the other.
struct TapRun {
  int first_tap;
  int taps;
};

struct WeightGradientTiling {
  TransposedShape shape;
  WeightGradientTile tile;
  TapUnit units[kMostTaps];
  UnitTap taps[kMostTaps];
  TapRun runs[2 * kMostTaps];  ///< with warpgroups: two of each, of one unit after another
  int phases[kMostTaps];       ///< of the units' slots, one unit after another
  int tap_units;
  int tap_count;
  int most_taps;  ///< of a unit
  int in_tiles;   ///< of one group's input channels
  int out_tiles;
  int in_channels;   ///< of a tile
  int out_channels;  ///< of a tile: of all `out_warps`
  int row_tiles;     ///< that an image has along rows of q
  int column_tiles;
  int window_rows;  ///< of x, for the widest unit
  int window_columns;
  int line_bytes;  ///< of a channel's columns of x in a tile; with warpgroups
  int most_slots;
  int x_chunk_rows;  ///< rows of 16 bytes from one chunk to the next in shared memory
  int dy_chunk_rows;
  int m_tile_bytes;   ///< of x in shared memory, from 16 channels to the next
  int two_dy_chunks;  ///< bytes from a chunk to the next but one
  int dy_chunks;      ///< that a tile has; with warpgroups
  int x_bytes;        ///< of a stage
  int dy_bytes;
  int x_read_bytes;  ///< the same with all chunks of a tile, be they there or not
  int dy_read_bytes;
  int splits;
  // How a warp steps through a tile: step s begins at window position
  // (s >> step_shift)·step_row + (s & step_mask)·(positions of a step).
  int steps;
  int step_shift;
  int step_mask;
  int step_row;
  int second;  ///< with steps of 16 positions: from the first 8 to the others, in the window

  TENON_HOST_DEVICE int channel_units() const { return shape.groups * in_tiles * out_tiles; }
  TENON_HOST_DEVICE int blocks() const { return channel_units() * tap_units * splits; }
  TENON_HOST_DEVICE int consumers() const { return most_taps * tile.out_warps * tile.parts; }
  TENON_HOST_DEVICE int threads(const WeightGradientConfig& config) const {
    if (config.warpgroups > 0) return config.threads();
    return 32 * (consumers() + config.producers);
  }
  TENON_HOST_DEVICE int tiles() const { return shape.images * row_tiles * column_tiles; }
  TENON_HOST_DEVICE int positions() const { return tile.rows * tile.columns; }
  TENON_HOST_DEVICE int window_positions() const { return window_rows * window_columns; }

  /// Bytes that a stage takes, and where dy begins in it.
  TENON_HOST_DEVICE int dy_offset() const { return x_bytes; }
  TENON_HOST_DEVICE int stage_bytes() const { return x_bytes + dy_bytes; }
  /// The barriers and the lists of places (weight_gradient.cuh) come first in shared memory; with
  /// warpgroups the former alone.
  static constexpr int kBarrierBytes = 16 * kMostStages;
  static constexpr int kPlanesOffset = 1024;
  TENON_HOST_DEVICE int ring_offset() const {
    return (kBarrierBytes + 8 * (window_positions() + most_slots * positions()) + 127) / 128 * 128;
  }
  /// Warps read all chunks of their tiles, of which those that exist are filled.
  TENON_HOST_DEVICE int shared_bytes() const {
    const int dy_end = dy_offset() + dy_read_bytes;
    const int last = x_read_bytes > dy_end ? x_read_bytes : dy_end;
    return (line_bytes > 0 ? kPlanesOffset : ring_offset()) + (tile.stages - 1) * stage_bytes() +
           last;
  }

  /// Floats of the workspace: [split][unit of channels][tap][ci of the tile][co of the tile].
  TENON_HOST_DEVICE std::int64_t tap_floats() const {
    return static_cast<std::int64_t>(in_channels) * out_channels;
  }
  TENON_HOST_DEVICE std::int64_t split_floats() const {
    return tap_floats() * tap_count * channel_units();
  }
};

}  // namespace tenon::ops::cuda
