// The consumers' end of Work::SumGradient: the sums are y; with the gradient of z they become dy,
// written as ChannelRows, and summed for the gradient of the bias.
#pragma once

#include "tenon/ops/cuda/fused/channel_row.cuh"
#include "tenon/ops/cuda/fused/gradient_boxes.cuh"
#include "tenon/ops/cuda/fused/gradient_places.cuh"
#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/tile_place.cuh"
#include "tenon/ops/cuda/fused/tile_writer.cuh"

namespace tenon::ops::cuda {

/// How many steps of eight channels become dy in one round of a loop. The chain's gradient over all
/// sums in one straight run is 80 KB of instructions, which fit no cache: each tile waited for
/// them, and the first one for memory. So the code of a round is there once, and the registers of
/// the next move to where it looks for them.
constexpr int steps_of_round(KernelConfig config) {
  constexpr int kMostSums = 32;  // of a thread
  const int all = config.channels / 8;
  int steps = all;
  while (steps > 1 && (all % steps != 0 || 4 * config.phases() * steps > kMostSums)) --steps;
  return steps;
}

/// Moves the sums of the next round, which begins with `step` of a block, down to the first place.
template <class Config, int kSteps>
__device__ void move_steps(float (&sums)[Config::value.phases()][Config::value.channels / 2],
                           int step) {
#pragma unroll
  for (int next = kSteps; next < Config::value.channels / 8; next += kSteps) {
    if (step != next) continue;
#pragma unroll
    for (int phase = 0; phase < Config::value.phases(); ++phase) {
#pragma unroll
      for (int i = 0; i < 4 * kSteps; ++i) {
        // Said outright, lest each round selects among the sums of all.
        asm volatile("mov.b32 %0, %1;" : "=f"(sums[phase][i]) : "f"(sums[phase][i + 4 * next]));
      }
    }
  }
}

/// Writes two channels of a position: a quarter or half of a row.
template <class Operand, class Config>
__device__ void store_channel_pair(char* at, float first, float second) {
  if constexpr (std::is_same_v<Operand, Tf32>) {
    *reinterpret_cast<uint2*>(at) =
        make_uint2(single_word<Config>(first), single_word<Config>(second));
  } else {
    *reinterpret_cast<unsigned*>(at) = round_pair<Operand>(first, second);
  }
}

/// How the gradient of z comes to a thread.
enum class GradientSource {
  Boxes,   ///< of bulk copies, sm_90
  Copies,  ///< of its own in shared memory, made some halves of steps ahead
  Memory
};

/// A consumer group's positions in one tile, in steps of 64 positions and 8 channels, each in two
/// halves. The gradient of z comes from far, so that it is asked for ahead of time: by producers
/// (gradient_boxes.cuh), or, before sm_90, by each thread for itself, the first before the
/// products. (Loads to registers would do, but for the six scoreboards by which the processor knows
/// of what is under way: exponentials then wait for loads that merely share theirs.)
template <class Operand, class Config, class Chain>
class SumGradientTile {
  using Element = typename OperandTraits<Operand>::Element;
  using Places = GradientPlaces<Operand, Config>;
  using Sources = GradientSources<Operand, Config>;
  struct Nothing {};
  static constexpr KernelConfig kConfig = Config::value;
  static constexpr int kRow = OperandTraits<Operand>::kRow;
  static constexpr bool kBoxes = kConfig.boxes_gradients();
  using Run = GradientRun<Element, kConfig.column_phases>;
  using Runs = Run[2][kConfig.row_phases];  // of two channels
  static constexpr int kHalvesOfBlock = kConfig.channels / 4;
  static constexpr int kHalves = kConfig.blocks * kHalvesOfBlock;
  static constexpr int kAhead = kConfig.gradients_ahead;
  /// Whether tiles that are whole have code of their own, in which nothing is compared with the
  /// tensor's size; with many taps there are no registers for both.
  static constexpr bool kWholeApart = kConfig.kernel < 5;
  // So that tiles write all chunks of a group, those of padding too.
  static_assert(kConfig.channels % (ChannelRows::kChunkMultiple * kRow) == 0);
  static_assert(kHalves >= kAhead);

 public:
  /// `gradients` is the block's memory for boxes or copies, Config::value.gradient_bytes(...).
  __device__ SumGradientTile(const KernelArguments& arguments, const TilePlace& place, int group,
                             char* gradients)
      : arguments_(arguments), place_(place), group_(group), gradients_(gradients) {}

  /// Before the products: asks for the gradients of the first halves of steps.
  __device__ void begin() {
    if constexpr (!kBoxes) {
      if (!copies()) return;
      const Places places(arguments_, place_, group_, static_cast<int>(threadIdx.x));
      const Sources sources(arguments_, place_, places);
#pragma unroll
      for (int half = 0; half < kAhead; ++half) ask(sources, half);
    }
  }

  /// Turns the sums, which hold the bias and are used up, into dy, and writes its sums over the
  /// warp's 16 positions. `shared` is the block's memory, `ring` where the group has come to in its
  /// boxes.
  __device__ void finish(Sums<Config>& sums, const Chain& chain, char* shared, RingPosition& ring) {
    int thread = static_cast<int>(threadIdx.x);
    // Places are found again: kept over the products they would take too many registers.
    asm volatile("" : "+r"(thread));
    const bool whole = kWholeApart && is_whole<Config>(arguments_.tiling, place_);
    if constexpr (kBoxes) {
      const int slots = arguments_.gradient.slots;
      if (slots == 0) {
        run<false, GradientSource::Memory>(thread, sums, chain, Nothing());
        return;
      }
      constexpr int kStepBytes = kConfig.gradient_step_bytes(sizeof(Element));
      GradientBoxReader<Operand, Config> boxes(GradientRing(arguments_, kConfig, shared, group_),
                                               slots, gradients_ + group_ * slots * kStepBytes,
                                               thread, ring);
      if (whole) {
        run<true, GradientSource::Boxes>(thread, sums, chain, boxes);
      } else {
        run<false, GradientSource::Boxes>(thread, sums, chain, boxes);
      }
    } else if (arguments_.gradient.aligned && whole) {
      constexpr auto kSource = Run::kCopies ? GradientSource::Copies : GradientSource::Memory;
      run<true, kSource>(thread, sums, chain, Nothing());
    } else {
      run<false, GradientSource::Memory>(thread, sums, chain, Nothing());
    }
  }

 private:
  __device__ bool copies() const {
    return Run::kCopies && arguments_.gradient.aligned &&
           is_whole<Config>(arguments_.tiling, place_);
  }
  __device__ int height() const { return static_cast<int>(arguments_.tiling.shape.rows.output); }
  __device__ int width() const { return static_cast<int>(arguments_.tiling.shape.columns.output); }
  __device__ int out_channels() const { return arguments_.tiling.shape.out_channels; }

  /// Where the runs of a half of a step are copied to.
  __device__ char* copy_of(int index, int odd, int i) const {
    constexpr int kThreads = 128 * kConfig.groups;
    const int run = (index % kAhead * 2 + odd) * kConfig.row_phases + i;
    return gradients_ + (run * kThreads + static_cast<int>(threadIdx.x)) * Run::kBytes;
  }

  /// The gradient of z that half `index` of all steps wants, for row phase i of a channel.
  __device__ const Element* source(const Sources& sources, int index, int odd, int i) const {
    const std::int64_t plane = static_cast<std::int64_t>(height()) * width();
    const int channel = index % kHalvesOfBlock / 2 * 8 + odd;
    return sources.from[index / kHalvesOfBlock][index % 2] + channel * plane + i * width();
  }

  /// Starts the copies for half `index` of all steps.
  __device__ void ask(const Sources& sources, int index) const {
    if constexpr (Run::kCopies) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
        for (int i = 0; i < kConfig.row_phases; ++i) {
          copy_async_bytes<Run::kBytes>(copy_of(index, odd, i), source(sources, index, odd, i));
        }
      }
      copy_async_commit();
    }
  }

  /// What was asked for, and asks for what is wanted kAhead halves later.
  __device__ void take(const Sources& sources, int index, Runs& runs) const {
    copy_async_wait_for<kAhead - 1>();
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
      for (int i = 0; i < kConfig.row_phases; ++i) {
        runs[odd][i].load_shared(shared_address(copy_of(index, odd, i)));
      }
    }
    if (index + kAhead < kHalves) {
      ask(sources, index + kAhead);
    } else {
      copy_async_commit();  // of nothing: the count of copies under way stays right
    }
  }

  /// Both halves of the next step.
  template <class Boxes>
  __device__ void take(Boxes& boxes, Runs (&runs)[2]) const {
    boxes.wait();
    const std::uint32_t slot = boxes.slot();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
        for (int i = 0; i < kConfig.row_phases; ++i) {
          runs[half][odd][i].load_shared(slot + boxes.run(half, odd, i));
        }
      }
    }
    boxes.release();
  }

  template <bool kWhole>
  __device__ void load(const Places& places, const Sources& sources, int index, Runs& runs) const {
    const int block = index / kHalvesOfBlock;
    const int channel = places.channel + index % kHalvesOfBlock / 2 * 8;
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
      for (int i = 0; i < kConfig.row_phases; ++i) {
        const int inside = places.inside(arguments_.tiling, block, index % 2);
        const bool there = kWhole || (channel + odd < out_channels() && inside > 0 &&
                                      places.row[block][index % 2] + i < height());
        if (there) {
          runs[odd][i].template load<kWhole>(source(sources, index, odd, i), inside);
        } else {
          runs[odd][i].clear();
        }
      }
    }
  }

  template <bool kWhole, GradientSource kSource, class Boxes>
  __device__ void run(int thread, Sums<Config>& sums, const Chain& chain, Boxes&& boxes) const {
    constexpr int kStepsOfBlock = kHalvesOfBlock / 2;
    // Others count with the number of a step when they are compiled.
    constexpr int kSteps =
        kSource == GradientSource::Boxes ? steps_of_round(kConfig) : kStepsOfBlock;
    const Places places(arguments_, place_, group_, thread);
    // Boxes come without, and registers are few.
    const auto sources = [&] {
      if constexpr (kSource == GradientSource::Boxes) {
        return Nothing();
      } else {
        return Sources(arguments_, place_, places);
      }
    }();
    const std::int64_t step_bytes = 16 * 8 / kRow * arguments_.gradient.grad_y.chunk_rows();
    char* const first_row = Places::first_row(arguments_, place_);
    std::uint32_t bias_sums = first_bias_sum(thread);
    float totals[2] = {0.0f, 0.0f};
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
      char* to = first_row;
      std::uint32_t bias_to = bias_sums;
#pragma unroll 1
      for (int first_step = 0; first_step < kStepsOfBlock; first_step += kSteps) {
#pragma unroll
        for (int j = 0; j < kSteps; ++j) {
          const int step = kSteps == kStepsOfBlock ? j : first_step + j;
          Runs runs[2];
          if constexpr (kSource == GradientSource::Boxes) take(boxes, runs);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int index = block * kHalvesOfBlock + 2 * step + half;
            if constexpr (kSource == GradientSource::Copies) take(sources, index, runs[half]);
            if constexpr (kSource == GradientSource::Memory) {
              // Before sm_90 loads of many halves at once would take registers that there are not.
              if constexpr (!kKeepsPlaces) asm volatile("" ::: "memory");
              load<kWhole>(places, sources, index, runs[half]);
            }
            write<kWhole>(places, block, step, half, runs[half], sums[block], j, chain, to, totals);
          }
          write_bias_sums<kWhole>(thread, place_.channel + 8 * step, totals, bias_to);
          bias_to += 8;
          to += step_bytes;
        }
        if constexpr (kSteps < kStepsOfBlock)
          move_steps<Config, kSteps>(sums[block], first_step + kSteps);
      }
      bias_sums += 4 * arguments_.tiling.shape.groups * out_channels();
    }
  }

  /// dy of half `half` of a step, whose sums are those of step `j` in `sums`. `to`: the tile's
  /// first row of the step's channels.
  template <bool kWhole>
  __device__ void write(const Places& places, int block, int step, int half, const Runs& runs,
                        const float (&sums)[kConfig.phases()][kConfig.channels / 2], int j,
                        const Chain& chain, char* to, float (&totals)[2]) const {
    const ChannelRows& rows = arguments_.gradient.grad_y;
    const std::int64_t phase_bytes = 16 * static_cast<std::int64_t>(rows.rows) * rows.columns;
    const int channel = places.channel + 8 * step;
#pragma unroll
    for (int i = 0; i < kConfig.row_phases; ++i) {
#pragma unroll
      for (int k = 0; k < kConfig.column_phases; ++k) {
        const int phase = i * kConfig.column_phases + k;
        float values[2];
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          // Beyond z dy is zero, whatever the chain makes of y.
          const bool exists =
              kWhole || (channel + odd < out_channels() && places.row[block][half] + i < height() &&
                         k < places.inside(arguments_.tiling, block, half));
          const float y = sums[phase][4 * j + 2 * half + odd];
          values[odd] = exists ? chain.gradient(y, runs[odd][i][k]) : 0.0f;
          totals[odd] += values[odd];
        }
        if (kWhole || (places.exists[block][half] && channel / kRow < rows.chunks)) {
          store_channel_pair<Operand, Config>(to + phase * phase_bytes + places.offset[block][half],
                                              values[0], values[1]);
        }
      }
    }
  }

  /// Adds the lanes' sums of the same channels, writes them and begins anew. Lanes from 16 on go on
  /// with the second channel; `channel` is the step's first, `to` this lane's place.
  template <bool kWhole>
  __device__ void write_bias_sums(int thread, int channel, float (&totals)[2],
                                  std::uint32_t to) const {
    const bool second = thread % 32 >= 16;
    float total = second ? totals[1] : totals[0];
    total += __shfl_xor_sync(~0U, second ? totals[0] : totals[1], 16);
    total += __shfl_xor_sync(~0U, total, 8);
    total += __shfl_xor_sync(~0U, total, 4);
    const bool writes = thread % 16 < 4;
    if (writes && (kWhole || channel + thread % 4 * 2 + second < out_channels())) {
      arguments_.gradient.bias_sums[to] = total;
    }
    totals[0] = totals[1] = 0.0f;
  }

  /// Where this lane writes of its warp's sums, in the first block; those of the others lie 4 rows
  /// on. (The sums of a slice are less than kMostSliceBytes.)
  __device__ std::uint32_t first_bias_sum(int thread) const {
    const Tiling& t = arguments_.tiling;
    const int tile = t.by.units.quotient(place_.tile) * t.sets + place_.set;
    const int row = (tile * kConfig.groups + group_) * kConfig.blocks * 4 + thread / 32 % 4;
    return static_cast<std::uint32_t>((row * t.shape.groups + place_.group) * t.shape.out_channels +
                                      place_.channel + thread % 4 * 2 + thread % 32 / 16);
  }

  const KernelArguments& arguments_;
  const TilePlace& place_;
  int group_;
  char* gradients_;
};

}  // namespace tenon::ops::cuda
