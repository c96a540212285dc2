// The arithmetic of the optimizers: one pass over a parameter and its state, in place and without
// history. Each bumps the versions of the tensors that it changes.
#pragma once

#include <cstdint>

#include "tenon/core/tensor.h"

namespace tenon::ops {

/// torch.optim.SGD's hyperparameters.
struct SgdStep {
  double learning_rate = 1e-3;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
  bool maximize = false;
  bool first = false;  ///< the momentum buffer holds nothing yet: it becomes the gradient
};

/// With g = grad + weight_decay·parameter and b = momentum·b + (1 - dampening)·g:
/// parameter -= learning_rate·(b, or g + momentum·b with Nesterov, or g without momentum).
/// `momentum_buffer` is only touched, and only needs to be defined, when momentum is not 0. All
/// tensors have one shape and one floating dtype. Sutskever et al., "On the importance of
/// initialization and momentum in deep learning", 2013, in PyTorch's form.
void sgd_step(const Tensor& parameter, const Tensor& grad, const Tensor& momentum_buffer,
              const SgdStep& step);

/// torch.optim.Adam's and AdamW's hyperparameters.
struct AdamStep {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool decoupled = false;  ///< AdamW: decay the parameter itself instead of adding to the gradient
  bool maximize = false;
  std::int64_t count = 1;  ///< which step this is, from 1
};

/// m = beta1·m + (1 - beta1)·g; v = beta2·v + (1 - beta2)·g²; parameter -=
/// learning_rate/(1 - beta1^count) · m / (√v/√(1 - beta2^count) + epsilon), with
/// g = grad + weight_decay·parameter (Adam), or the parameter first multiplied by
/// 1 - learning_rate·weight_decay (AdamW). All tensors have one shape and one floating dtype.
/// Kingma and Ba, "Adam", 2015; Loshchilov and Hutter, "Decoupled weight decay regularization",
/// 2019.
void adam_step(const Tensor& parameter, const Tensor& grad, const Tensor& m, const Tensor& v,
               const AdamStep& step);

}  // namespace tenon::ops
