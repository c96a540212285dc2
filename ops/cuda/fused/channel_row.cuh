// What the producers write: rows of 16 bytes of consecutive channels, as tensor_core.cuh says.
#pragma once

#include <type_traits>

#include "tenon/ops/cuda/fused/kernel_config.h"
#include "tenon/ops/cuda/fused/tensor_core.cuh"

namespace tenon::ops::cuda {

/// Writes one position's channels to `row`, and with Config::value.split their tails to the row
/// `tail_rows` further.
template <class Operand, class Config, class Element>
__device__ void store_channel_row(const Element (&values)[OperandTraits<Operand>::kRow], uint4* row,
                                  [[maybe_unused]] int tail_rows) {
  constexpr int kRow = OperandTraits<Operand>::kRow;
  if constexpr (std::is_same_v<Operand, Tf32>) {
    std::uint32_t heads[kRow];
#pragma unroll
    for (int i = 0; i < kRow; ++i) heads[i] = round_to_tf32(values[i]);
    *row = make_uint4(heads[0], heads[1], heads[2], heads[3]);
    if constexpr (Config::value.split) {
      std::uint32_t tails[kRow];
#pragma unroll
      for (int i = 0; i < kRow; ++i) {
        tails[i] = round_to_tf32(values[i] - __uint_as_float(heads[i]));
      }
      row[tail_rows] = make_uint4(tails[0], tails[1], tails[2], tails[3]);
    }
  } else {
    std::uint32_t pairs[kRow / 2];
#pragma unroll
    for (int i = 0; i < kRow / 2; ++i) pairs[i] = join(values[2 * i], values[2 * i + 1]);
    *row = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  }
}

}  // namespace tenon::ops::cuda
