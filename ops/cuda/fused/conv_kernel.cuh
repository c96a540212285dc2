// The fused kernel: transposed convolution, bias and pointwise chain in one pass over memory.
//
// It is an implicit matrix product. Rows are positions q of a tile (ops/fused/tiling.h), columns
// output channels; for each phase the products of its taps with the window of x are summed on the
// tensor cores, then the chain is applied in registers and z is written in NCHW, once.
//
//   producers (one warpgroup)             consumers (Config::value.groups warpgroups)
//   for each tile, for each stage:        for each tile, for each stage:
//     wait until the slot is empty          wait until the slot is full
//     x, NCHW -> rows of 16 bytes           sum[phase] += window(tap) · weight(tap)
//     weights, packed already               release the slot
//     announce the slot as full           chain and bias in registers, store z
//
// The producers turn planes into rows of 16 bytes of consecutive channels, as the tensor cores read
// them: no layout pass. Planes come to them through their registers (window_loader.cuh), where no
// alignment and no width matter, or, on sm_90, where x allows it and tiles are wide, as boxes of
// bulk copies (bulk_loader.cuh). What lies outside of x is a zero like any other. The ring of slots
// lets them run ahead into the next tile while the consumers are still busy with the chain of this
// one.
//
// The same kernel makes the gradients of x: Work::SumGradient sums y again and turns it into dy
// (sum_gradient_writer.cuh), Work::DataGradient sums dx from dy, a correlation of stride 1 of dy's
// phases. Both read rows of 16 bytes (row_loader.cuh); in wide tiles at 16 bits on sm_90
// Work::SumGradient reads planes of x.
#pragma once

#include "tenon/core/cuda/launch.cuh"
#include "tenon/ops/cuda/fused/bulk_loader.cuh"
#include "tenon/ops/cuda/fused/ragged_writer.cuh"
#include "tenon/ops/cuda/fused/row_loader.cuh"
#include "tenon/ops/cuda/fused/sum_gradient_writer.cuh"
#include "tenon/ops/cuda/fused/weight_rows.cuh"
#include "tenon/ops/cuda/fused/window_loader.cuh"

namespace tenon::ops::cuda {

/// What a warpgroup does.
enum class Role {
  Consumer,
  Loader,         ///< produces windows and weights
  GradientLoader  ///< produces the gradient of z
};

// ---- producers -------------------------------------------------------------------------------

/// `loader` is a WindowLoader or a BulkLoader.
template <class Config, class Multiplier, class Loader>
__device__ void produce(const KernelArguments& arguments, const SharedLayout& layout, char* shared,
                        int team, Loader loader) {
  const Tiling& t = arguments.tiling;
  auto* full = reinterpret_cast<PipelineBarrier*>(shared + layout.barriers);
  PipelineBarrier* empty = full + arguments.slots;
  constexpr int kThreads = 32 * kProducerWarps;
  const int thread = static_cast<int>(threadIdx.x) % kThreads;
  int turn = team;  // stages until this team's next
  const int tiles = t.tiles();
  RingPosition ring{0, 1};  // all slots are empty at first
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const TilePlace place(t, tile);
    loader.begin_tile(place);
    const int weight_rows = t.taps_of_set(place.set) * Config::value.tap_rows();
    std::int64_t weight_row = first_weight_row(t, Config::value, place);
    for (int stage = 0; stage < t.stages; ++stage, weight_row += weight_rows) {
      if (turn == 0) {
        empty[ring.slot].wait(ring.parity);
        if constexpr (!Config::value.resident) {
          char* target = shared + layout.weights + ring.slot * layout.weight_bytes;
          if constexpr (Multiplier::kAsync) {
            if (thread == 0) {
              copy_bulk(target, static_cast<const uint4*>(arguments.packed) + weight_row,
                        16 * weight_rows, full[ring.slot]);
            }
          } else {
            copy_weights(arguments.packed, weight_row, weight_rows, target, thread, kThreads);
          }
        }
        loader.load(stage, shared + layout.x + ring.slot * layout.x_bytes);
        if constexpr (!Config::value.resident && !Multiplier::kAsync) copy_async_wait();
        if constexpr (Multiplier::kAsync) fence_async_proxy();
        __syncwarp();
        full[ring.slot].arrive_as_warp();
        loader.release();
        turn = Config::value.loading_teams();
      }
      --turn;
      ring.advance(arguments.slots);
    }
  }
}

/// Rows are copied; planes come by bulk copies where x allows them.
template <class Operand, class Config, class Multiplier>
__device__ void produce_by_best_loader(const KernelArguments& arguments, const SharedLayout& layout,
                                       char* shared, int team) {
  if constexpr (Config::value.takes_rows()) {
    if constexpr (Config::value.boxes_gradients()) {
      produce_gradients<Operand, Config>(arguments, layout, shared);
    }
    produce_rows<Config, Multiplier>(arguments, layout, shared);
  } else {
    if constexpr (Config::value.bulk()) {
      if (Config::value.bulk_only() || arguments.raw.slots > 0) {
        produce<Config, Multiplier>(arguments, layout, shared, team,
                                    BulkLoader<Operand, Config>(arguments, layout, shared, team));
        return;
      }
    }
    if constexpr (!Config::value.bulk_only()) {
      const auto* places = reinterpret_cast<const int*>(shared + layout.places);
      produce<Config, Multiplier>(arguments, layout, shared, team,
                                  WindowLoader<Operand, Config>(arguments, places));
    }
  }
}

/// Arrivals that make a slot full.
template <class Config, class Multiplier>
constexpr int full_arrivals() {
  if constexpr (Config::value.takes_rows()) return row_arrivals<Config, Multiplier>();
  // Beside the warps, the thread that started a bulk copy of weights arrives.
  return kProducerWarps * kWarpArrivals + (Multiplier::kAsync && !Config::value.resident ? 1 : 0);
}

// ---- consumers -------------------------------------------------------------------------------

/// Whether the bias is read behind the products: over those of many taps there are no registers to
/// hold it in.
constexpr bool bias_comes_late(KernelConfig config) {
  return config.work == Work::SumGradient && config.kernel >= 5 && !config.split;
}

/// What is prepared before a tile's products: nothing, but for dy.
struct NothingToPrepare {
  __device__ NothingToPrepare(const KernelArguments& /*arguments*/, const TilePlace& /*place*/,
                              int /*group*/, char* /*copies*/) {}
};
template <class Operand, class Config, class Chain>
using TileFinish = std::conditional_t<Config::value.work == Work::SumGradient,
                                      SumGradientTile<Operand, Config, Chain>, NothingToPrepare>;

/// `Multiplier` adds a stage's products to the sums: see warp_multiplier.cuh and
/// warpgroup_multiplier.cuh.
template <class Operand, class Config, class Multiplier, class Chain>
__device__ void consume(const KernelArguments& arguments, const SharedLayout& layout, char* shared,
                        int group, const Chain& chain) {
  using Element = std::conditional_t<Config::value.work == Work::PartialSums, float,
                                     typename OperandTraits<Operand>::Element>;
  const Tiling& t = arguments.tiling;
  auto* full = reinterpret_cast<PipelineBarrier*>(shared + layout.barriers);
  PipelineBarrier* empty = full + arguments.slots;
  Multiplier multiplier(t, group);
  [[maybe_unused]] RingPosition gradients;  // the steps of the gradient of z that were read
  [[maybe_unused]] TileBias<Element, Config> bias;
  const std::uint32_t x = shared_address(shared + layout.x);
  const std::uint32_t weights = shared_address(shared + layout.weights);
  const bool take_turns = Config::value.groups == 2 && arguments.take_turns;
  if (take_turns && group == 1) named_barrier_arrive(1, 256);  // group 0 begins
  const int tiles = t.tiles();
  const auto release = [&](int slot) {
    if constexpr (Config::value.split && Multiplier::kAsync) {
      // Its reads of x are done that a bulk copy could overtake.
      fence_async_proxy();
      __syncwarp();
    }
    empty[slot].arrive_as_warp();
  };
  Sums<Config> sums;
  RingPosition ring;
  [[maybe_unused]] int unit = -1;  // whose bias was read
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const TilePlace place(t, tile_of<Config>(t, tile));
    [[maybe_unused]] Sums<Config> totals;
    if constexpr (Config::value.split) {
      TileBias<Element, Config> early;  // there are no registers to hold it in
      early.load(arguments, place);
      early.fill(totals);
    } else if constexpr (!bias_comes_late(Config::value)) {
      // Few blocks ever change their channels.
      if (place.unit != unit) bias.load(arguments, place);
      unit = place.unit;
    }
    [[maybe_unused]] TileFinish<Operand, Config, Chain> tile_finish(arguments, place, group,
                                                                    shared + layout.gradients);
    if constexpr (Config::value.work == Work::SumGradient) tile_finish.begin();
    multiplier.begin(sums);
    if (take_turns) named_barrier_wait(1 + group, 256);
    [[maybe_unused]] int summed = 0;       // stages whose sums have not joined the totals
    [[maybe_unused]] int unfinished = -1;  // the slot whose products may still be under way
    for (int stage = 0; stage < t.stages; ++stage) {
      full[ring.slot].wait(ring.parity);
      multiplier.add(place.set, x + ring.slot * layout.x_bytes,
                     weights + (Config::value.resident ? stage : ring.slot) * layout.weight_bytes,
                     sums, totals);
      if constexpr (Config::value.split) {
        // Nearly all of the products are done already: those of a tap wait for those before.
        multiplier.template wait<0>();
        release(ring.slot);
        if (++summed == arguments.stages_of_sum) {
          multiplier.settle(sums);
          add_sums<Config>(sums, totals);
          multiplier.begin(sums);
          summed = 0;
        }
      } else {
        if (unfinished >= 0) {
          multiplier.template wait<1>();
          release(unfinished);
        }
        unfinished = ring.slot;
      }
      ring.advance(arguments.slots);
    }
    if constexpr (!Config::value.split) {
      multiplier.template wait<0>();
      release(unfinished);
    }
    if (take_turns && (group == 0 || tile + gridDim.x < tiles)) {
      named_barrier_arrive(2 - group, 256);
    }
    multiplier.settle(sums);
    if constexpr (Config::value.split) {
      if (summed > 0) add_sums<Config>(sums, totals);
    }
    if constexpr (Config::value.work == Work::SumGradient) {
      Sums<Config>& y = *(Config::value.split ? &totals : &sums);
      if constexpr (bias_comes_late(Config::value)) bias.load(arguments, place);
      if constexpr (kKeepsPlaces) {
        if constexpr (!Config::value.split) bias.add_to(y);
        tile_finish.finish(y, chain, shared, gradients);
      } else {
        int again = tile;
        asm volatile("" : "+r"(again));  // so that the compiler does not know it
        const TilePlace place_again(t, again);
        if constexpr (!Config::value.split) bias.add_to(y);
        TileFinish<Operand, Config, Chain>(arguments, place_again, group, shared + layout.gradients)
            .finish(y, chain, shared, gradients);
      }
    } else if constexpr (Config::value.split) {
      finish<Element, Config>(arguments, place, group, totals, NoBias(), chain,
                              shared + layout.staging);
    } else {
      finish<Element, Config>(arguments, place, group, sums, bias, chain, shared + layout.staging);
    }
  }
}

/// Lists where each vector of a window lies, for loaders that go through them.
template <class Config>
__device__ void list_places(const Tiling& t, int* places) {
  const int vectors = t.window_columns / Config::value.vector;
  for (int i = threadIdx.x; i < t.window_positions() / Config::value.vector;
       i += Config::value.threads()) {
    const int line = i / vectors;
    places[i] = (line / t.window_rows) << 20 | (line % t.window_rows) << 10 |
                i % vectors * Config::value.vector;
  }
}

/// Runs by blocks of Config::value.threads(), as many as the device holds, at a multiple of the
/// units where the weights are resident. Dynamic shared memory as SharedLayout says.
template <class Operand, class Config, template <class, class> class MultiplierOf, class Chain>
__global__ void __launch_bounds__(Config::value.threads(), 1)
    conv_epilogue_kernel(const tenon::cuda::PreviousKernel previous,
                         const __grid_constant__ KernelArguments arguments, const Chain chain) {
  using Multiplier = MultiplierOf<Operand, Config>;
  extern __shared__ __align__(1024) char shared[];
  const Tiling& t = arguments.tiling;
  const SharedLayout layout(Config::value, t, arguments.slots, arguments.raw,
                            arguments.gradient.slots);
  auto* barriers = reinterpret_cast<PipelineBarrier*>(shared + layout.barriers);
  PipelineBarrier& weights_there = barriers[2 * arguments.slots + arguments.raw.slots];
  if (threadIdx.x == 0) {
    weights_there.init(1);
    for (int i = 0; i < arguments.raw.slots; ++i) barriers[2 * arguments.slots + i].init(1);
    if constexpr (Multiplier::kAsync) fence_async_proxy();
  }
  if (threadIdx.x < arguments.slots) {
    barriers[threadIdx.x].init(full_arrivals<Config, Multiplier>());
    barriers[arguments.slots + threadIdx.x].init(4 * Config::value.groups * kWarpArrivals);
    // Bulk copies, which end a barrier's phase, must find it initialised too.
    if constexpr (Multiplier::kAsync) fence_async_proxy();
  }
  if constexpr (Config::value.boxes_gradients()) {
    GradientRing::init(arguments, Config::value, shared);
  }
  if (arguments.raw.slots == 0 && !Config::value.flat) {
    list_places<Config>(t, reinterpret_cast<int*>(shared + layout.places));
  }
  previous.wait();
  if (Config::value.work == Work::SumGradient && arguments.progress != nullptr &&
      blockIdx.x + threadIdx.x == 0) {
    *arguments.progress = 0;
  }
  // The blocks of a kernel behind this one may wait on the multiprocessors that run out of tiles,
  // or run beside it (weight_gradient.h).
  let_next_kernel_begin();
  if (Config::value.resident && threadIdx.x == 0) {
    const TilePlace first(t, tile_of<Config>(t, static_cast<int>(blockIdx.x)));
    copy_bulk(
        shared + layout.weights,
        static_cast<const uint4*>(arguments.packed) + first_weight_row(t, Config::value, first),
        16 * t.taps_of_set(first.set) * Config::value.tap_rows() * t.stages, weights_there);
  }
  __syncthreads();
  // The same in all lanes, which the compiler must know to keep warpgroup products under way.
  const int group = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / 128, 0);
  constexpr int kLoadersEnd = Config::value.groups + Config::value.loading_teams();
  if (Config::value.gradient_team() && group == kLoadersEnd) {
    if constexpr (Config::value.gradient_team()) {
      Multiplier::template share_registers<Role::GradientLoader>();
      produce_gradients<Operand, Config>(arguments, layout, shared);
    }
  } else if (group >= Config::value.groups) {
    Multiplier::template share_registers<Role::Loader>();
    produce_by_best_loader<Operand, Config, Multiplier>(arguments, layout, shared,
                                                        group - Config::value.groups);
  } else {
    Multiplier::template share_registers<Role::Consumer>();
    if constexpr (Config::value.resident) weights_there.wait(0);
    consume<Operand, Config, Multiplier>(arguments, layout, shared, group, chain);
  }
}

}  // namespace tenon::ops::cuda
