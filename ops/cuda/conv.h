// CUDA kernels of the convolutions: cuDNN's. All tensors are contiguous or channels-last, each as
// it likes, of one floating dtype and of the shapes that the ops' shape rules give; `bias` may be
// undefined.
#pragma once

#include "tenon/ops/conv.h"
#include "tenon/ops/cuda/cudnn_conv.h"

namespace tenon::ops::cuda {

void conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options,
            const Tensor& y);

void conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const ConvTranspose2dOptions& options, const Tensor& y);

void conv2d_weight_grad(const Tensor& x, const Tensor& grad_out, const Conv2dOptions& options,
                        const Tensor& grad_weight);

/// Whether convolutions of this dtype run on channels-last memory, with conversions around them:
/// cuDNN's tensor-core kernels want it, and on the fused block's shapes what they gain is several
/// times what the conversions cost. Not so for true float32 and float64.
bool wants_channels_last(DType dtype);

/// One of the three convolutions on operands already in the memory format that cuDNN shall work in:
/// image [N, C, H, W], weight [K, C/groups, R, S], response [N, K, P, Q], any strides.
void run_in_format(ConvolutionKind kind, const Tensor& image, const Tensor& weight,
                   const Tensor& response, const Conv2dOptions& options);

/// A weight in channels-last memory, converted once for each version of its contents; itself if it
/// is there already.
Tensor weight_channels_last(const Tensor& weight);

}  // namespace tenon::ops::cuda
