// The matrix product of float32 through the kernels for the processor's instruction set.
#pragma once

#include "tenon/ops/cpu/gemm.h"

namespace tenon::ops::cpu {

/// As `gemm<float>`, which calls it: both operands are packed block by block, so that the kernels
/// read them from one end to the other.
void float_gemm(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<const float> a,
                MatrixView<const float> b, float* c, std::int64_t c_stride, bool accumulate);

}  // namespace tenon::ops::cpu
