// CUDA kernels of the elementwise functions of one tensor.
#pragma once

#include "tenon/ops/unary.h"

namespace tenon::ops::cuda {

/// y = kind(x); equal shapes and dtypes.
void unary(UnaryKind kind, const Tensor& x, const Tensor& y);

}  // namespace tenon::ops::cuda
