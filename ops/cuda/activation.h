// CUDA kernels of the activation functions and their derivatives.
#pragma once

#include "tenon/ops/activation.h"

namespace tenon::ops::cuda {

/// y = f(x); equal shapes and dtypes.
void activation(ActivationKind kind, const ActivationParameters& parameters, const Tensor& x,
                const Tensor& y);

/// grad_x = grad · f'(saved); equal shapes and dtypes, floating. `saved` is y for Relu, Tanh and
/// Sigmoid, otherwise x.
void activation_grad(ActivationKind kind, const ActivationParameters& parameters,
                     const Tensor& grad, const Tensor& saved, const Tensor& grad_x);

}  // namespace tenon::ops::cuda
