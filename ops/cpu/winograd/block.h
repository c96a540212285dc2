// The transposed convolution and its chain by minimal filtering (plan.h), float32. Tensors are
// contiguous and of the shapes of the ops' shape rules. Each function does nothing and returns
// false where it does not suit.
#pragma once

#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {

/// z = the chain of conv_transpose2d(x, weight, bias), where there is one; `bias` may be undefined.
bool winograd_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const ConvTranspose2dOptions& options, const simd::Chain* chain,
                         const Tensor& z);

/// The backward of that with a chain: gradients from z's, of which undefined ones are not wanted.
bool winograd_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& grad_out, const ConvTranspose2dOptions& options,
                       const simd::Chain& chain, const Tensor& grad_x, const Tensor& grad_weight,
                       const Tensor& grad_bias);

}  // namespace tenon::ops::cpu
