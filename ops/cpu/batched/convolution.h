// Convolutions of batches of small images, float32: as many images as a vector has lanes side by
// side (lane_window.h). Tensors are contiguous and of the shapes of the ops' shape rules.
//
// Each function does nothing and returns false where it does not suit: with several groups of
// channels, with images that leave an eighth of the vectors' lanes empty or more, and where what it
// keeps of a group of images does not fit the caches.
#pragma once

#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {

/// y [N, Cout, H', W'] = conv2d(x [N, Cin, H, W], weight, bias); `bias` may be undefined. Rows of a
/// window must fit the second-level cache.
bool batched_conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Conv2dOptions& options, const Tensor& y);

/// The gradients of that from y's: grad_weight [Cout, Cin, kH, kW] and, where defined, grad_x and
/// grad_bias; `weight` may be undefined where grad_x is. Whole images must fit a cache.
bool batched_conv2d_backward(const Tensor& x, const Tensor& weight, const Tensor& grad_out,
                             const Conv2dOptions& options, const Tensor& grad_x,
                             const Tensor& grad_weight, const Tensor& grad_bias);

/// z = the chain of conv_transpose2d(x, weight, bias), where there is one; `bias` may be undefined.
/// Rows of a window must fit the second-level cache.
bool batched_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const ConvTranspose2dOptions& options, const simd::Chain* chain,
                        const Tensor& z);

/// The backward of that with a chain: gradients from z's, of which undefined ones are not wanted;
/// whole images must fit a cache.
bool batched_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Tensor& grad_out, const ConvTranspose2dOptions& options,
                      const simd::Chain& chain, const Tensor& grad_x, const Tensor& grad_weight,
                      const Tensor& grad_bias);

}  // namespace tenon::ops::cpu
