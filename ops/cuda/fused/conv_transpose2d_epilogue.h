// CUDA kernels of the fused block. All tensors are contiguous or channels-last, each as it likes,
// of one floating dtype and of the shapes that the op's shape rule gives; `bias` may be undefined.
#pragma once

#include <string>

#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cuda {

/// z = epilogue(conv_transpose2d(x, weight, bias)): one of the fused kernels where x and z are
/// contiguous and one pays (kernel_choice.h), otherwise cuDNN's convolution and one pass.
void conv_transpose2d_epilogue(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                               const Tensor& z);

/// The name of the kernel that the above runs for contiguous tensors of these specs.
std::string conv_transpose2d_epilogue_kernel(const TensorSpec& x, const Shape& weight,
                                             const Shape& z, const ConvTranspose2dOptions& options,
                                             const Epilogue& epilogue);

/// The gradients that are defined tensors, each of its input's shape: by own kernels where the
/// tables hold the problem and they pay (backward.h); otherwise y computed again, one pass that
/// turns it into its gradient and sums the bias's, and cuDNN's two gradients.
void conv_transpose2d_epilogue_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                        const Tensor& grad_out,
                                        const ConvTranspose2dOptions& options,
                                        const Epilogue& epilogue, const Tensor& grad_x,
                                        const Tensor& grad_weight, const Tensor& grad_bias);

/// The names of the kernels that the above runs for contiguous tensors of these specs.
std::string conv_transpose2d_epilogue_backward_kernels(const TensorSpec& x, const Shape& weight,
                                                       const Shape& z,
                                                       const ConvTranspose2dOptions& options,
                                                       const Epilogue& epilogue);

}  // namespace tenon::ops::cuda
