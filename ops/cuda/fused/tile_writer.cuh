// The consumers' end: sums begin with the bias, and end as z.
#pragma once

#include <type_traits>

#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/tile_place.cuh"

namespace tenon::ops::cuda {

/// The sums of a consumer group's positions; laid out over its warps as by `multiply`: block of 64
/// positions, phase, and for each 8 channels 4 numbers (positions lane/4 and lane/4 + 8 of the
/// warp's 16, channels 2(lane%4) and the next).
template <class Config>
using Sums = float[Config::value.blocks][Config::value.phases()][Config::value.channels / 2];

template <class Config>
__device__ void clear_sums(Sums<Config>& sums) {
#pragma unroll
  for (int block = 0; block < Config::value.blocks; ++block) {
#pragma unroll
    for (int phase = 0; phase < Config::value.phases(); ++phase) {
#pragma unroll
      for (int i = 0; i < Config::value.channels / 2; ++i) sums[block][phase][i] = 0.0f;
    }
  }
}

/// totals += sums; sums = 0.
template <class Config>
__device__ void move_sums(Sums<Config>& sums, Sums<Config>& totals) {
#pragma unroll
  for (int block = 0; block < Config::value.blocks; ++block) {
#pragma unroll
    for (int phase = 0; phase < Config::value.phases(); ++phase) {
#pragma unroll
      for (int i = 0; i < Config::value.channels / 2; ++i) {
        totals[block][phase][i] += sums[block][phase][i];
      }
    }
  }
  clear_sums<Config>(sums);
}

/// Writes the results of neighbouring columns; kWhole: all are inside, at an address that the run's
/// size divides.
template <bool kWhole, class Element, int kCount>
__device__ void store_run(Element* at, const float (&values)[kCount], int inside) {
  if constexpr (kWhole && kCount % 2 == 0) {
    if constexpr (std::is_same_v<Element, float>) {
      if constexpr (kCount == 2) {
        __stcs(reinterpret_cast<float2*>(at), make_float2(values[0], values[1]));
      } else {
        __stcs(reinterpret_cast<float4*>(at),
               make_float4(values[0], values[1], values[2], values[3]));
      }
    } else if constexpr (kCount == 2) {
      __stcs(reinterpret_cast<unsigned*>(at), round_pair<Element>(values[0], values[1]));
    } else {
      __stcs(reinterpret_cast<uint2*>(at), make_uint2(round_pair<Element>(values[0], values[1]),
                                                      round_pair<Element>(values[2], values[3])));
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (kWhole || i < inside) at[i] = tenon::cuda::convert<Element>(values[i]);
    }
  }
}

/// A lane has the runs of positions p and p + 8 (`values`), its partner, 4 lanes on, those of the
/// next position. Afterwards one has both runs of the first half in `joined`, the other those of
/// the second, so that a store of the warp writes all of its 16 positions, which are whole lines of
/// z in float32 with two column phases.
template <int kRun>
__device__ void join_with_partner(const float (&values)[2][kRun], bool first,
                                  float (&joined)[2 * kRun]) {
#pragma unroll
  for (int k = 0; k < kRun; ++k) {
    const float other = __shfl_xor_sync(~0U, first ? values[1][k] : values[0][k], 4);
    joined[k] = first ? values[0][k] : other;
    joined[kRun + k] = first ? other : values[1][k];
  }
}

/// Applies the chain to the sums and writes z. kWhole: the tile has no part outside of z, and rows
/// of z begin where joined runs can be stored at once.
template <bool kWhole, class Element, class Config, class Chain>
__device__ void write_tile(const KernelArguments& arguments, const TilePlace& place, int group,
                           const Sums<Config>& sums, const Chain& chain) {
  constexpr KernelConfig kConfig = Config::value;
  constexpr bool kJoins = kWhole && joins_runs(kConfig);
  const Tiling& t = arguments.tiling;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int height = static_cast<int>(t.shape.rows.output);
  const int width = static_cast<int>(t.shape.columns.output);
  const int plane = height * width;
  const int channel = place.channel + lane % 4 * 2;
  [[maybe_unused]] const bool first = lane / 4 % 2 == 0;
  bool any_nan = false;
#pragma unroll
  for (int block = 0; block < kConfig.blocks; ++block) {
    // The 16 positions of a warp are neighbours: half a line of z each 8 of them.
    Element* at[2];
    int image[2];
    int row[2];
    int inside[2];  // columns from here to the end
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const PositionPlace position(
          t, (group * kConfig.blocks + block) * 64 + warp * 16 + half * 8 + lane / 4);
      image[half] = place.image + position.image;
      row[half] = (place.row + position.row) * static_cast<int>(t.shape.rows.stride) +
                  place.set * kConfig.row_phases;
      const int column = (place.column + position.column) * kConfig.column_phases;
      inside[half] = image[half] < t.shape.images ? width - column : 0;
      at[half] =
          static_cast<Element*>(arguments.z) +
          static_cast<std::int64_t>(
              (image[half] * t.shape.groups + place.group) * t.shape.out_channels + channel) *
              plane +
          row[half] * width + column;
    }
    if (kJoins && !first) at[0] = at[1] - kConfig.column_phases;
#pragma unroll
    for (int j = 0; j < kConfig.channels / 8; ++j) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        if (kWhole || channel + 8 * j + odd < t.shape.out_channels) {
#pragma unroll
          for (int i = 0; i < kConfig.row_phases; ++i) {
            float values[2][kConfig.column_phases];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              if (!kWhole && (inside[half] <= 0 || row[half] + i >= height)) continue;
#pragma unroll
              for (int k = 0; k < kConfig.column_phases; ++k) {
                const float sum =
                    sums[block][i * kConfig.column_phases + k][4 * j + 2 * half + odd];
                if constexpr (kConfig.split) any_nan |= isnan(sum);
                values[half][k] = chain(sum);
              }
              if constexpr (!kJoins) {
                store_run<kWhole>(at[half] + i * width, values[half], inside[half]);
              }
            }
            if constexpr (kJoins) {
              float joined[2 * kConfig.column_phases];
              join_with_partner(values, first, joined);
              store_run<true>(at[0] + i * width, joined, 0);
            }
          }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) at[half] += odd == 0 ? plane : 7 * plane;
      }
    }
  }
  if (any_nan) *arguments.found_nan = 1;
}

template <class Element, class Config, class Chain>
__device__ void finish(const KernelArguments& arguments, const TilePlace& place, int group,
                       const Sums<Config>& sums, const Chain& chain) {
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
  if (whole) {
    write_tile<true, Element, Config>(arguments, place, group, sums, chain);
  } else {
    write_tile<false, Element, Config>(arguments, place, group, sums, chain);
  }
}

/// Begins the sums with the bias.
template <class Element, class Config>
__device__ void begin_sums(const KernelArguments& arguments, const TilePlace& place,
                           Sums<Config>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int last = arguments.tiling.shape.out_channels - 1;
  const Element* bias = arguments.bias == nullptr
                            ? nullptr
                            : static_cast<const Element*>(arguments.bias) +
                                  place.group * arguments.tiling.shape.out_channels;
#pragma unroll
  for (int j = 0; j < Config::value.channels / 8; ++j) {
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      const int channel = min(place.channel + 8 * j + lane % 4 * 2 + odd, last);
      const float shift = bias == nullptr ? 0.0f : tenon::cuda::convert<float>(bias[channel]);
#pragma unroll
      for (int block = 0; block < Config::value.blocks; ++block) {
#pragma unroll
        for (int phase = 0; phase < Config::value.phases(); ++phase) {
          sums[block][phase][4 * j + odd] = shift;
          sums[block][phase][4 * j + 2 + odd] = shift;
        }
      }
    }
  }
}

}  // namespace tenon::ops::cuda
