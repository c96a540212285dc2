// CUDA kernels of the random numbers. All overwrite the contiguous floating `target`; element i
// uses word i mod 4 of Philox block `first_block` + i / 4 of `seed`.
#pragma once

#include <cstdint>

#include "tenon/core/tensor.h"

namespace tenon::cuda {

/// What random kernels of a recorded step read in place of their arguments.
struct RandomState {
  std::uint64_t seed;
  std::uint64_t shift;  // to be added to the number of the first block, modulo 2^64
};
/// Writes `value` to `state`, memory of `device`, in its current stream.
void set_random_state(void* state, Device device, const RandomState& value);

/// low + width·fraction, where the fraction has the bits of the dtype; at most `last`.
void uniform(const Tensor& target, double low, double width, double last, std::uint64_t seed,
             std::uint64_t first_block);
/// By Box and Muller; the words are used in pairs.
void normal(const Tensor& target, double mean, double stddev, std::uint64_t seed,
            std::uint64_t first_block);
/// 1 with probability `p`, otherwise 0.
void bernoulli(const Tensor& target, double p, std::uint64_t seed, std::uint64_t first_block);

}  // namespace tenon::cuda
