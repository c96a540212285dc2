// CUDA kernels of the optimizers' steps; see ops/optimizer_step.h.
#pragma once

#include "tenon/ops/optimizer_step.h"

namespace tenon::ops::cuda {

/// `momentum_buffer` may be undefined when momentum is 0.
void sgd_step(const Tensor& parameter, const Tensor& grad, const Tensor& momentum_buffer,
              const SgdStep& step);
void adam_step(const Tensor& parameter, const Tensor& grad, const Tensor& m, const Tensor& v,
               const AdamStep& step);

}  // namespace tenon::ops::cuda
