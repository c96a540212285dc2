// CUDA kernels of losses of a difference; see ops/difference_loss.h.
#pragma once

#include "tenon/ops/difference_loss.h"

namespace tenon::ops::cuda {

/// loss = the sum of the elements' losses divided by `divisor`. `x` and `target` lie alike and
/// without gaps; `loss` is a scalar. All have one floating dtype.
void difference_loss(DifferenceLossKind kind, const Tensor& x, const Tensor& target, double divisor,
                     const Tensor& loss);
/// grad_x = grad·slope·d, or grad·slope·sign(d) if Absolute, with d = x - target. `grad` is a
/// scalar, the others have one shape; all have one floating dtype.
void difference_loss_grad(DifferenceLossKind kind, double slope, const Tensor& grad,
                          const Tensor& x, const Tensor& target, const Tensor& grad_x);

}  // namespace tenon::ops::cuda
