// The weight gradient's kernel: see weight_gradient_tiling.h for what blocks and warps do.
//
// All threads fill a ring of tiles in shared memory by asynchronous copies of rows of 16 bytes,
// [half][chunk of channels][position], zeros where a window reaches beyond an image. A tap is an
// offset in the window of x, no more, so that the same code serves every geometry. Positions are
// what is summed over: fragments of the tensor cores are read from rows across, four channels of a
// position at a time in TF32, by transposing loads in 16 bits.
#pragma once

#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/weight_gradient_rows.h"

namespace tenon::ops::cuda {

template <int kMTiles, int kNTiles, int kWarps, bool kSplit>
struct StaticWeightGradientConfig {
  static constexpr WeightGradientConfig value{kMTiles, kNTiles, kWarps, kSplit};
};

// ---- instructions ----------------------------------------------------------------------------

/// Starts a copy of 16 bytes, or writes zeros and reads nothing.
__device__ inline void copy_async_or_zero(std::uint32_t shared, const void* global, bool copy) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(copy ? 16 : 0)
               : "memory");
}
/// Ends a group of copies that this thread started, which may be empty.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `pending` of this thread's groups are under way: 0, 1 or 2.
__device__ inline void copy_async_wait_but(int pending) {
  if (pending >= 2) {
    asm volatile("cp.async.wait_group 2;" ::: "memory");
  } else if (pending == 1) {
    asm volatile("cp.async.wait_group 1;" ::: "memory");
  } else {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
  }
}

/// The row of 16 bytes at `address`.
__device__ inline void load_row(std::uint32_t (&row)[4], std::uint32_t address) {
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(row[0]), "=r"(row[1]), "=r"(row[2]), "=r"(row[3])
               : "r"(address)
               : "memory");
}
/// Four matrices of 8 rows as `load_matrices` reads them, each transposed.
__device__ inline void load_transposed(std::uint32_t (&fragment)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}

// ---- places ----------------------------------------------------------------------------------

/// What a block works on: channels, taps and tiles [begin, end).
struct BlockUnit {
  int split;
  int channels;  // index of its channels among channel_units()
  int group;
  int in_tile;
  int out_tile;
  int taps;  // index of its TapUnit
  int begin;
  int end;

  // Neighbouring blocks walk over the same positions, at the same time if all goes well.
  __device__ explicit BlockUnit(const WeightGradientTiling& t) {
    int index = static_cast<int>(blockIdx.x);
    taps = index % t.tap_units;
    index /= t.tap_units;
    channels = index % t.channel_units();
    split = index / t.channel_units();
    out_tile = channels % t.out_tiles;
    in_tile = channels / t.out_tiles % t.in_tiles;
    group = channels / t.out_tiles / t.in_tiles;
    const std::int64_t tiles = t.tiles();
    begin = static_cast<int>(tiles * split / t.splits);
    end = static_cast<int>(tiles * (split + 1) / t.splits);
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

  __device__ void advance(const WeightGradientTiling& t) {
    column += t.tile.columns;
    if (column < t.column_tiles * t.tile.columns) return;
    column = 0;
    row += t.tile.rows;
    if (row < t.row_tiles * t.tile.rows) return;
    row = 0;
    ++image;
  }
};

/// Where a row of a tile's chunk lies relative to the tile's first: in memory, in rows of 16 bytes,
/// and on the plane, as row << 16 | column.
struct Place {
  int offset;
  int on_plane;
};

// ---- filling ---------------------------------------------------------------------------------

/// Fills one operand's part of a stage; this thread takes every threads-th row.
class OperandLoader {
 public:
  /// `positions` rows of each of `chunks` chunks (twice that many with tails), whose places are at
  /// `places`, from the chunk `first_chunk` of `group` on.
  __device__ OperandLoader(const OperandSource& source, int group, int first_chunk, int chunks,
                           const Place* places, int positions)
      : source_(source),
        places_(places),
        data_(source.data + group * source.group_bytes + first_chunk * source.chunk_bytes),
        chunks_(chunks),
        positions_(positions) {
    const int thread = static_cast<int>(threadIdx.x);
    const int threads = static_cast<int>(blockDim.x);
    first_chunk_ = thread / positions;
    first_position_ = thread % positions;
    chunk_step_ = threads / positions;
    position_step_ = threads % positions;
  }

  /// Starts the copies of the tile whose window begins at (row, column) of `image`, to `shared`.
  __device__ void load(std::uint32_t shared, int image, int row, int column) const {
    const char* data = data_ + image * source_.image_bytes +
                       16 * (static_cast<std::int64_t>(row) * source_.width + column);
    for (int half = 0; half < source_.halves; ++half) {
      load_half(shared, data, row, column);
      data += source_.half_bytes;
      shared += chunks_ * source_.shared_chunk_bytes;
    }
  }

 private:
  __device__ void load_half(std::uint32_t shared, const char* data, int row, int column) const {
    int position = first_position_;
    for (int chunk = first_chunk_; chunk < chunks_;) {
      const Place place = places_[position];
      const bool inside = static_cast<unsigned>(row + (place.on_plane >> 16)) <
                              static_cast<unsigned>(source_.height) &&
                          static_cast<unsigned>(column + (place.on_plane & 0xffff)) <
                              static_cast<unsigned>(source_.width);
      const char* from =
          data + chunk * source_.chunk_bytes + 16 * static_cast<std::int64_t>(place.offset);
      copy_async_or_zero(shared + chunk * source_.shared_chunk_bytes + 16 * position,
                         inside ? from : source_.data, inside);
      chunk += chunk_step_;
      position += position_step_;
      if (position >= positions_) {
        position -= positions_;
        ++chunk;
      }
    }
  }

  const OperandSource& source_;
  const Place* places_;
  const char* data_;
  int chunks_;
  int positions_;
  int first_chunk_;
  int first_position_;
  int chunk_step_;
  int position_step_;
};

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
      const int slot = (i - window) / t.positions();
      const int row = (i - window) / t.tile.columns % t.tile.rows;
      const int column = (i - window) % t.tile.columns;
      const int phase = t.phases[unit.first_slot + slot];
      places[i] = {(phase * arguments.dy.height + row) * arguments.dy.width + column,
                   row << 16 | column};
    }
  }
}

// ---- products --------------------------------------------------------------------------------

/// Of a warp: [m-tile][n-tile] as by `multiply`. Which channels these are: store_sums.
template <class Config>
using TileSums = float[Config::value.m_tiles][Config::value.n_tiles][4];

/// What lanes read of both operands for one step, and what they make of it. The x of a step comes
/// in kPieces pieces, which feed some of the m-tiles each. Offsets are a lane's, of the rows that it
/// names or reads; beyond the last chunk these are the last one's: what becomes of it is not stored.
///
/// 16 positions in 16 bits: the first 8 and the second 8 are consecutive. Lane 8i + r names row r of
/// matrix i: 8 channels of the first 8 positions, the next 8 channels, then both for the others.
template <class Operand, class Config>
struct Step {
  static constexpr int kPositions = 16;
  static constexpr int kPieces = Config::value.m_tiles;
  static constexpr int kPairs = Config::value.n_tiles / 2;
  using XPiece = std::uint32_t[4];
  using Dy = std::uint32_t[kPairs][4];

  std::uint32_t x_offset[kPieces];
  std::uint32_t dy_offset[kPairs];

  __device__ Step(int x_chunks, int x_chunk_rows, int dy_chunks, int dy_chunk_rows, int second) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int chunk = lane / 8 % 2;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      x_offset[i] = 16 * (min(2 * i + chunk, x_chunks - 1) * x_chunk_rows + lane % 8 +
                          lane / 16 * second);
    }
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      dy_offset[i] =
          16 * (min(2 * i + chunk, dy_chunks - 1) * dy_chunk_rows + lane % 8 + lane / 16 * 8);
    }
  }

  __device__ void load_x(XPiece& x, int piece, std::uint32_t address) const {
    load_transposed(x, address + x_offset[piece]);
  }
  __device__ void load_dy(Dy& dy, std::uint32_t address) const {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) load_transposed(dy[i], address + dy_offset[i]);
  }
  __device__ static void multiply_piece(const XPiece& x, int piece, const Dy& dy,
                                        TileSums<Config>& sums) {
#pragma unroll
    for (int j = 0; j < Config::value.n_tiles; ++j) {
      multiply<Operand>(sums[piece][j], x, dy[j / 2][j % 2], dy[j / 2][j % 2 + 2]);
    }
  }
};

/// 8 consecutive positions in TF32. A lane reads whole rows of one chunk at two positions, four
/// channels each: of x those are rows lane/4 and lane/4 + 8 of two m-tiles, of dy column lane/4 of
/// four n-tiles.
template <class Config>
struct Step<Tf32, Config> {
  static constexpr int kPositions = 8;
  static constexpr int kPieces = Config::value.m_tiles / 2;
  static constexpr int kRows = Config::value.n_tiles / 4;
  using XPiece = std::uint32_t[2][4];
  using Dy = std::uint32_t[kRows][2][4];

  std::uint32_t x_offset[kPieces];
  std::uint32_t dy_offset[kRows];

  __device__ Step(int x_chunks, int x_chunk_rows, int dy_chunks, int dy_chunk_rows,
                  int /*second*/) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      x_offset[i] = 16 * (min(lane / 4 + 8 * i, x_chunks - 1) * x_chunk_rows + lane % 4);
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      dy_offset[i] = 16 * (min(lane / 4 + 8 * i, dy_chunks - 1) * dy_chunk_rows + lane % 4);
    }
  }

  __device__ void load_x(XPiece& x, int piece, std::uint32_t address) const {
    load_row(x[0], address + x_offset[piece]);
    load_row(x[1], address + x_offset[piece] + 64);
  }
  __device__ void load_dy(Dy& dy, std::uint32_t address) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      load_row(dy[i][0], address + dy_offset[i]);
      load_row(dy[i][1], address + dy_offset[i] + 64);
    }
  }
  __device__ static void multiply_piece(const XPiece& x, int piece, const Dy& dy,
                                        TileSums<Config>& sums) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t a[4] = {x[0][i], x[0][i + 2], x[1][i], x[1][i + 2]};
#pragma unroll
      for (int j = 0; j < Config::value.n_tiles; ++j) {
        multiply<Tf32>(sums[2 * piece + i][j], a, dy[j / 4][0][j % 4], dy[j / 4][1][j % 4]);
      }
    }
  }
};

/// The part of a warp in a block: which tap and co it sums for, and how it steps through tiles.
struct WarpRole {
  int tap;       // within the unit
  int out_warp;  // tile of co within the block's
  int part;

  __device__ explicit WarpRole(const WeightGradientTiling& t) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    tap = warp % t.most_taps;
    out_warp = warp / t.most_taps % t.tile.out_warps;
    part = warp / t.most_taps / t.tile.out_warps;
  }
};

/// Adds a tile's products of one tap to a warp's sums.
template <class Operand, class Config>
class TapMultiplier {
  using OneStep = Step<Operand, Config>;
  using XPiece = typename OneStep::XPiece;
  using Dy = typename OneStep::Dy;
  static constexpr int kPieces = OneStep::kPieces;

 public:
  __device__ TapMultiplier(const WeightGradientTiling& t, const UnitTap& tap, const WarpRole& role,
                           int x_chunks, int dy_chunks)
      : t_(t),
        first_step_(role.part),
        x_(16 * tap.window),
        dy_(16 * (tap.slot * t.positions() + first_chunk(role) * t.dy_chunk_rows())),
        x_tail_(16 * x_chunks * t.x_chunk_rows()),
        dy_tail_(16 * dy_chunks * t.dy_chunk_rows()),
        step_(x_chunks, t.x_chunk_rows(), dy_chunks - first_chunk(role), t.dy_chunk_rows(),
              t.second) {}

  __device__ static int first_chunk(const WarpRole& role) {
    return role.out_warp * (Config::value.out_channels() / OperandTraits<Operand>::kRow);
  }

  /// Of the tile whose x and dy are at these addresses.
  __device__ void add(std::uint32_t x, std::uint32_t dy, TileSums<Config>& sums) const {
    if constexpr (Config::value.n_tiles == 8) {
      add_ahead(x, dy, sums);
    } else {
#pragma unroll 2
      for (int step = first_step_; step < t_.steps; step += t_.tile.parts) {
        if constexpr (Config::value.split) {
          add_split(x + x_at(step), dy + dy_at(step), sums);
        } else {
          add_step(x + x_at(step), dy + dy_at(step), sums);
        }
      }
    }
  }

 private:
  __device__ std::uint32_t x_at(int step) const {
    return x_ + 16 * ((step >> t_.step_shift) * t_.step_row +
                      (step & t_.step_mask) * OneStep::kPositions);
  }
  __device__ std::uint32_t dy_at(int step) const { return dy_ + 16 * OneStep::kPositions * step; }

  __device__ void add_step(std::uint32_t x, std::uint32_t dy, TileSums<Config>& sums) const {
    Dy of_dy;
    step_.load_dy(of_dy, dy);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      XPiece of_x;
      step_.load_x(of_x, i, x);
      step_.multiply_piece(of_x, i, of_dy, sums);
    }
  }

  /// Reads a step ahead: few warps with large tiles do not hide their reads behind each other.
  __device__ void add_ahead(std::uint32_t x, std::uint32_t dy, TileSums<Config>& sums) const {
    if (first_step_ >= t_.steps) return;
    XPiece of_x[2][kPieces];
    Dy of_dy[2];
    load_step(of_x[0], of_dy[0], x, dy, first_step_);
    for (int step = first_step_; step < t_.steps; step += 2 * t_.tile.parts) {
#pragma unroll
      for (int turn = 0; turn < 2; ++turn) {
        const int following = step + (turn + 1) * t_.tile.parts;
        if (following < t_.steps) load_step(of_x[1 - turn], of_dy[1 - turn], x, dy, following);
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
          step_.multiply_piece(of_x[turn][i], i, of_dy[turn], sums);
        }
        if (following >= t_.steps) break;
      }
    }
  }
  __device__ void load_step(XPiece (&of_x)[kPieces], Dy& of_dy, std::uint32_t x, std::uint32_t dy,
                            int step) const {
    step_.load_dy(of_dy, dy + dy_at(step));
#pragma unroll
    for (int i = 0; i < kPieces; ++i) step_.load_x(of_x[i], i, x + x_at(step));
  }

  /// The small products first.
  __device__ void add_split(std::uint32_t x, std::uint32_t dy, TileSums<Config>& sums) const {
    Dy heads;
    Dy tails;
    step_.load_dy(heads, dy);
    step_.load_dy(tails, dy + dy_tail_);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      XPiece head;
      XPiece tail;
      step_.load_x(head, i, x);
      step_.load_x(tail, i, x + x_tail_);
      step_.multiply_piece(tail, i, heads, sums);
      step_.multiply_piece(head, i, tails, sums);
      step_.multiply_piece(head, i, heads, sums);
    }
  }

  const WeightGradientTiling& t_;
  int first_step_;
  std::uint32_t x_;
  std::uint32_t dy_;
  std::uint32_t x_tail_;
  std::uint32_t dy_tail_;
  OneStep step_;
};

template <class Config>
__device__ void clear_sums(TileSums<Config>& sums) {
#pragma unroll
  for (int i = 0; i < Config::value.m_tiles; ++i) {
#pragma unroll
    for (int j = 0; j < Config::value.n_tiles; ++j) {
#pragma unroll
      for (int k = 0; k < 4; ++k) sums[i][j][k] = 0.0f;
    }
  }
}

/// totals += sums.
template <class Config>
__device__ void add_sums(const TileSums<Config>& sums, TileSums<Config>& totals) {
#pragma unroll
  for (int i = 0; i < Config::value.m_tiles; ++i) {
#pragma unroll
    for (int j = 0; j < Config::value.n_tiles; ++j) {
#pragma unroll
      for (int k = 0; k < 4; ++k) totals[i][j][k] += sums[i][j][k];
    }
  }
}

/// Adds the sums of the parts beyond the first to those of the first, one part after the other,
/// through shared memory, which nothing else uses any more.
template <class Config>
__device__ void join_parts(float* shared, const WarpRole& role, int parts, int warps,
                           TileSums<Config>& sums) {
  constexpr int kSums = 4 * Config::value.m_tiles * Config::value.n_tiles;
  const int warp = static_cast<int>(threadIdx.x) / 32 % warps;
  float* own = shared + warp * kSums * 32 + threadIdx.x % 32;
  for (int part = 1; part < parts; ++part) {
    __syncthreads();
    if (role.part == part) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        own[32 * i] = sums[i / 4 / Config::value.n_tiles][i / 4 % Config::value.n_tiles][i % 4];
      }
    }
    __syncthreads();
    if (role.part == 0) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        sums[i / 4 / Config::value.n_tiles][i / 4 % Config::value.n_tiles][i % 4] += own[32 * i];
      }
    }
  }
}

/// Writes a warp's sums to `target`, [ci][co] with rows of `stride`, of which the first `channels`
/// rows exist.
template <class Operand, class Config>
__device__ void store_sums(const TileSums<Config>& sums, float* target, int stride, int channels) {
  constexpr int kMTiles = Config::value.m_tiles;
  constexpr int kNTiles = Config::value.n_tiles;
  const int row = static_cast<int>(threadIdx.x) % 32 / 4;
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < kMTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if constexpr (std::is_same_v<Operand, Tf32>) {
        const int ci = 4 * (row + i / 2 * 8) + i % 2 + 2 * half;
        if (ci >= channels) continue;
#pragma unroll
        for (int j = 0; j < kNTiles; j += 4) {
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) {
            const int k = 2 * half + odd;
            *reinterpret_cast<float4*>(target + ci * stride + 4 * (column + odd) + 8 * j) =
                make_float4(sums[i][j][k], sums[i][j + 1][k], sums[i][j + 2][k],
                            sums[i][j + 3][k]);
          }
        }
      } else {
        const int ci = 16 * i + 8 * half + row;
        if (ci >= channels) continue;
#pragma unroll
        for (int j = 0; j < kNTiles; ++j) {
          *reinterpret_cast<float2*>(target + ci * stride + 8 * j + column) =
              make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
        }
      }
    }
  }
}

// ---- kernel ----------------------------------------------------------------------------------

/// Runs by t.blocks() blocks of t.threads() threads with t.shared_bytes() of dynamic shared memory.
template <class Operand, class Config>
__global__ void __launch_bounds__(Config::value.threads(), 1)
    weight_gradient_kernel(const tenon::cuda::PreviousKernel previous,
                           const __grid_constant__ WeightGradientArguments arguments) {
  constexpr WeightGradientConfig kConfig = Config::value;
  constexpr int kRow = OperandTraits<Operand>::kRow;
  // Steps whose products at float32 accuracy are summed before they join the totals: the tensor
  // cores cut digits off at every sum, so that long sums drift.
  constexpr int kStepsOfSum = 16;
  extern __shared__ __align__(128) char shared[];
  const WeightGradientTiling& t = arguments.tiling;
  const BlockUnit block(t);
  const TapUnit& unit = t.units[block.taps];
  auto* places = reinterpret_cast<Place*>(shared);
  list_places(arguments, unit, places);
  __syncthreads();
  previous.wait();

  const auto chunks_from = [](int channels, int first) {
    return (channels + kRow - 1) / kRow - first;
  };
  const int first_x = block.in_tile * (t.in_channels / kRow);
  const int first_dy = block.out_tile * (t.out_channels / kRow);
  const int x_chunks = min(t.x_chunks, chunks_from(t.shape.in_channels, first_x));
  const int dy_chunks = min(t.dy_chunks, chunks_from(t.shape.out_channels, first_dy));
  const OperandLoader x_loader(arguments.x, block.group, first_x, x_chunks, places,
                               t.window_positions());
  const OperandLoader dy_loader(arguments.dy, block.group, first_dy, dy_chunks,
                                places + t.window_positions(), unit.slots * t.positions());
  const std::uint32_t ring = shared_address(shared) + t.places_bytes();
  const int stage_bytes = t.stage_bytes(kConfig.halves());
  const int dy_offset = t.dy_offset(kConfig.halves());
  const int stages = t.tile.stages;
  TilePosition ahead(t, block.begin);
  int next = block.begin;  // the tile at `ahead`
  const auto load = [&](int slot) {
    if (next < block.end) {
      const std::uint32_t at = ring + slot * stage_bytes;
      x_loader.load(at, ahead.image, ahead.row + unit.first_row, ahead.column + unit.first_column);
      dy_loader.load(at + dy_offset, ahead.image, ahead.row, ahead.column);
      ahead.advance(t);
      ++next;
    }
    copy_async_commit();
  };

  const WarpRole role(t);
  const int own_chunks = dy_chunks - TapMultiplier<Operand, Config>::first_chunk(role);
  const bool active = role.tap < unit.taps && own_chunks > 0;
  const TapMultiplier<Operand, Config> multiplier(
      t, t.taps[unit.first_tap + (active ? role.tap : 0)], role, x_chunks, dy_chunks);
  TileSums<Config> sums;
  [[maybe_unused]] TileSums<Config> totals;
  clear_sums<Config>(sums);
  if constexpr (kConfig.split) clear_sums<Config>(totals);
  [[maybe_unused]] int steps = 0;

  for (int slot = 0; slot < stages - 1; ++slot) load(slot);
  int slot = 0;
  for (int tile = block.begin; tile < block.end; ++tile) {
    copy_async_wait_but(stages - 2);
    __syncthreads();  // the tile is there, and the slot before it free
    load(slot == 0 ? stages - 1 : slot - 1);
    if (active) {
      const std::uint32_t at = ring + slot * stage_bytes;
      multiplier.add(at, at + dy_offset, sums);
      if constexpr (kConfig.split) {
        steps += t.steps;
        if (steps >= kStepsOfSum) {
          add_sums<Config>(sums, totals);
          clear_sums<Config>(sums);
          steps = 0;
        }
      }
    }
    if (++slot == stages) slot = 0;
  }
  if constexpr (kConfig.split) {
    add_sums<Config>(totals, sums);
  }
  copy_async_wait();
  join_parts<Config>(reinterpret_cast<float*>(shared + t.places_bytes()), role, t.tile.parts,
                     t.most_taps * t.tile.out_warps, sums);
  if (!active || role.part != 0) return;
  float* target = arguments.workspace + block.split * t.split_floats() +
                  (block.channels * t.tap_count + unit.first_tap + role.tap) * t.tap_floats() +
                  role.out_warp * kConfig.out_channels();
  store_sums<Operand, Config>(sums, target, t.out_channels,
                              t.shape.in_channels - block.in_tile * t.in_channels);
}

template <class Operand, class Config>
void launch_weight_gradient(const WeightGradientArguments& arguments, int shared_bytes,
                            Device device) {
  constexpr auto kKernel = weight_gradient_kernel<Operand, Config>;
  // The most that any plan may want: the limit is the kernel's, not the launch's, so that a smaller
  // one set by another thread would make this launch fail.
  TENON_CUDA_CHECK(cudaFuncSetAttribute(
      kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
      static_cast<int>(tenon::cuda::properties(device).shared_memory_a_block)));
  tenon::cuda::launch<kKernel>({static_cast<unsigned>(arguments.tiling.blocks()),
                                static_cast<unsigned>(arguments.tiling.threads()),
                                static_cast<std::size_t>(shared_bytes)},
                               device, arguments);
}

/// A row of the table.
template <class Operand, class Config>
constexpr WeightGradientRow weight_gradient_row(OperandKind operand) {
  return {operand, Config::value, launch_weight_gradient<Operand, Config>};
}

}  // namespace tenon::ops::cuda
