// CUDA kernel of `where`.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// out = condition ? x : y; all broadcast to out's shape.
void where(const Tensor& condition, const Tensor& x, const Tensor& y, const Tensor& out);

}  // namespace tenon::ops::cuda
