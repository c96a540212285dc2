// The transposed convolution of float32, with or without the pointwise chain behind it, as an
// implicit matrix product: sums of a few channels by a few vectors of positions stay in registers,
// the chain is applied to them in the first-level cache, and the phases of a row are interleaved on
// their way to z, which is written once.
#pragma once

#include "tenon/core/tensor.h"
#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {

/// z = chain(conv_transpose2d(x, weight, bias)), without a chain where it is null; all contiguous
/// and float32, `bias` may be undefined. The result does not depend on the number of threads.
void transposed_forward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const ConvTranspose2dOptions& options, const simd::Chain* chain,
                        const Tensor& z);

}  // namespace tenon::ops::cpu
