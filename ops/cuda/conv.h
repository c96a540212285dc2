// CUDA kernels of the convolutions: cuDNN's. All tensors are contiguous, of one floating dtype and
// of the shapes that the ops' shape rules give; `bias` may be undefined.
#pragma once

#include "tenon/ops/conv.h"

namespace tenon::ops::cuda {

void conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options,
            const Tensor& y);

void conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const ConvTranspose2dOptions& options, const Tensor& y);

void conv2d_weight_grad(const Tensor& x, const Tensor& grad_out, const Conv2dOptions& options,
                        const Tensor& grad_weight);

}  // namespace tenon::ops::cuda
