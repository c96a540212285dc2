// The products of a stage by warps, for sm_80 and later: a warp owns 16 positions of each block.
#pragma once

#include "tenon/ops/cuda/fused/conv_kernel.cuh"

namespace tenon::ops::cuda {

template <class Operand, class Config>
class WarpMultiplier {
  static constexpr KernelConfig kConfig = Config::value;
  static constexpr int kChannels = kConfig.channels;

 public:
  static constexpr bool kAsync = false;

  __device__ WarpMultiplier(const Tiling& tiling, int group) : tiling_(tiling) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
    // ldmatrix: lanes 0 to 15 name rows of the first chunk, 16 to 31 of the second.
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
      const PositionPlace place(tiling,
                                (group * kConfig.blocks + block) * 64 + warp * 16 + lane % 16);
      const int position =
          (place.image * tiling.sources * tiling.window_rows + place.row) * tiling.window_columns +
          place.column;
      x_offset_[block] = 16 * (position + lane / 16 * tiling.chunk_rows());
    }
  }

  template <Role kRole>
  __device__ static void share_registers() {}
  /// Before the first products of sums.
  __device__ void begin(Sums<Config>& sums) const { clear_sums<Config>(sums); }

  template <int kPending>
  __device__ void wait() const {
    __syncwarp();
  }
  __device__ void settle(Sums<Config>& /*sums*/) const {}

  /// With split, sums of many taps join `totals` on the way, as `stages_of_sum` would have it.
  __device__ void add(int set, std::uint32_t x, std::uint32_t weights, Sums<Config>& sums,
                      [[maybe_unused]] Sums<Config>& totals) const {
    const int window = tiling_.chunk_rows();  // rows of a chunk
    const TapTable& taps = tiling_.taps;
#pragma unroll
    for (int phase = 0; phase < kConfig.phases(); ++phase) {
      const int begin = taps.first[set * kConfig.phases() + phase];
      const int end = taps.first[set * kConfig.phases() + phase + 1];
      for (int tap = begin; tap < end; ++tap) {
        const std::uint32_t tap_x = x + 16 * taps.window[tap];
        const std::uint32_t tap_weights =
            weights + 16 * (tap - tiling_.first_tap(set)) * kConfig.tap_rows();
#pragma unroll
        for (int chunk = 0; chunk < kConfig.chunks; chunk += 2) {
          multiply_step(tap_x + 16 * chunk * window, tap_weights + 16 * chunk * kChannels, phase,
                        sums);
        }
        if constexpr (kConfig.split) {
          constexpr int kTapsOfSum = kStepsOfSum / 3 / (kConfig.chunks / 2);
          if ((tap - begin) % kTapsOfSum == kTapsOfSum - 1) join_totals(phase, sums, totals);
        }
      }
    }
  }

 private:
  using Fragments = std::uint32_t[kConfig.blocks][4];

  __device__ static void join_totals(int phase, Sums<Config>& sums, Sums<Config>& totals) {
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
#pragma unroll
      for (int i = 0; i < kChannels / 2; ++i) {
        totals[block][phase][i] += sums[block][phase][i];
        sums[block][phase][i] = 0.0f;
      }
    }
  }

  /// 32 bytes of channels of one tap.
  __device__ void multiply_step(std::uint32_t x, std::uint32_t weights, int phase,
                                Sums<Config>& sums) const {
    // Of the weights, lanes name 8 channels of both chunks, then the next 8.
    const int lane = static_cast<int>(threadIdx.x) % 32;
    weights += 16 * (lane % 8 + lane / 16 * 8) + 16 * (lane / 8 % 2 * kChannels);
    Fragments a;
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
      load_matrices(a[block], x + x_offset_[block]);
    }
    if constexpr (kConfig.split) {
      // The small products first, then heads by heads.
      const std::uint32_t weight_tails = weights + 16 * kConfig.chunks * kChannels;
      Fragments tails;
#pragma unroll
      for (int block = 0; block < kConfig.blocks; ++block) split_words(a[block], tails[block]);
      multiply_fragments(a, weight_tails, phase, sums);
      multiply_fragments(tails, weights, phase, sums);
    }
    multiply_fragments(a, weights, phase, sums);
  }

  __device__ static void multiply_fragments(const Fragments& a, std::uint32_t weights, int phase,
                                            Sums<Config>& sums) {
    if constexpr (kChannels == 8) {
      std::uint32_t b[2];
      load_matrices(b, weights);
#pragma unroll
      for (int block = 0; block < kConfig.blocks; ++block) {
        multiply<Operand>(sums[block][phase], a[block], b[0], b[1]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < kChannels / 16; ++j) {
        std::uint32_t b[4];
        load_matrices(b, weights + 16 * 16 * j);
#pragma unroll
        for (int block = 0; block < kConfig.blocks; ++block) {
          multiply<Operand>(sums[block][phase] + 8 * j, a[block], b[0], b[1]);
          multiply<Operand>(sums[block][phase] + 8 * j + 4, a[block], b[2], b[3]);
        }
      }
    }
  }

  const Tiling& tiling_;
  std::uint32_t x_offset_[kConfig.blocks];
};

}  // namespace tenon::ops::cuda
