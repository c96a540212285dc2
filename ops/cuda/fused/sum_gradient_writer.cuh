// The consumers' end of Work::SumGradient: the sums are y; with the gradient of z they become dy,
// written as ChannelRows, and summed for the gradient of the bias.
#pragma once

#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/fused/channel_row.cuh"
#include "tenon/ops/cuda/fused/gradient_boxes.cuh"
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

/// Moves the sums behind the first kSteps steps of a block down to the first place.
template <class Config, int kSteps>
__device__ void move_steps(float (&sums)[Config::value.phases()][Config::value.channels / 2]) {
#pragma unroll
  for (int phase = 0; phase < Config::value.phases(); ++phase) {
#pragma unroll
    for (int i = 0; i + 4 * kSteps < Config::value.channels / 2; ++i) {
      sums[phase][i] = sums[phase][i + 4 * kSteps];
    }
  }
}

/// Neighbouring columns of the gradient of z as they come from memory, two 16-bit numbers in a word
/// where their count is even.
template <class Element, int kCount>
class GradientRun {
  static constexpr bool kPacked = sizeof(Element) * kCount % 4 == 0;
  static constexpr int kOfWord = kPacked ? 4 / static_cast<int>(sizeof(Element)) : 1;
  static constexpr int kWords = kCount / kOfWord;
  using Bits =
      std::conditional_t<kWords == 4, uint4, std::conditional_t<kWords == 2, uint2, unsigned>>;

 public:
  /// Whether a run is what an asynchronous copy can be of.
  static constexpr int kBytes = static_cast<int>(sizeof(Element)) * kCount;
  static constexpr bool kCopies = kBytes == 4 || kBytes == 8 || kBytes == 16;

  /// From shared memory, at an address that the run's size divides.
  __device__ void load_shared(const char* at) {
    if constexpr (kPacked) {
      const Bits bits = *reinterpret_cast<const Bits*>(at);
      memcpy(words_, &bits, sizeof(bits));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) words_[i] = bits_of(reinterpret_cast<const Element*>(at)[i]);
    }
  }

  /// kWhole: all columns are there, at an address that the run's size divides; else `inside`.
  template <bool kWhole>
  __device__ void load(const Element* at, int inside) {
    if constexpr (kWhole && kPacked && (kWords == 1 || kWords == 2 || kWords == 4)) {
      const Bits bits = __ldcs(reinterpret_cast<const Bits*>(at));
      memcpy(words_, &bits, sizeof(bits));
    } else {
      clear();
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (kWhole || i < inside) words_[i / kOfWord] |= bits_of(at[i]) << (i % kOfWord * 16);
      }
    }
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words_[i] = 0;
  }
  __device__ float operator[](int i) const {
    const std::uint32_t word = words_[i / kOfWord] >> (i % kOfWord * 16);
    if constexpr (std::is_same_v<Element, float>) {
      return __uint_as_float(word);
    } else {
      Element element;
      const auto bits = static_cast<std::uint16_t>(word);
      memcpy(&element, &bits, sizeof(bits));
      return tenon::cuda::convert<float>(element);
    }
  }

 private:
  __device__ static std::uint32_t bits_of(Element element) {
    if constexpr (std::is_same_v<Element, float>) {
      return __float_as_uint(element);
    } else {
      std::uint16_t bits;
      memcpy(&bits, &element, sizeof(bits));
      return bits;
    }
  }

  std::uint32_t words_[kWords];
};

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

/// Whether a tile lies inside of z as a whole, and its columns begin where runs can be read at
/// once.
template <class Config>
__device__ bool is_whole(const Tiling& t, const TilePlace& place) {
  constexpr KernelConfig kConfig = Config::value;
  const int rows_end = (place.row + t.tile.rows - 1) * static_cast<int>(t.shape.rows.stride) +
                       (place.set + 1) * kConfig.row_phases;
  return rows_end <= t.shape.rows.output &&
         (place.column + t.tile.columns) * kConfig.column_phases <= t.shape.columns.output &&
         place.image + t.tile.images <= t.shape.images &&
         place.channel + kConfig.channels <= t.shape.out_channels;
}

/// Where a thread's positions lie: positions lane/4 and lane/4 + 8 of the warp's 16 in each block
/// of 64, and of channels 2(lane%4) and the next.
template <class Operand, class Config>
struct GradientPlaces {
  using Element = typename OperandTraits<Operand>::Element;
  static constexpr KernelConfig kConfig = Config::value;
  static constexpr int kRow = OperandTraits<Operand>::kRow;

  int channel;                             ///< of the group's, the first
  int row[kConfig.blocks][2];              ///< of z
  int inside[kConfig.blocks][2];           ///< columns of z from here to the end, 0 for none
  const Element* from[kConfig.blocks][2];  ///< gradient of z
  char* to[kConfig.blocks][2];             ///< dy; null beyond the rows q

  __device__ GradientPlaces(const KernelArguments& arguments, const TilePlace& place, int group,
                            int thread)
      : channel(place.channel + thread % 4 * 2) {
    const Tiling& t = arguments.tiling;
    const ChannelRows& rows = arguments.gradient.grad_y;
    const std::int64_t phase_bytes = 16 * static_cast<std::int64_t>(rows.rows) * rows.columns;
    const int width = static_cast<int>(t.shape.columns.output);
    const std::int64_t plane = t.shape.rows.output * width;
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const PositionPlace position(t, 64 * (group * kConfig.blocks + block) +
                                            thread / 32 % 4 * 16 + half * 8 + thread % 32 / 4);
        const int image = place.image + position.image;
        const int q_row = place.row + position.row;
        const int q_column = place.column + position.column;
        const int column = q_column * kConfig.column_phases;
        const bool exists = image < rows.images && q_row < rows.rows && q_column < rows.columns;
        row[block][half] =
            q_row * static_cast<int>(t.shape.rows.stride) + place.set * kConfig.row_phases;
        inside[block][half] = exists ? width - column : 0;
        from[block][half] = static_cast<const Element*>(arguments.gradient.grad_out) +
                            ((static_cast<std::int64_t>(image) * t.shape.groups + place.group) *
                                 t.shape.out_channels +
                             channel) *
                                plane +
                            row[block][half] * width + column;
        // Lanes with neighbouring channels write neighbouring parts of rows.
        const int first_chunk = place.group * rows.chunks + channel / kRow;
        to[block][half] =
            exists ? static_cast<char*>(rows.data) +
                         16 * (first_chunk * rows.chunk_rows() + image * rows.image_rows() +
                               static_cast<std::int64_t>(q_row) * rows.columns + q_column) +
                         place.set * kConfig.phases() * phase_bytes + channel % kRow * (16 / kRow)
                   : nullptr;
      }
    }
  }
};

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
  struct NoBoxes {};
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
#pragma unroll
      for (int half = 0; half < kAhead; ++half) ask(places, half);
    }
  }

  /// Turns the sums, which hold the bias and are used up, into dy, and writes its sums over the
  /// warp's 16 positions. `shared` is the block's memory, `ring` where the group has come to in its
  /// boxes.
  __device__ void finish(Sums<Config>& sums, const Chain& chain, char* shared, RingPosition& ring) {
    int thread = static_cast<int>(threadIdx.x);
    // Places are found again: kept over the products they would take too many registers.
    asm volatile("" : "+r"(thread));
    const Places places(arguments_, place_, group_, thread);
    const bool whole = kWholeApart && is_whole<Config>(arguments_.tiling, place_);
    if constexpr (kBoxes) {
      const int slots = arguments_.gradient.slots;
      if (slots == 0) {
        run<false, GradientSource::Memory>(places, sums, chain, NoBoxes());
        return;
      }
      constexpr int kStepBytes = kConfig.gradient_step_bytes(sizeof(Element));
      GradientBoxReader<Operand, Config> boxes(GradientRing(arguments_, kConfig, shared, group_),
                                               slots, gradients_ + group_ * slots * kStepBytes,
                                               thread, ring);
      if (whole) {
        run<true, GradientSource::Boxes>(places, sums, chain, boxes);
      } else {
        run<false, GradientSource::Boxes>(places, sums, chain, boxes);
      }
    } else if (arguments_.gradient.aligned && whole) {
      constexpr auto kSource = Run::kCopies ? GradientSource::Copies : GradientSource::Memory;
      run<true, kSource>(places, sums, chain, NoBoxes());
    } else {
      run<false, GradientSource::Memory>(places, sums, chain, NoBoxes());
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
  __device__ const Element* source(const Places& places, int index, int odd, int i) const {
    const std::int64_t plane = static_cast<std::int64_t>(height()) * width();
    const int channel = index % kHalvesOfBlock / 2 * 8 + odd;
    return places.from[index / kHalvesOfBlock][index % 2] + channel * plane + i * width();
  }

  /// Starts the copies for half `index` of all steps.
  __device__ void ask(const Places& places, int index) const {
    if constexpr (Run::kCopies) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
        for (int i = 0; i < kConfig.row_phases; ++i) {
          copy_async_bytes<Run::kBytes>(copy_of(index, odd, i), source(places, index, odd, i));
        }
      }
      copy_async_commit();
    }
  }

  /// What was asked for, and asks for what is wanted kAhead halves later.
  __device__ void take(const Places& places, int index, Runs& runs) const {
    copy_async_wait_for<kAhead - 1>();
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
      for (int i = 0; i < kConfig.row_phases; ++i) {
        runs[odd][i].load_shared(copy_of(index, odd, i));
      }
    }
    if (index + kAhead < kHalves) {
      ask(places, index + kAhead);
    } else {
      copy_async_commit();  // of nothing: the count of copies under way stays right
    }
  }

  /// Both halves of the next step.
  template <class Boxes>
  __device__ void take(Boxes& boxes, Runs (&runs)[2]) const {
    boxes.wait();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
        for (int i = 0; i < kConfig.row_phases; ++i) {
          runs[half][odd][i].load_shared(boxes.run(half, odd, i));
        }
      }
    }
    boxes.release();
  }

  template <bool kWhole>
  __device__ void load(const Places& places, int index, Runs& runs) const {
    const int block = index / kHalvesOfBlock;
    const int channel = places.channel + index % kHalvesOfBlock / 2 * 8;
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
      for (int i = 0; i < kConfig.row_phases; ++i) {
        const int inside = places.inside[block][index % 2];
        const bool there = kWhole || (channel + odd < out_channels() && inside > 0 &&
                                      places.row[block][index % 2] + i < height());
        if (there) {
          runs[odd][i].template load<kWhole>(source(places, index, odd, i), inside);
        } else {
          runs[odd][i].clear();
        }
      }
    }
  }

  template <bool kWhole, GradientSource kSource, class Boxes>
  __device__ void run(const Places& places, Sums<Config>& sums, const Chain& chain,
                      Boxes&& boxes) const {
    constexpr int kStepsOfBlock = kHalvesOfBlock / 2;
    // Others count with the number of a step when they are compiled.
    constexpr int kSteps =
        kSource == GradientSource::Boxes ? steps_of_round(kConfig) : kStepsOfBlock;
    float* bias_sums = this->bias_sums();
    float totals[2] = {0.0f, 0.0f};
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
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
            if constexpr (kSource == GradientSource::Copies) take(places, index, runs[half]);
            if constexpr (kSource == GradientSource::Memory) {
              // Before sm_90 loads of many halves at once would take registers that there are not.
              if constexpr (!kKeepsPlaces) asm volatile("" ::: "memory");
              load<kWhole>(places, index, runs[half]);
            }
            write<kWhole>(places, block, step, half, runs[half], sums[block], j, chain, totals);
          }
          write_bias_sums<kWhole>(
              places.channel + 8 * step, totals,
              bias_sums + block * 4 * arguments_.tiling.shape.groups * out_channels());
        }
        if constexpr (kSteps < kStepsOfBlock) move_steps<Config, kSteps>(sums[block]);
      }
    }
  }

  /// dy of half `half` of a step, whose sums are those of step `j` in `sums`.
  template <bool kWhole>
  __device__ void write(const Places& places, int block, int step, int half, const Runs& runs,
                        const float (&sums)[kConfig.phases()][kConfig.channels / 2], int j,
                        const Chain& chain, float (&totals)[2]) const {
    const int chunk = 8 * step / kRow;
    const ChannelRows& rows = arguments_.gradient.grad_y;
    const std::int64_t chunk_bytes = 16 * rows.chunk_rows();
    const std::int64_t phase_bytes = 16 * static_cast<std::int64_t>(rows.rows) * rows.columns;
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
              kWhole || (places.channel + 8 * step + odd < out_channels() &&
                         places.row[block][half] + i < height() && k < places.inside[block][half]);
          const float y = sums[phase][4 * j + 2 * half + odd];
          values[odd] = exists ? chain.gradient(y, runs[odd][i][k]) : 0.0f;
          totals[odd] += values[odd];
        }
        if (kWhole ||
            (places.to[block][half] != nullptr && chunk < rows.chunks - places.channel / kRow)) {
          store_channel_pair<Operand, Config>(
              places.to[block][half] + chunk * chunk_bytes + phase * phase_bytes, values[0],
              values[1]);
        }
      }
    }
  }

  /// Adds the lanes' sums of the same channels, writes them and begins anew.
  template <bool kWhole>
  __device__ void write_bias_sums(int channel, float (&totals)[2], float* bias_sums) const {
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
#pragma unroll
      for (int lanes = 4; lanes < 32; lanes *= 2) {
        totals[odd] += __shfl_xor_sync(~0U, totals[odd], lanes);
      }
      if (threadIdx.x % 32 < 4 && (kWhole || channel + odd < out_channels())) {
        bias_sums[channel + odd] = totals[odd];
      }
      totals[odd] = 0.0f;
    }
  }

  /// Where this warp's sums go: those of its other blocks lie 4 rows on.
  __device__ float* bias_sums() const {
    const Tiling& t = arguments_.tiling;
    const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
    const std::int64_t tile =
        (static_cast<std::int64_t>(place_.image / t.tile.images) * t.row_tiles +
         place_.row / t.tile.rows) *
            t.column_tiles +
        place_.column / t.tile.columns;
    const std::int64_t row =
        ((tile * t.sets + place_.set) * kConfig.groups + group_) * kConfig.blocks * 4 + warp;
    return arguments_.gradient.bias_sums +
           (row * t.shape.groups + place_.group) * t.shape.out_channels;
  }

  const KernelArguments& arguments_;
  const TilePlace& place_;
  int group_;
  char* gradients_;
};

}  // namespace tenon::ops::cuda
