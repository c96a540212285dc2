// CUDA kernels of batch normalisation. `x` is a dense [N, C, ...] tensor of a floating dtype, and
// what has its shape has its strides; the statistics are [C] in the compute type (float32 for
// 16-bit types), the parameters [C] in x's.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// Mean and 1/sqrt(biased variance + eps) of each channel, in one pass (Welford). Where they are
/// defined, the running statistics [C], of x's dtype and any stride, move towards the mean and the
/// unbiased variance by `momentum`.
void batch_statistics(const Tensor& x, double eps, double momentum, const Tensor& running_mean,
                      const Tensor& running_var, const Tensor& mean, const Tensor& inverse);

/// The same two numbers from the running statistics.
void running_statistics(const Tensor& running_mean, const Tensor& running_var, double eps,
                        const Tensor& mean, const Tensor& inverse);

/// y = (x − mean)·inverse·weight + bias; weight and bias may be undefined.
void normalize(const Tensor& x, const Tensor& mean, const Tensor& inverse, const Tensor& weight,
               const Tensor& bias, const Tensor& y);

/// The gradients of `normalize`'s x, weight and bias; with `training` mean and inverse depend on x.
void batch_norm_backward(const Tensor& x, const Tensor& mean, const Tensor& inverse,
                         const Tensor& grad_out, const Tensor& weight, bool training,
                         const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_bias);

}  // namespace tenon::ops::cuda
