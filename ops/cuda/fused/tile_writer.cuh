// The consumers' end: sums, bias and chain become z.
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

/// totals += sums.
template <class Config>
__device__ void add_sums(const Sums<Config>& sums, Sums<Config>& totals) {
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
}

/// Where sums hold the bias already.
struct NoBias {
  __device__ float operator()(int /*j*/, int /*odd*/) const { return 0.0f; }
};

/// The bias of a lane's channels of a tile.
template <class Element, class Config>
class TileBias {
 public:
  /// Reads it.
  __device__ void load(const KernelArguments& arguments, const TilePlace& place) {
    const int first = place.channel + static_cast<int>(threadIdx.x) % 4 * 2;
    const int last = arguments.tiling.shape.out_channels - 1;
    const Element* bias = static_cast<const Element*>(arguments.bias) +
                          place.group * arguments.tiling.shape.out_channels;
    const auto value = [&](int i) {
      const int channel = min(first + i / 2 * 8 + i % 2, last);
      return arguments.bias == nullptr ? Element(0.0f) : bias[channel];
    };
    if constexpr (kPacked) {
#pragma unroll
      for (int j = 0; j < kCount / 2; ++j) words_[j] = join(value(2 * j), value(2 * j + 1));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) words_[i] = tenon::cuda::convert<float>(value(i));
    }
  }

  /// Of channel 8j + 2(lane%4) + odd of the tile.
  __device__ float operator()(int j, int odd) const {
    if constexpr (kPacked) {
      std::uint32_t pair = words_[j];
      // The assembler, left to itself, keeps what a pair was made of in registers, too.
      asm volatile("lop3.b32 %0, %0, %1, 0, 0xc0;"
                   : "+r"(pair)
                   : "r"(odd == 1 ? 0xffff0000U : 0xffffU));
      return number_of<Element>(pair, odd == 1);
    } else {
      return words_[2 * j + odd];
    }
  }

  /// sums = the bias.
  __device__ void fill(Sums<Config>& sums) const {
    visit(sums, [](float& sum, float value) { sum = value; });
  }
  /// sums += the bias.
  __device__ void add_to(Sums<Config>& sums) const {
    visit(sums, [](float& sum, float value) { sum += value; });
  }

 private:
  static constexpr int kCount = Config::value.channels / 4;
  /// At 16 bits two numbers share a register where registers are few; the forward, where they are
  /// not, would be slower.
  static constexpr bool kPacked = sizeof(Element) == 2 && Config::value.work == Work::SumGradient;

  template <class Visit>
  __device__ void visit(Sums<Config>& sums, const Visit& visit_sum) const {
#pragma unroll
    for (int block = 0; block < Config::value.blocks; ++block) {
#pragma unroll
      for (int phase = 0; phase < Config::value.phases(); ++phase) {
#pragma unroll
        for (int i = 0; i < Config::value.channels / 2; ++i) {
          visit_sum(sums[block][phase][i], (*this)(i / 4, i % 2));
        }
      }
    }
  }

  std::conditional_t<kPacked, std::uint32_t, float> words_[kPacked ? kCount / 2 : kCount];
};

/// Writes results of neighbouring columns at an address that their size divides.
template <class Element, int kCount>
__device__ void store_run(Element* at, const float (&values)[kCount]) {
  if constexpr (kCount % 2 == 0) {
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
    for (int i = 0; i < kCount; ++i) at[i] = tenon::cuda::convert<Element>(values[i]);
  }
}

/// Writes the first `inside` of them; `together`: all or none of them are, and the size divides.
template <class Element, int kCount>
__device__ void store_part(Element* at, const float (&values)[kCount], int inside, bool together) {
  if (together && inside > 0) store_run(at, values);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (!together && i < inside) at[i] = tenon::cuda::convert<Element>(values[i]);
  }
}

/// A lane has the runs of positions p and p + 8 (`values`), its partner, 4 lanes on, those of the
/// next position. One of them stores both runs of the first half at `at`, the other those of the
/// second, so that a store of the warp writes all of its 16 positions, which are whole lines of z
/// in float32 with two column phases. Numbers of two bytes change lanes as pairs.
template <class Element, int kRun>
__device__ void store_joined(Element* at, const float (&values)[2][kRun], bool first) {
  const auto of_partner = [](auto value) { return __shfl_xor_sync(~0U, value, 4); };
  if constexpr (std::is_same_v<Element, float>) {
    float joined[2 * kRun];
#pragma unroll
    for (int k = 0; k < kRun; ++k) {
      const float other = of_partner(first ? values[1][k] : values[0][k]);
      joined[k] = first ? values[0][k] : other;
      joined[kRun + k] = first ? other : values[1][k];
    }
    store_run(at, joined);
  } else if constexpr (kRun == 1) {
    const std::uint32_t mine = round_pair<Element>(values[0][0], values[1][0]);
    const std::uint32_t other = of_partner(mine);
    __stcs(reinterpret_cast<unsigned*>(at), __byte_perm(mine, other, first ? 0x5410 : 0x3276));
  } else {
    static_assert(kRun == 2);
    const std::uint32_t mine[2] = {round_pair<Element>(values[0][0], values[0][1]),
                                   round_pair<Element>(values[1][0], values[1][1])};
    const std::uint32_t other = of_partner(first ? mine[1] : mine[0]);
    __stcs(reinterpret_cast<uint2*>(at),
           make_uint2(first ? mine[0] : other, first ? other : mine[1]));
  }
}

/// Adds the bias to the sums, applies the chain and writes z. kWhole: the tile has no part outside
/// of z, and rows of z begin where joined runs can be stored at once.
template <bool kWhole, class Element, class Config, class Bias, class Chain>
__device__ void write_tile(const KernelArguments& arguments, const TilePlace& place, int group,
                           const Sums<Config>& sums, const Bias& bias, const Chain& chain) {
  constexpr KernelConfig kConfig = Config::value;
  constexpr bool kJoins = kWhole && joins_runs(kConfig);
  const Tiling& t = arguments.tiling;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int height = static_cast<int>(t.shape.rows.output);
  const int width = static_cast<int>(t.shape.columns.output);
  const int plane = height * width;
  const int channel = place.channel + lane % 4 * 2;
  const int channels_left = t.shape.out_channels - channel;
  [[maybe_unused]] const bool first = lane / 4 % 2 == 0;
  [[maybe_unused]] const bool together = kConfig.kernel != 0 && !kConfig.split &&
                                         kConfig.column_phases % 2 == 0 &&
                                         width % kConfig.column_phases == 0;
  bool any_nan = false;
#pragma unroll
  for (int block = 0; block < kConfig.blocks; ++block) {
    // The 16 positions of a warp are neighbours: half a line of z each 8 of them.
    Element* at[2];
    int inside[2][kConfig.row_phases];  // columns from here to the end
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto position = PositionPlace::of_tile<kConfig.flat>(
          t, place, (group * kConfig.blocks + block) * 64 + warp * 16 + half * 8 + lane / 4);
      const int image = position.image;
      const int row =
          position.row * static_cast<int>(t.shape.rows.stride) + place.set * kConfig.row_phases;
      const int column = position.column * kConfig.column_phases;
#pragma unroll
      for (int i = 0; i < kConfig.row_phases; ++i) {
        inside[half][i] = image < t.shape.images && row + i < height ? width - column : 0;
      }
      at[half] = static_cast<Element*>(arguments.z) +
                 static_cast<std::int64_t>(
                     (image * t.shape.groups + place.group) * t.shape.out_channels + channel) *
                     plane +
                 row * width + column;
    }
    if (kJoins && !first) at[0] = at[1] - kConfig.column_phases;
#pragma unroll
    for (int j = 0; j < kConfig.channels / 8; ++j) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const float shift = bias(j, odd);
#pragma unroll
        for (int i = 0; i < kConfig.row_phases; ++i) {
          // Of all positions, inside or not: branches would keep the chains apart, whose latencies
          // are to hide behind one another.
          float values[2][kConfig.column_phases];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int k = 0; k < kConfig.column_phases; ++k) {
              const float sum =
                  sums[block][i * kConfig.column_phases + k][4 * j + 2 * half + odd] + shift;
              if constexpr (kConfig.split) any_nan |= isnan(sum);
              values[half][k] = chain(sum);
            }
          }
          if constexpr (kJoins) {
            store_joined(at[0] + i * width, values, first);
          } else {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              if constexpr (kWhole) {
                store_run(at[half] + i * width, values[half]);
              } else {
                const bool there = 8 * j + odd < channels_left;
                store_part(at[half] + i * width, values[half], there ? inside[half][i] : 0,
                           together);
              }
            }
          }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) at[half] += odd == 0 ? plane : 7 * plane;
      }
    }
  }
  if (any_nan && arguments.found_nan != nullptr) *arguments.found_nan = 1;
}

}  // namespace tenon::ops::cuda
