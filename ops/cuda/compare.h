// CUDA kernels of comparisons, tests and logic. Outputs are bool.
#pragma once

#include "tenon/ops/compare.h"

namespace tenon::ops::cuda {

/// out = a ∘ b; a and b have one dtype and broadcast to out's shape.
void compare(CompareKind kind, const Tensor& a, const Tensor& b, const Tensor& out);
/// out = x ∘ scalar; equal shapes.
void compare_scalar(CompareKind kind, const Tensor& x, Scalar scalar, const Tensor& out);
/// out = kind(x); equal shapes.
void test(TestKind kind, const Tensor& x, const Tensor& out);

}  // namespace tenon::ops::cuda
