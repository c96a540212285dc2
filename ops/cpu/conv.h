// CPU kernels of the convolutions. All tensors are contiguous, of one floating dtype and of the
// shapes that the ops' shape rules give; `bias` may be undefined.
#pragma once

#include "tenon/ops/conv.h"

namespace tenon::ops::cpu {

/// Columns of a block of output positions times the weights, one block a thread at a time; float32
/// batches of small images without columns (batched/convolution.h).
void conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options,
            const Tensor& y);

/// Stride by stride phases (ops/fused/phases.h), each a correlation of stride 1.
void conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const ConvTranspose2dOptions& options, const Tensor& y);

/// Each chunk of images sums its part; the parts are added in a fixed order. float32 batches of
/// small images likewise, without columns.
void conv2d_weight_grad(const Tensor& x, const Tensor& grad_out, const Conv2dOptions& options,
                        const Tensor& grad_weight);

/// The gradients of conv2d's operands from that of its result: grad_weight and, where defined,
/// grad_x, which takes `weight`, and grad_bias.
void conv2d_backward(const Tensor& x, const Tensor& weight, const Tensor& grad_out,
                     const Conv2dOptions& options, const Tensor& grad_x, const Tensor& grad_weight,
                     const Tensor& grad_bias);

}  // namespace tenon::ops::cpu
