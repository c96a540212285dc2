// CUDA kernels of dropout.
#pragma once

#include <cstdint>

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// Overwrites the contiguous uint8 `mask` with 0 (probability `p`) and 1; element i uses word
/// i mod 4 of Philox block `first_block` + i / 4 of `seed`.
void keep_mask(const Tensor& mask, double p, std::uint64_t seed, std::uint64_t first_block);
/// y[i] = x[i]·mask[i]·scale; equal shapes, `mask` uint8 of 0 and 1, y of x's floating dtype.
void mask_scale(const Tensor& x, const Tensor& mask, double scale, const Tensor& y);

}  // namespace tenon::ops::cuda
