// CUDA kernels of the extremes.
#pragma once

#include "tenon/ops/extremum.h"

namespace tenon::ops::cuda {

/// values = the extremes of x along dimension `dim`, which is not empty. x and values are
/// contiguous and have one dtype; values has size 1 there, or lacks the dimension.
void extremum(Extreme extreme, const Tensor& x, std::size_t dim, const Tensor& values);
/// The same, with the position of the first extreme in `indices`: int64, shaped as `values`.
void indexed_extremum(Extreme extreme, const Tensor& x, std::size_t dim, const Tensor& values,
                      const Tensor& indices);

}  // namespace tenon::ops::cuda
