// What the producers write: rows of 16 bytes of consecutive channels, as tensor_core.cuh says.
#pragma once

#include <type_traits>

#include "tenon/ops/cuda/fused/kernel_config.h"
#include "tenon/ops/cuda/fused/tensor_core.cuh"

namespace tenon::ops::cuda {

/// The word of a float32 number in a row: rounded, unless the products split it.
template <class Config>
__device__ std::uint32_t single_word(float value) {
  return Config::value.split ? __float_as_uint(value) : round_to_tf32(value);
}

/// Writes one position's channels to `row`.
template <class Operand, class Config, class Element>
__device__ void store_channel_row(const Element (&values)[OperandTraits<Operand>::kRow],
                                  uint4* row) {
  constexpr int kRow = OperandTraits<Operand>::kRow;
  if constexpr (std::is_same_v<Operand, Tf32>) {
    *row = make_uint4(single_word<Config>(values[0]), single_word<Config>(values[1]),
                      single_word<Config>(values[2]), single_word<Config>(values[3]));
  } else {
    std::uint32_t pairs[kRow / 2];
#pragma unroll
    for (int i = 0; i < kRow / 2; ++i) pairs[i] = join(values[2 * i], values[2 * i + 1]);
    *row = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  }
}

}  // namespace tenon::ops::cuda
