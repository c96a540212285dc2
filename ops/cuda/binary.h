// CUDA kernels of elementwise arithmetic.
#pragma once

#include "tenon/ops/binary.h"

namespace tenon::ops::cuda {

/// out = a ∘ b; a and b broadcast to out's shape, all have one dtype.
void binary(BinaryKind kind, const Tensor& a, const Tensor& b, const Tensor& out);
/// out = x ∘ scalar, or scalar ∘ x when `reversed`; equal shapes and dtypes.
void binary_scalar(BinaryKind kind, const Tensor& x, Scalar scalar, bool reversed,
                   const Tensor& out);

}  // namespace tenon::ops::cuda
