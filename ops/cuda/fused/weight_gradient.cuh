// The weight gradient's kernel: see weight_gradient_tiling.h for what blocks and warps do.
//
// Producer warps fill a ring of tiles in shared memory by asynchronous copies of rows of 16 bytes,
// [half][chunk of channels][position], zeros where a window reaches beyond an image; consumer warps
// multiply. A tap is an
// offset in the window of x, no more, so that the same code serves every geometry. Positions are
// what is summed over: fragments of the tensor cores are read from rows across, four channels of a
// position at a time in TF32, by transposing loads in 16 bits.
#pragma once

#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/weight_gradient_rows.h"

namespace tenon::ops::cuda {

template <int kMTiles, int kNTiles, int kConsumers, int kProducers, bool kSplit>
struct StaticWeightGradientConfig {
  static constexpr WeightGradientConfig value{kMTiles, kNTiles, kConsumers, kProducers, kSplit};
};

// ---- instructions ----------------------------------------------------------------------------

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
  __device__ explicit BlockUnit(const WeightGradientTiling& t) {
    int index = static_cast<int>(blockIdx.x);
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
  static constexpr int kTogether = 4;  // chunks that a thread copies of a position

  const OperandSource& operand;
  const Place* places;
  const char* data;  // of the group's and block's first chunk
  int positions;
  int chunks;
  int chunk_stride;     // bytes, in shared memory
  unsigned reciprocal;  // 2^32 / positions, rounded up

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
  __device__ int load(std::uint32_t shared, int half, int image, int row, int column,
                      int item) const {
    const char* base = data + half * operand.half_bytes + image * operand.image_bytes +
                       16 * (static_cast<std::int64_t>(row) * operand.width + column);
    const int items = (chunks + kTogether - 1) / kTogether * positions;
    for (; item < items; item += kThreads) {
      const int first = positions == 1 ? item : static_cast<int>(__umulhi(item, reciprocal));
      const int position = item - first * positions;
      const int chunk = first * kTogether;
      const Place place = places[position];
      const bool inside = static_cast<unsigned>(row + (place.on_plane >> 16)) <
                              static_cast<unsigned>(operand.height) &&
                          static_cast<unsigned>(column + (place.on_plane & 0xffff)) <
                              static_cast<unsigned>(operand.width);
      const char* source =
          inside ? base + 16 * static_cast<std::int64_t>(place.source) + chunk * operand.chunk_bytes
                 : operand.data;
      std::uint32_t target = shared + chunk * chunk_stride + 16 * position;
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        if (chunk + i < chunks) copy_async_or_zero(target, source, inside);
        source += inside ? operand.chunk_bytes : 0;
        target += chunk_stride;
      }
    }
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
  __device__ static int dy_offset(int chunk_bytes) { return x_offset(chunk_bytes, 8); }
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
      dy[j + 1][0] = both[1];
      dy[j][1] = both[2];
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
        dy_(16 * tap.slot * t.positions() + OneStep::dy_offset(16 * t.dy_chunk_rows) +
            role.out_warp * (Config::value.out_channels() / OperandTraits<Operand>::kRow) * 16 *
                t.dy_chunk_rows) {}

  /// Of the tile whose x and dy are at these addresses.
  __device__ void add(std::uint32_t x, std::uint32_t dy, TileSums<Config>& sums) const {
#pragma unroll 2
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

  /// The small products first; heads of x are read twice, for want of registers.
  __device__ void add_split(std::uint32_t x, std::uint32_t dy, TileSums<Config>& sums) const {
    Dy of_dy;
    OneStep::load_dy(of_dy, dy + t_.dy_half_bytes, t_.two_dy_chunks);
#pragma unroll
    for (int i = 0; i < kMTiles; ++i) {
      X head;
      OneStep::load_x(head, x + i * t_.m_tile_bytes);
      multiply_tile(head, of_dy, sums[i]);
    }
    OneStep::load_dy(of_dy, dy, t_.two_dy_chunks);
#pragma unroll
    for (int i = 0; i < kMTiles; ++i, x += t_.m_tile_bytes) {
      X tail;
      OneStep::load_x(tail, x + t_.x_half_bytes);
      multiply_tile(tail, of_dy, sums[i]);
      X head;
      OneStep::load_x(head, x);
      multiply_tile(head, of_dy, sums[i]);
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

/// Writes a warp's sums to `target`, [ci][co] with rows of `stride`, of which the first `channels`
/// rows exist.
template <class Operand, class Config>
__device__ void store_sums(const TileSums<Config>& sums, float* target, int stride, int channels) {
  const int row = static_cast<int>(threadIdx.x) % 32 / 4;
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < Config::value.m_tiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int ci = 16 * i + Step<Operand, Config>::channel_of(row + 8 * half);
      if (ci >= channels) continue;
#pragma unroll
      for (int j = 0; j < Config::value.n_tiles; ++j) {
        *reinterpret_cast<float2*>(target + ci * stride + 8 * j + column) =
            make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
      }
    }
  }
}

// ---- kernel ----------------------------------------------------------------------------------

/// What both kinds of warps know of their block.
template <class Operand, class Config>
struct BlockView {
  static constexpr int kRow = OperandTraits<Operand>::kRow;

  const WeightGradientArguments& arguments;
  const WeightGradientTiling& t;
  const BlockUnit block;
  const TapUnit& unit;
  char* shared;
  int x_chunks;
  int dy_chunks;

  __device__ BlockView(const WeightGradientArguments& all, char* memory)
      : arguments(all),
        t(all.tiling),
        block(all.tiling),
        unit(all.tiling.units[block.taps]),
        shared(memory),
        x_chunks(chunks_of<Operand>(t.shape.in_channels, block.in_tile, t.in_channels)),
        dy_chunks(chunks_of<Operand>(t.shape.out_channels, block.out_tile, t.out_channels)) {}

  __device__ PipelineBarrier* full() const { return reinterpret_cast<PipelineBarrier*>(shared); }
  __device__ PipelineBarrier* empty() const { return full() + kMostStages; }
  __device__ Place* places() const {
    return reinterpret_cast<Place*>(shared + WeightGradientTiling::kBarrierBytes);
  }
  __device__ char* ring() const { return shared + t.ring_offset(); }
  __device__ std::uint32_t stage(int slot) const {
    return shared_address(ring()) + slot * t.stage_bytes(Config::value.halves());
  }
};

template <class Operand, class Config>
__device__ void produce(const BlockView<Operand, Config>& view) {
  constexpr int kThreads = 32 * Config::value.producers;
  constexpr int kRow = OperandTraits<Operand>::kRow;
  const WeightGradientTiling& t = view.t;
  const WeightGradientArguments& arguments = view.arguments;
  const OperandLoader x_loader(arguments.x, view.places(), view.block.group,
                               view.block.in_tile * (t.in_channels / kRow), view.x_chunks,
                               t.window_positions(), 16 * t.x_chunk_rows);
  const OperandLoader dy_loader(arguments.dy, view.places() + t.window_positions(),
                                view.block.group, view.block.out_tile * (t.out_channels / kRow),
                                view.dy_chunks, view.unit.slots * t.positions(),
                                16 * t.dy_chunk_rows);
  const TilePosition step(t, t.splits);
  TilePosition tile(t, view.block.split);
  RingPosition ring{0, 1};  // all slots are empty at first
  for (int number = view.block.split; number < t.tiles(); number += t.splits) {
    view.empty()[ring.slot].wait(ring.parity);
    const std::uint32_t x = view.stage(ring.slot);
    const std::uint32_t dy = x + t.dy_offset(Config::value.halves());
    int item = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int half = 0; half < Config::value.halves(); ++half) {
      item = x_loader.template load<kThreads>(x + half * t.x_half_bytes, half, tile.image,
                                              tile.row + view.unit.first_row,
                                              tile.column + view.unit.first_column, item);
      item = dy_loader.template load<kThreads>(dy + half * t.dy_half_bytes, half, tile.image,
                                               tile.row, tile.column, item);
    }
    arrive_with_copies(view.full()[ring.slot]);
    tile.advance(t, step);
    ring.advance(t.tile.stages);
  }
}

template <class Operand, class Config>
__device__ void consume(const BlockView<Operand, Config>& view) {
  constexpr WeightGradientConfig kConfig = Config::value;
  // Steps whose products at float32 accuracy are summed before they join the totals: the tensor
  // cores cut digits off at every sum, so that long sums drift.
  constexpr int kStepsOfSum = 16;
  const WeightGradientTiling& t = view.t;
  const WarpRole role(t, static_cast<int>(threadIdx.x) / 32 - kConfig.producers);
  const bool active =
      role.tap < view.unit.taps &&
      role.out_warp * kConfig.out_channels() < view.dy_chunks * OperandTraits<Operand>::kRow;
  const TapMultiplier<Operand, Config> multiplier(
      t, t.taps[view.unit.first_tap + (active ? role.tap : 0)], role);
  TileSums<Config> sums;
  [[maybe_unused]] TileSums<Config> totals;
  clear_sums<Config>(sums);
  if constexpr (kConfig.split) clear_sums<Config>(totals);
  [[maybe_unused]] int steps = 0;
  RingPosition ring;
  for (int number = view.block.split; number < t.tiles(); number += t.splits) {
    view.full()[ring.slot].wait(ring.parity);
    if (active) {
      const std::uint32_t x = view.stage(ring.slot);
      multiplier.add(x, x + t.dy_offset(kConfig.halves()), sums);
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) view.empty()[ring.slot].arrive();
    if constexpr (kConfig.split) {
      steps += t.steps;
      if (steps >= kStepsOfSum) {
        add_sums<Config>(sums, totals);
        clear_sums<Config>(sums);
        steps = 0;
      }
    }
    ring.advance(t.tile.stages);
  }
  if constexpr (kConfig.split) add_sums<Config>(totals, sums);
  join_parts<Config>(reinterpret_cast<float*>(view.ring()), role, t, sums);
  if (!active || role.part != 0) return;
  float* target =
      view.arguments.workspace + view.block.split * t.split_floats() +
      (view.block.channels * t.tap_count + view.unit.first_tap + role.tap) * t.tap_floats() +
      role.out_warp * kConfig.out_channels();
  store_sums<Operand, Config>(sums, target, t.out_channels,
                              t.shape.in_channels - view.block.in_tile * t.in_channels);
}

/// Runs by t.blocks() blocks of t.threads(config) threads with t.shared_bytes() of dynamic shared
/// memory.
template <class Operand, class Config>
__global__ void __launch_bounds__(Config::value.threads(), 1)
    weight_gradient_kernel(const tenon::cuda::PreviousKernel previous,
                           const __grid_constant__ WeightGradientArguments arguments) {
  extern __shared__ __align__(128) char shared[];
  const BlockView<Operand, Config> view(arguments, shared);
  list_places(arguments, view.unit, view.places());
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < view.t.tile.stages; ++slot) {
      view.full()[slot].init(32 * Config::value.producers);
      view.empty()[slot].init(view.t.consumers());
    }
  }
  __syncthreads();
  previous.wait();
  if (threadIdx.x < 32 * Config::value.producers) {
    produce(view);
  } else {
    consume(view);
  }
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
                                static_cast<unsigned>(arguments.tiling.threads(Config::value)),
                                static_cast<std::size_t>(shared_bytes)},
                               device, arguments);
}

/// A row of the table.
template <class Operand, class Config>
constexpr WeightGradientRow weight_gradient_row(OperandKind operand) {
  return {operand, Config::value, launch_weight_gradient<Operand, Config>};
}

}  // namespace tenon::ops::cuda
