// The consumers' end for tiles that reach beyond z, or whose rows of z begin anywhere: flat ones,
// and those at the edges.
//
// A store of the L2 cache's that writes a part of 32 bytes costs as much as one that writes all of
// them, and runs of one position each, of odd rows, write nothing but parts. So a warp puts its
// results in order first, in shared memory of its own: then a store writes neighbouring numbers.
#pragma once

#include "tenon/ops/cuda/fused/tile_writer.cuh"

namespace tenon::ops::cuda {

/// What a warp writes at once: one of every two channels of eight, whose 16 positions in each row
/// of z are neighbours.
template <class Element, class Config>
class RaggedWriter {
  static constexpr KernelConfig kConfig = Config::value;
  static constexpr int kRun = kConfig.column_phases;
  static constexpr int kRows = 4 * kConfig.row_phases;
  static constexpr int kColumns = 16 * kRun;
  /// Such that four channels of eight positions fall on different banks.
  static constexpr int kPitch =
      kColumns + (kColumns * sizeof(Element) == 32 ? 16 : 32) / static_cast<int>(sizeof(Element));
  static_assert(kRows * kPitch * sizeof(Element) <= kConfig.staging_bytes());

 public:
  /// `staging`: of all consumers.
  __device__ RaggedWriter(const KernelArguments& arguments, const TilePlace& place, int group,
                          char* staging)
      : arguments_(arguments),
        place_(place),
        first_position_(group * kConfig.blocks * 64 + threadIdx.x / 32 % 4 * 16),
        lane_(threadIdx.x % 32),
        staging_(staging + (group * 4 + threadIdx.x / 32 % 4) * 2 * kConfig.staging_bytes()) {
    const TransposedShape& shape = arguments.tiling.shape;
    width_ = static_cast<int>(shape.columns.output);
    plane_ = static_cast<int>(shape.rows.output) * width_;
    channels_left_ = shape.out_channels - place.channel - kLaneRow * (lane_ / kColumns);
  }

  template <class Bias, class Chain>
  __device__ void write(const Sums<Config>& sums, const Bias& bias, const Chain& chain) {
    bool any_nan = false;
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
      aim(block);
#pragma unroll
      for (int j = 0; j < kConfig.channels / 8; ++j) {
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          // Two places in turns, so that one meeting of the lanes is enough.
          auto* values = reinterpret_cast<Element*>(staging_ + odd * kConfig.staging_bytes());
          any_nan |= put(sums[block], j, odd, bias(j, odd), chain, values);
          __syncwarp();
          store(values, 8 * j + odd, at_[odd]);
        }
      }
    }
    if (any_nan) *arguments_.found_nan = 1;
  }

 private:
  /// Channels from the first half of the lanes to the second, where one row is too short for all.
  static constexpr int kLaneRow = kColumns < 32 ? 2 : 0;

  /// Finds where this lane's column of a block lies in z.
  __device__ void aim(int block) {
    const Tiling& t = arguments_.tiling;
    const auto position = PositionPlace::of_tile<kConfig.flat>(
        t, place_, first_position_ + block * 64 + lane_ % kColumns / kRun);
    const int row =
        position.row * static_cast<int>(t.shape.rows.stride) + place_.set * kConfig.row_phases;
    const int column = position.column * kRun + lane_ % kRun;
#pragma unroll
    for (int i = 0; i < kConfig.row_phases; ++i) {
      there_[i] = position.image < t.shape.images &&
                  row + i < static_cast<int>(t.shape.rows.output) && column < width_;
    }
    const int channel = place_.channel + kLaneRow * (lane_ / kColumns);
    at_[0] =
        static_cast<Element*>(arguments_.z) +
        static_cast<std::int64_t>(
            (position.image * t.shape.groups + place_.group) * t.shape.out_channels + channel) *
            plane_ +
        row * width_ + column;
    at_[1] = at_[0] + plane_;
  }

  /// Results of this lane's positions and channel; true where a sum was no number.
  template <class Chain>
  __device__ bool put(const float (&sums)[kConfig.phases()][kConfig.channels / 2], int j, int odd,
                      float shift, const Chain& chain, Element* values) const {
    bool any_nan = false;
#pragma unroll
    for (int i = 0; i < kConfig.row_phases; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float run[kRun];
#pragma unroll
        for (int k = 0; k < kRun; ++k) {
          const float sum = sums[i * kRun + k][4 * j + 2 * half + odd] + shift;
          if constexpr (kConfig.split) any_nan |= isnan(sum);
          run[k] = chain(sum);
        }
        Element* at = values + (i * 4 + lane_ % 4) * kPitch + (half * 8 + lane_ / 4) * kRun;
        if constexpr (kRun == 1) {
          *at = tenon::cuda::convert<Element>(run[0]);
        } else if constexpr (std::is_same_v<Element, float>) {
          *reinterpret_cast<float2*>(at) = make_float2(run[0], run[1]);
        } else {
          *reinterpret_cast<unsigned*>(at) = round_pair<Element>(run[0], run[1]);
        }
      }
    }
    return any_nan;
  }

  /// Of channels `channel`, `channel` + 2 and so on, of which the first is at `at`, which moves on
  /// to the next eight: sums of pointers, as the compiler would keep all products in registers.
  __device__ void store(const Element* values, int channel, Element*& at) const {
#pragma unroll
    for (int c = 0; c < 4; c += 32 / kColumns) {
#pragma unroll
      for (int i = 0; i < kConfig.row_phases; ++i) {
        const Element value = values[(i * 4 + c + lane_ / kColumns) * kPitch + lane_ % kColumns];
        if (there_[i] && channel + 2 * c < channels_left_) at[i * width_] = value;
      }
      at += 64 / kColumns * plane_;
    }
  }

  const KernelArguments& arguments_;
  const TilePlace& place_;
  int first_position_;
  int lane_;
  char* staging_;
  int width_;
  int plane_;
  int channels_left_;
  bool there_[kConfig.row_phases];
  Element* at_[2];  // this lane's column, of even and odd channels
};

/// Makes z of a tile's sums. `staging`: of the consumers, as SharedLayout says.
template <class Element, class Config, class Bias, class Chain>
__device__ void finish(const KernelArguments& arguments, const TilePlace& place, int group,
                       const Sums<Config>& sums, const Bias& bias, const Chain& chain,
                       char* staging) {
  const Tiling& t = arguments.tiling;
  constexpr int kRun = (joins_runs(Config::value) ? 2 : 1) * Config::value.column_phases;
  const int rows_end = (place.row + t.tile.rows - 1) * static_cast<int>(t.shape.rows.stride) +
                       (place.set + 1) * Config::value.row_phases;
  const bool whole =
      rows_end <= t.shape.rows.output &&
      (place.column + t.tile.columns) * Config::value.column_phases <= t.shape.columns.output &&
      place.image + t.tile.images <= t.shape.images &&
      place.channel + Config::value.channels <= t.shape.out_channels &&
      (kRun == 3 || t.shape.columns.output % kRun == 0);
  if (!Config::value.flat && whole) {
    write_tile<true, Element, Config>(arguments, place, group, sums, bias, chain);
  } else if constexpr (Config::value.stages_results()) {
    RaggedWriter<Element, Config>(arguments, place, group, staging).write(sums, bias, chain);
  } else {
    write_tile<false, Element, Config>(arguments, place, group, sums, bias, chain);
  }
}

}  // namespace tenon::ops::cuda
