// CUDA kernel of the matrix product: cuBLASLt's.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// y = a·b: a [..., m, k] and b [..., k, n] with any strides (0 where a batch dimension broadcasts)
/// and y [..., m, n] contiguous, the leading dimensions equal. `bias` [n], if defined, is added to
/// every row. Operands that cuBLASLt cannot address are copied first.
void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& y);

}  // namespace tenon::ops::cuda
