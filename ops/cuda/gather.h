// CUDA kernels of gather and scatter_add. All tensors are contiguous, seen as [outer, D, inner]
// with the indexed dimension `dim` in the middle. An index outside its range is found by the
// kernel: the element is left 0, or out of the sum, and the next synchronisation of the device
// throws `Error`.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// out[o, m, i] = x[o, index[o, m, i], i]
void gather(const Tensor& x, std::size_t dim, const Tensor& index, const Tensor& out);
/// out = 0; out[o, index[o, m, i], i] += x[o, m, i] in the order of m.
void scatter_add(const Tensor& x, std::size_t dim, const Tensor& index, const Tensor& out);

}  // namespace tenon::ops::cuda
