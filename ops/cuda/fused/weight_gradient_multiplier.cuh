// The weight gradient's products: what a warp reads of the tiles in shared memory, sums up and
// stores.
//
// Positions are what is summed over, so that fragments of the tensor cores are read from rows of
// channels across: two channels of a position at a time in TF32, by transposing loads in 16 bits.
#pragma once

#include <type_traits>

#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/weight_gradient_rows.h"

namespace tenon::ops::cuda {

// ---- reading ---------------------------------------------------------------------------------

__device__ inline std::uint32_t load_word(std::uint32_t address) {
  std::uint32_t word;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
  return word;
}
__device__ inline void load_words(std::uint32_t& first, std::uint32_t& second,
                                  std::uint32_t address) {
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
               : "=r"(first), "=r"(second)
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

// ---- products --------------------------------------------------------------------------------

/// Of a warp: [m-tile][n-tile] as by `multiply`. Which channels these are: store_sums.
template <class Config>
using TileSums = float[Config::value.m_tiles][Config::value.n_tiles][4];

/// What lanes read of both operands for one step, and what they make of it: of x four words a
/// m-tile, of dy two a n-tile. Offsets are a lane's.
///
/// 16 positions in 16 bits: the first 8 and the second 8 are consecutive. Lane 8i + r names row r
/// of matrix i: 8 channels of the first 8 positions, the next 8 channels, then both for the others.
template <class Operand, class Config>
struct Step {
  static constexpr int kPositions = 16;
  static constexpr int kNTiles = Config::value.n_tiles;

  __device__ static int x_offset(int chunk_bytes, int second) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return 16 * (lane % 8 + lane / 16 * second) + lane / 8 % 2 * chunk_bytes;
  }
  __device__ static int dy_offset(int chunk_bytes) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return 16 * (lane % 16) + lane / 16 * chunk_bytes;
  }
  __device__ static void load_x(std::uint32_t (&x)[4], std::uint32_t address) {
    load_transposed(x, address);
  }
  __device__ static void load_dy(std::uint32_t (&dy)[kNTiles][2], std::uint32_t address,
                                 int two_chunks) {
#pragma unroll
    for (int j = 0; j < kNTiles; j += 2, address += two_chunks) {
      std::uint32_t both[4];
      load_transposed(both, address);
      dy[j][0] = both[0];
      dy[j][1] = both[1];
      dy[j + 1][0] = both[2];
      dy[j + 1][1] = both[3];
    }
  }
  /// The channel of an m-tile whose sum is in row `row` of it.
  __device__ static int channel_of(int row) { return row; }
};

/// 8 consecutive positions in TF32, of which a lane reads two. Of x it reads two neighbouring
/// channels at once, which are the rows g and g + 8 of an m-tile: so half a warp reads four
/// positions of two chunks whole, and these lie on different halves of the banks.
template <class Config>
struct Step<Tf32, Config> {
  static constexpr int kPositions = 8;
  static constexpr int kNTiles = Config::value.n_tiles;

  __device__ static int x_offset(int chunk_bytes, int /*second*/) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int channel = channel_of(lane / 4);
    return 16 * (lane % 4) + channel / 4 * chunk_bytes + channel % 4 * 4;
  }
  __device__ static int dy_offset(int chunk_bytes) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    return 16 * (lane % 4) + lane / 16 * chunk_bytes + lane / 4 % 4 * 4;
  }
  __device__ static void load_x(std::uint32_t (&x)[4], std::uint32_t address) {
    load_words(x[0], x[1], address);
    load_words(x[2], x[3], address + 64);
  }
  __device__ static void load_dy(std::uint32_t (&dy)[kNTiles][2], std::uint32_t address,
                                 int two_chunks) {
#pragma unroll
    for (int j = 0; j < kNTiles; ++j, address += two_chunks) {
      dy[j][0] = load_word(address);
      dy[j][1] = load_word(address + 64);
    }
  }
  __device__ static int channel_of(int row) {
    const int g = row % 8;
    return 4 * (g % 2 + g / 4 * 2) + g / 2 % 2 * 2 + row / 8;
  }
};

/// The part of a consumer warp in a block: which tap and co it sums for, and how it steps through
/// tiles.
struct WarpRole {
  int tap;       // within the unit
  int out_warp;  // tile of co within the block's
  int part;

  __device__ WarpRole(const WeightGradientTiling& t, int warp) {
    tap = warp % t.most_taps;
    out_warp = warp / t.most_taps % t.tile.out_warps;
    part = warp / t.most_taps / t.tile.out_warps;
  }
};

/// Adds a tile's products of one tap to a warp's sums.
template <class Operand, class Config>
class TapMultiplier {
  using OneStep = Step<Operand, Config>;
  static constexpr int kMTiles = Config::value.m_tiles;
  static constexpr int kNTiles = Config::value.n_tiles;
  using X = std::uint32_t[4];  // of an m-tile
  using Dy = std::uint32_t[kNTiles][2];

 public:
  __device__ TapMultiplier(const WeightGradientTiling& t, const UnitTap& tap, const WarpRole& role)
      : t_(t),
        first_step_(role.part),
        x_(16 * tap.window + OneStep::x_offset(16 * t.x_chunk_rows, t.second)),
        dy_(16 * tap.dy + OneStep::dy_offset(16 * t.dy_chunk_rows) +
            role.out_warp * (Config::value.out_channels() / OperandTraits<Operand>::kRow) * 16 *
                t.dy_chunk_rows) {}

  /// Of the tile whose x and dy are at these addresses.
  __device__ void add(std::uint32_t x, std::uint32_t dy, TileSums<Config>& sums) const {
#pragma unroll 1
    for (int step = first_step_; step < t_.steps; step += t_.tile.parts) {
      if constexpr (Config::value.split) {
        add_split(x + x_at(step), dy + dy_at(step), sums);
      } else {
        add_step(x + x_at(step), dy + dy_at(step), sums);
      }
    }
  }

 private:
  __device__ std::uint32_t x_at(int step) const {
    return x_ + 16 * ((step >> t_.step_shift) * t_.step_row +
                      (step & t_.step_mask) * OneStep::kPositions);
  }
  __device__ std::uint32_t dy_at(int step) const { return dy_ + 16 * OneStep::kPositions * step; }

  __device__ static void multiply_tile(const X& x, const Dy& dy, float (&sums)[kNTiles][4]) {
#pragma unroll
    for (int j = 0; j < kNTiles; ++j) multiply<Operand>(sums[j], x, dy[j][0], dy[j][1]);
  }

  __device__ void add_step(std::uint32_t x, std::uint32_t dy, TileSums<Config>& sums) const {
    Dy of_dy;
    OneStep::load_dy(of_dy, dy, t_.two_dy_chunks);
#pragma unroll
    for (int i = 0; i < kMTiles; ++i, x += t_.m_tile_bytes) {
      X of_x;
      OneStep::load_x(of_x, x);
      multiply_tile(of_x, of_dy, sums[i]);
    }
  }

  /// Both operands are exact, and split here. The small products first.
  __device__ void add_split(std::uint32_t x, std::uint32_t dy, TileSums<Config>& sums) const {
    Dy dy_head;
    Dy dy_tail;
    OneStep::load_dy(dy_head, dy, t_.two_dy_chunks);
#pragma unroll
    for (int j = 0; j < kNTiles; ++j) split_words(dy_head[j], dy_tail[j]);
#pragma unroll
    for (int i = 0; i < kMTiles; ++i, x += t_.m_tile_bytes) {
      X head;
      X tail;
      OneStep::load_x(head, x);
      split_words(head, tail);
      multiply_tile(head, dy_tail, sums[i]);
      multiply_tile(tail, dy_head, sums[i]);
      multiply_tile(head, dy_head, sums[i]);
    }
  }

  const WeightGradientTiling& t_;
  int first_step_;
  std::uint32_t x_;
  std::uint32_t dy_;
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
__device__ void join_parts(float* shared, const WarpRole& role, const WeightGradientTiling& t,
                           TileSums<Config>& sums) {
  constexpr int kSums = 4 * Config::value.m_tiles * Config::value.n_tiles;
  float* own = shared + (role.out_warp * t.most_taps + role.tap) * kSums * 32 + threadIdx.x % 32;
  for (int part = 1; part < t.tile.parts; ++part) {
    named_barrier_wait(1, 32 * t.consumers());
    if (role.part == part) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        own[32 * i] = sums[i / 4 / Config::value.n_tiles][i / 4 % Config::value.n_tiles][i % 4];
      }
    }
    named_barrier_wait(1, 32 * t.consumers());
    if (role.part == 0) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        sums[i / 4 / Config::value.n_tiles][i / 4 % Config::value.n_tiles][i % 4] += own[32 * i];
      }
    }
  }
}

/// A warp's sums in the workspace: [ci][co] with rows of `stride`, of which the first `channels`
/// rows exist. Each lane has two neighbouring co of a row at a time.
struct StoredSums {
  float* data;
  int stride;
  int channels;
};

/// Calls `move` with each pair of neighbouring sums that exists, and with its place in memory.
template <class Operand, class Config, class Move>
__device__ void for_each_pair(const StoredSums& stored, TileSums<Config>& sums, const Move& move) {
  const int row = static_cast<int>(threadIdx.x) % 32 / 4;
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < Config::value.m_tiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int ci = 16 * i + Step<Operand, Config>::channel_of(row + 8 * half);
      if (ci >= stored.channels) continue;
#pragma unroll
      for (int j = 0; j < Config::value.n_tiles; ++j) {
        move(sums[i][j][2 * half], sums[i][j][2 * half + 1],
             *reinterpret_cast<float2*>(stored.data + ci * stored.stride + 8 * j + column));
      }
    }
  }
}

template <class Operand, class Config>
__device__ void load_sums(const StoredSums& stored, TileSums<Config>& sums) {
  for_each_pair<Operand, Config>(stored, sums, [](float& first, float& second, const float2& pair) {
    first = pair.x;
    second = pair.y;
  });
}

template <class Operand, class Config>
__device__ void store_sums(const StoredSums& stored, TileSums<Config>& sums) {
  for_each_pair<Operand, Config>(stored, sums, [](float first, float second, float2& pair) {
    pair = make_float2(first, second);
  });
}

}  // namespace tenon::ops::cuda
