// CUDA kernels of the fused block. All tensors are contiguous or channels-last, each as it likes,
// of one floating dtype and of the shapes that the op's shape rule gives; `bias` may be undefined.
#pragma once

#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cuda {

/// z = epilogue(conv_transpose2d(x, weight, bias)): cuDNN's convolution, then one pass in place.
void conv_transpose2d_epilogue(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                               const Tensor& z);

/// The gradients that are defined tensors, each of its input's shape: y computed again, one pass
/// that turns it into its gradient and sums the bias's, and cuDNN's two gradients.
void conv_transpose2d_epilogue_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                        const Tensor& grad_out,
                                        const ConvTranspose2dOptions& options,
                                        const Epilogue& epilogue, const Tensor& grad_x,
                                        const Tensor& grad_weight, const Tensor& grad_bias);

}  // namespace tenon::ops::cuda
