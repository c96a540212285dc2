// CUDA kernel of softmax and log_softmax.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// y = softmax of x along dimension `dim`, or its logarithm. Both are contiguous, floating and of
/// one dtype and shape.
void softmax(const Tensor& x, std::size_t dim, bool logarithm, const Tensor& y);

}  // namespace tenon::ops::cuda
