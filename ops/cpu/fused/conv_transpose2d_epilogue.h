// CPU kernels of the fused block. All tensors are contiguous, of one floating dtype and of the
// shapes that the op's shape rule gives; `bias` may be undefined.
#pragma once

#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cpu {

/// z = epilogue(conv_transpose2d(x, weight, bias)), tile by tile.
void conv_transpose2d_epilogue(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                               const Tensor& z);

/// The gradients that are defined tensors, each of its input's shape. Recomputes y tile by tile.
/// Beside inputs and results a thread holds one tile and its sums of a group's weight and bias
/// gradients. The results do not depend on the number of threads.
void conv_transpose2d_epilogue_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                        const Tensor& grad_out,
                                        const ConvTranspose2dOptions& options,
                                        const Epilogue& epilogue, const Tensor& grad_x,
                                        const Tensor& grad_weight, const Tensor& grad_bias);

/// Whether that backward computes y of whole images at a time, for which it need not pack x; by the
/// shapes of x, weight and y.
bool backward_keeps_images_whole(const Shape& x, const Shape& weight, const Shape& y,
                                 const ConvTranspose2dOptions& options);

}  // namespace tenon::ops::cpu
