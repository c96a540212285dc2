// What conv_transpose2d and the ops that it is fused into share: attributes, shape rule, gradients.
#pragma once

#include "tenon/ops/conv.h"

namespace tenon::ops {

/// The attributes of a transposed convolution as `ConvTranspose2dOp` and the fused ops list them.
Attributes attributes_of(const ConvTranspose2dOptions& options);
/// The shape rule of a transposed convolution: checks (x, weight[, bias]) for the op called `op`
/// and returns the spec of its result.
TensorSpec infer_conv_transpose2d(std::string_view op, const ConvTranspose2dOptions& options,
                                  std::span<const TensorSpec> inputs);
/// The gradients of x and weight from that of the result, each only where wanted.
Tensor conv_transpose2d_grad_x(const Tensor& grad_out, const Tensor& weight, const Shape& x_shape,
                               const ConvTranspose2dOptions& options);
Tensor conv_transpose2d_grad_weight(const Tensor& grad_out, const Tensor& x,
                                    const Shape& weight_shape,
                                    const ConvTranspose2dOptions& options);
/// Sums [N, C, H, W] to [C].
Tensor sum_to_channels(const Tensor& grad_out);

}  // namespace tenon::ops
