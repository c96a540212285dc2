// CUDA kernels of pooling. Images are [N, C, H, W] tensors of one floating dtype, all operands of a
// call contiguous or all channels-last.
#pragma once

#include "tenon/ops/pool.h"

namespace tenon::ops::cuda {

/// y and, int64, the place of each maximum in its H·W plane.
void max_pool2d(const Tensor& x, Pair kernel, Pair stride, const MaxPool2dOptions& options,
                const Tensor& y, const Tensor& places);
/// plane[places] += values, into zeros.
void plane_scatter(const Tensor& values, const Tensor& places, const Tensor& plane);
/// values = plane[places]
void plane_gather(const Tensor& plane, const Tensor& places, const Tensor& values);

void avg_pool2d(const Tensor& x, Pair kernel, Pair stride, const AvgPool2dOptions& options,
                const Tensor& y);
void avg_pool2d_backward(const Tensor& grad_out, Pair kernel, Pair stride,
                         const AvgPool2dOptions& options, const Tensor& grad_x);

}  // namespace tenon::ops::cuda
