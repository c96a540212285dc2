// Convolutions of batches of small images, float32: as many images as a vector has lanes side by
// side (lane_window.h). Tensors are contiguous and of the shapes of the ops' shape rules.
#pragma once

#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {

/// Whether `batched_conv2d` suits: one group, images that nearly fill whole vectors, and rows of
/// them that stay in the second-level cache. x [N, Cin, H, W], y [N, Cout, H', W'].
bool batched_conv2d_suits(const Shape& x, const Shape& y, Pair kernel,
                          const Conv2dOptions& options);
/// y = conv2d(x, weight, bias); `bias` may be undefined.
void batched_conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Conv2dOptions& options, const Tensor& y);

/// Likewise, for the weight's gradient: whole images have to stay in a cache.
bool batched_weight_gradient_suits(const Shape& x, const Shape& y, Pair kernel,
                                   const Conv2dOptions& options);
/// grad_weight [Cout, Cin, kH, kW] from x and y's gradient.
void batched_weight_gradient(const Tensor& x, const Tensor& grad_out, const Conv2dOptions& options,
                             const Tensor& grad_weight);

/// Likewise for the transposed convolution.
bool batched_transposed_suits(const Shape& x, const Shape& z, Pair kernel,
                              const ConvTranspose2dOptions& options);
/// z = the chain of conv_transpose2d(x, weight, bias), where there is one; `bias` may be undefined.
void batched_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const ConvTranspose2dOptions& options, const simd::Chain* chain,
                        const Tensor& z);

/// Likewise for the backward of the transposed convolution and its chain.
bool batched_backward_suits(const Shape& x, const Shape& z, Pair kernel,
                            const ConvTranspose2dOptions& options);
/// Gradients from z's, of which undefined ones are not wanted.
void batched_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Tensor& grad_out, const ConvTranspose2dOptions& options,
                      const simd::Chain& chain, const Tensor& grad_x, const Tensor& grad_weight,
                      const Tensor& grad_bias);

}  // namespace tenon::ops::cpu
