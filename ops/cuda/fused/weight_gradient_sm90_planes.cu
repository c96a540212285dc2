// The weight gradient by products of warpgroups (sm_90a), from planes of x and rows of dy.
//
// A block is as in weight_gradient.cuh, but its warpgroups have up to three taps each: 64 output
// channels by 64 input channels, summed over positions. The tensor cores take positions for what is
// summed over from planes of x as they lie in memory, eight (TF32) or sixteen at a time, but only
// from multiples of 16 bytes on; and from rows of dy at any position. So a tile is of x's columns
// and q's rows: a tap is a row of x's window and a column of dy's, of its phase. Taps that differ
// by their row alone are a run: one product, of the same of dy by two or three rows of x that
// follow each other. In TF32 rows of dy must come through registers, and x's last digits are cut
// off instead of rounded. One thread brings x and dy by bulk copies.
#include <array>
#include <vector>

#include "tenon/core/cuda/launch.cuh"
#include "tenon/ops/cuda/fused/warpgroup_across.cuh"
#include "tenon/ops/cuda/fused/weight_gradient_loader.cuh"

namespace tenon::ops::cuda {
namespace {

constexpr int kChannels = 64;  // of a tile, of x and of dy

__device__ PipelineBarrier* full_barriers(char* shared) {
  return reinterpret_cast<PipelineBarrier*>(shared);
}
__device__ PipelineBarrier* empty_barriers(char* shared) {
  return full_barriers(shared) + kMostStages;
}

/// Waits until `tiles` have begun; `seen` is a number that have.
__device__ void follow(const LeadingTiles& leading, int tiles, int& seen) {
  while (seen < tiles) {
    seen = *static_cast<const volatile int*>(leading.begun);
    if (seen < tiles) __nanosleep(100);
  }
}

/// Run by one thread.
template <class Operand>
__device__ void produce(const WeightGradientArguments& arguments, const BlockUnit& block,
                        char* shared) {
  const WeightGradientTiling& t = arguments.tiling;
  const TapUnit& unit = t.units[block.taps];
  const int x_bytes = t.window_rows * kChannels * t.line_bytes;
  const int dy_bytes = 16 * t.dy_chunks * t.dy_chunk_rows;
  const int x_channel = block.group * t.shape.in_channels + block.in_tile * kChannels;
  const int dy_chunk = block.group * arguments.dy_chunks +
                       block.out_tile * (kChannels / OperandTraits<Operand>::kRow);
  const TilePosition step(t, t.splits);
  TilePosition tile(t, arguments.beside ? t.tiles() - 1 - block.split : block.split);
  RingPosition ring{0, 1};  // all slots are empty at first
  int begun = 0;            // tiles of those that lead
  for (int number = block.split; number < t.tiles(); number += t.splits) {
    empty_barriers(shared)[ring.slot].wait(ring.parity);
    if (arguments.leading.begun != nullptr) {
      follow(arguments.leading, arguments.leading.before(tile.image, tile.row, tile.column), begun);
    }
    char* x = shared + WeightGradientTiling::kPlanesOffset + ring.slot * t.stage_bytes();
    PipelineBarrier& full = full_barriers(shared)[ring.slot];
    full.arrive_and_expect(x_bytes);
    copy_box(x, arguments.x_map, tile.column, x_channel, tile.row + unit.first_row, tile.image,
             full);
    copy_rows(x + t.dy_offset(), arguments.dy_map, 2 * (tile.column + unit.first_column), tile.row,
              tile.image, dy_chunk, dy_bytes, full, t.phases[unit.first_slot]);
    if (arguments.beside) {
      tile.retreat(t, step);
    } else {
      tile.advance(t, step);
    }
    ring.advance(t.tile.stages);
  }
}

/// A thread's part of 64 channels of dy at 8 positions, in TF32.
class DyFragment {
 public:
  /// From `dy`, where this thread finds its first word.
  __device__ void load(std::uint32_t dy, std::uint32_t chunk_bytes, bool exchanged) {
    // Channels lane/4 and lane/4 + 8 at positions lane%4 and lane%4 + 4. Where neighbouring chunks
    // lie on the same banks, the lanes of one read the latter positions while those of the other
    // read the former.
    const std::uint32_t first = dy + (exchanged ? kFourPositions : 0);
    const std::uint32_t second = dy + (exchanged ? 0 : kFourPositions);
    const std::uint32_t read[4] = {load_word(first), load_word(first + 2 * chunk_bytes),
                                   load_word(second), load_word(second + 2 * chunk_bytes)};
    words_[0] = exchanged ? read[2] : read[0];
    words_[1] = exchanged ? read[3] : read[1];
    words_[2] = exchanged ? read[0] : read[2];
    words_[3] = exchanged ? read[1] : read[3];
  }
  __device__ const std::uint32_t (&words() const)[4] { return words_; }

 private:
  static constexpr std::uint32_t kFourPositions = 4 * 16;

  __device__ static std::uint32_t load_word(std::uint32_t address) {
    std::uint32_t word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(address));
    return word;
  }

  std::uint32_t words_[4];
};

/// The sums of a warpgroup's two runs of taps, and how they grow by a tile.
template <class Operand, int kFirst, int kSecond>
class RunProducts {
  static constexpr bool kFromRegisters = std::is_same_v<Operand, Tf32>;
  static constexpr int kRow = OperandTraits<Operand>::kRow;
  static constexpr int kPositions = 2 * kRow;  // of a step
  static constexpr int kRuns = kSecond > 0 ? 2 : 1;

 public:
  /// `runs` are the warpgroup's.
  __device__ RunProducts(const WeightGradientTiling& t, const TapRun* runs)
      : dy_chunk_bytes_(16 * t.dy_chunk_rows), second_(16 * t.second) {
    const int window_row = kChannels * t.line_bytes;
    x_lines_ = descriptor_of_lines(0, t.line_bytes, window_row);
    x_step_ = (t.tile.columns < kPositions ? 2 : 1) * window_row >> 4;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int channel = static_cast<int>(threadIdx.x) / 32 % 4 * 16 + lane / 4;
    exchanged_ = t.dy_chunk_rows % 8 == 0 && lane >= 16;
    const int thread_offset = channel / kRow * static_cast<int>(dy_chunk_bytes_) + 16 * (lane % 4) +
                              channel % kRow * (16 / kRow);
#pragma unroll
    for (int i = 0; i < kRuns; ++i) {
      // A run of which there is nothing is multiplied like any other, and not stored.
      const UnitTap& tap = t.taps[runs[i].taps > 0 ? runs[i].first_tap : 0];
      x_row_[i] = tap.window * window_row >> 4;
      dy_[i] = kFromRegisters ? 16 * tap.dy + thread_offset : tap.dy;
    }
  }

  /// Adds the products of the tile at `x` and `dy`, bytes of shared memory; those of the last step
  /// may then still be under way. Calls `others_done` when those of all tiles before are done.
  template <class Done>
  __device__ void add(const WeightGradientTiling& t, std::uint32_t x, std::uint32_t dy,
                      const Done& others_done) {
    if constexpr (kFromRegisters) {
      load(t, dy, 0, fragments_[0]);
      for (int step = 0; step < t.steps; step += 2) {
        multiply(t, x, step, fragments_[0]);
        if (step == 0) others_done();
        load(t, dy, step + 1, fragments_[1]);
        multiply(t, x, step + 1, fragments_[1]);
        if (step + 2 < t.steps) load(t, dy, step + 2, fragments_[0]);
      }
    } else {
      warpgroup_begin();
      for (int step = 0; step < t.steps; ++step) {
        const std::uint32_t dy_row = (dy >> 4) + dy_step(t, step);
        const auto of_dy = [&](int run) {
          return descriptor_of_rows(dy_row + dy_[run], dy_chunk_bytes_, second_);
        };
        warpgroup_multiply_across<Operand, kChannels * kFirst>(first, of_dy(0), of_x(t, x, step, 0),
                                                               !fresh_);
        if constexpr (kSecond > 0) {
          warpgroup_multiply_across<Operand, kChannels * kSecond>(second, of_dy(1),
                                                                  of_x(t, x, step, 1), !fresh_);
        }
        fresh_ = false;
        if (step == 0) {
          warpgroup_commit();
          warpgroup_wait<1>();
          others_done();
        }
      }
      warpgroup_commit();
    }
  }

  /// Waits for all products.
  __device__ void finish() {
    warpgroup_wait<0>();
#pragma unroll
    for (int i = 0; i < 32 * kFirst; ++i) asm volatile("" : "+f"(first[i]));
#pragma unroll
    for (int i = 0; i < 32 * kSecond; ++i) asm volatile("" : "+f"(second[i]));
  }

  /// Whether there were no products.
  __device__ bool is_fresh() const { return fresh_; }

  float first[32 * kFirst];
  float second[kSecond > 0 ? 32 * kSecond : 1];

 private:
  /// Where a step begins, in positions of dy's window.
  __device__ static int dy_step(const WeightGradientTiling& t, int step) {
    return (step >> t.step_shift) * t.step_row + (step & t.step_mask) * kPositions;
  }
  __device__ std::uint64_t of_x(const WeightGradientTiling& t, std::uint32_t x, int step,
                                int run) const {
    return x_lines_ + (x >> 4) + x_row_[run] + (step >> t.step_shift) * x_step_ +
           2 * (step & t.step_mask);
  }

  __device__ void load(const WeightGradientTiling& t, std::uint32_t dy, int step,
                       DyFragment (&fragments)[kRuns]) const {
    const std::uint32_t begin = dy + 16 * dy_step(t, step);
#pragma unroll
    for (int i = 0; i < kRuns; ++i) {
      fragments[i].load(begin + dy_[i], dy_chunk_bytes_, exchanged_);
    }
  }
  /// Starts the products of a step, and waits for those of the step before.
  __device__ void multiply(const WeightGradientTiling& t, std::uint32_t x, int step,
                           const DyFragment (&fragments)[kRuns]) {
    warpgroup_begin();
    warpgroup_multiply_across<kChannels * kFirst>(first, fragments[0].words(), of_x(t, x, step, 0),
                                                  !fresh_);
    if constexpr (kSecond > 0) {
      warpgroup_multiply_across<kChannels * kSecond>(second, fragments[1].words(),
                                                     of_x(t, x, step, 1), !fresh_);
    }
    fresh_ = false;
    warpgroup_commit();
    warpgroup_wait<1>();
  }

  std::uint64_t x_lines_;  // describes what begins at 0
  std::uint32_t x_step_;   // to the next line of steps, in units of 16 bytes
  std::uint32_t dy_chunk_bytes_;
  std::uint32_t second_;  // from the first eight positions of dy to the next
  bool exchanged_;
  bool fresh_ = true;  // the first products overwrite what the sums hold
  std::uint32_t x_row_[kRuns];
  std::uint32_t dy_[kRuns];
  DyFragment fragments_[kFromRegisters ? 2 : 1][kRuns];
};

/// Stores a tap's sums, or adds them to those of the slices before. `nothing`: there were none.
__device__ void store_sums(float* data, const float* sums, bool continues, bool nothing) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  float* at = data + thread % 4 * 2 * kChannels + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int input = i / 4 * 8 + i % 2;
    const int output = i / 2 % 2 * 8;
    float& sum = at[input * kChannels + output];
    sum = (continues ? sum : 0.0f) + (nothing ? 0.0f : sums[i]);
  }
}

/// Stores the sums of a run of up to kTaps taps.
template <int kTaps>
__device__ void store_run(const WeightGradientArguments& arguments, const BlockUnit& block,
                          const TapRun& run, const float* sums, bool nothing) {
  const WeightGradientTiling& t = arguments.tiling;
  float* first = arguments.workspace + block.split * t.split_floats() +
                 (block.channels * t.tap_count + run.first_tap) * t.tap_floats();
#pragma unroll
  for (int i = 0; i < kTaps; ++i) {
    if (i >= run.taps) break;
    store_sums(first + i * t.tap_floats(), sums + 32 * i, arguments.continues, nothing);
  }
}

template <class Operand, int kGroups, int kFirst, int kSecond>
__device__ void consume(const WeightGradientArguments& arguments, const BlockUnit& block,
                        char* shared, int group) {
  const WeightGradientTiling& t = arguments.tiling;
  const TapRun* runs = t.runs + (block.taps * kGroups + group) * 2;
  const std::uint32_t stages = shared_address(shared + WeightGradientTiling::kPlanesOffset);
  RunProducts<Operand, kFirst, kSecond> products(t, runs);
  int unfinished = -1;  // the slot whose products may still be under way
  RingPosition ring;
  for (int number = block.split; number < t.tiles(); number += t.splits) {
    full_barriers(shared)[ring.slot].wait(ring.parity);
    const std::uint32_t x = stages + ring.slot * t.stage_bytes();
    products.add(t, x, x + t.dy_offset(), [&] {
      if (unfinished < 0) return;
      // Reads are done that a bulk copy could overtake.
      if constexpr (std::is_same_v<Operand, Tf32>) fence_async_proxy();
      __syncwarp();
      empty_barriers(shared)[unfinished].arrive_as_warp();
    });
    unfinished = ring.slot;
    ring.advance(t.tile.stages);
  }
  products.finish();
  store_run<kFirst>(arguments, block, runs[0], products.first, products.is_fresh());
  if constexpr (kSecond > 0) {
    store_run<kSecond>(arguments, block, runs[1], products.second, products.is_fresh());
  }
}

/// Registers that a thread has of those that multiply; the others need few.
constexpr int registers_of(int groups) { return groups == 3 ? 152 : 112; }
constexpr int kProducerRegisters = 32;

/// kGroups warpgroups multiply, one more copies; each has a run of up to kFirst taps and one of up
/// to kSecond.
template <class Operand, int kGroups, int kFirst, int kSecond>
__global__ void __launch_bounds__(128 * (kGroups + 1), 1)
    weight_gradient_planes_kernel(const tenon::cuda::PreviousKernel previous,
                                  const __grid_constant__ WeightGradientArguments arguments) {
  extern __shared__ __align__(1024) char shared[];
  const WeightGradientTiling& t = arguments.tiling;
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < t.tile.stages; ++slot) {
      full_barriers(shared)[slot].init(2);  // of two copies
      empty_barriers(shared)[slot].init(4 * kGroups * kWarpArrivals);
    }
    fence_async_proxy();
  }
  __syncthreads();
  if (arguments.beside) {
    let_next_kernel_begin();
  } else {
    previous.wait();
  }
  const BlockUnit block(t, static_cast<int>(blockIdx.x));
  const int group = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == kGroups) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    if (threadIdx.x % 128 == 0) produce<Operand>(arguments, block, shared);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers_of(kGroups)));
    consume<Operand, kGroups, kFirst, kSecond>(arguments, block, shared, group);
    if (arguments.beside) previous.wait();
  }
}

template <class Operand, int kGroups, int kFirst, int kSecond>
void launch(const WeightGradientArguments& arguments, int shared_bytes, Device device) {
  constexpr auto kKernel = weight_gradient_planes_kernel<Operand, kGroups, kFirst, kSecond>;
  tenon::cuda::launch<kKernel>({static_cast<unsigned>(arguments.tiling.blocks()),
                                128U * (kGroups + 1), static_cast<std::size_t>(shared_bytes)},
                               device, arguments);
}

template <class Operand, int kGroups, int kFirst, int kSecond>
constexpr WeightGradientRow row(OperandKind operand) {
  return {operand,
          {.m_tiles = kChannels / 16,
           .n_tiles = kChannels / 8,
           .consumers = kGroups * (kFirst + kSecond),
           .producers = 4,
           .split = false,
           .warpgroups = kGroups,
           .first_run = kFirst,
           .second_run = kSecond},
          launch<Operand, kGroups, kFirst, kSecond>};
}

/// By the kernels that they are best for: 3 x 3 with stride 2 has runs of 2, 2, 2, 1, 1 and 1 taps,
/// with stride 1 three of 3; 4 x 4 with stride 2 eight of 2, 5 x 5 five of 3 and five of 2; and 2 x
/// 2 four of 1.
template <class Operand>
constexpr std::array<WeightGradientRow, 4> rows_of(OperandKind operand) {
  return {row<Operand, 3, 2, 1>(operand), row<Operand, 3, 3, 0>(operand),
          row<Operand, 4, 2, 0>(operand), row<Operand, 4, 1, 0>(operand)};
}

}  // namespace

std::span<const WeightGradientRow> weight_gradient_rows_sm90() {
  static const auto rows = [] {
    std::vector<WeightGradientRow> all;
    for (const auto& of_operand :
         {rows_of<Tf32>(OperandKind::Tf32), rows_of<__nv_bfloat16>(OperandKind::BFloat16),
          rows_of<__half>(OperandKind::Float16)}) {
      all.insert(all.end(), of_operand.begin(), of_operand.end());
    }
    return all;
  }();
  return rows;
}

}  // namespace tenon::ops::cuda
