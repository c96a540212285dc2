// The gradients of the float32 block (transposed/forward.h), from x and weights alone.
#pragma once

#include "tenon/core/tensor.h"
#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {

/// Whether `transposed_backward` is the faster way: it puts output channels side by side in a
/// vector, which few of them do not fill.
bool transposed_backward_pays(const Shape& weight);

/// The gradients that are defined tensors. y is computed again tile by tile; beside inputs and
/// results a thread holds one tile and its sums of a group's weight and bias gradients. The results
/// do not depend on the number of threads.
void transposed_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& grad_out, const ConvTranspose2dOptions& options,
                         const simd::Chain& chain, const Tensor& grad_x, const Tensor& grad_weight,
                         const Tensor& grad_bias);

}  // namespace tenon::ops::cpu
