// The arithmetic of the optimizers: one pass over each parameter and its state, in place and
// without history. Each bumps the versions of the tensors that it changes.
//
// A step takes any number of parameters, because on a GPU the launches of many small updates would
// cost more than the updates: those that are dense and lie as their operands do are changed many in
// one launch. Parameters may differ in shape, dtype and device, and the operands of one share all
// three. Memory that is changed for one must not be another's gradient or state.
#pragma once

#include <cstdint>
#include <span>

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
};

/// A parameter for `sgd_step`, its gradient and its state, of one shape and floating dtype.
struct SgdOperands {
  Tensor parameter;
  Tensor grad;
  Tensor momentum_buffer = {};  ///< only touched, and only needs to be defined, with a momentum
  bool first = false;           ///< the momentum buffer holds nothing yet: it becomes the gradient
};

/// For each of `operands`, with g = grad + weight_decay·parameter and
/// b = momentum·b + (1 - dampening)·g: parameter -= learning_rate·(b, or g + momentum·b with
/// Nesterov, or g without momentum). Throws `Error` before anything is changed where operands do
/// not fit. Sutskever et al., "On the importance of initialization and momentum in deep learning",
/// 2013, in PyTorch's form.
void sgd_step(std::span<const SgdOperands> operands, const SgdStep& step);
inline void sgd_step(const SgdOperands& one, const SgdStep& step) {
  sgd_step(std::span(&one, 1), step);
}

/// torch.optim.Adam's and AdamW's hyperparameters.
struct AdamStep {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool decoupled = false;  ///< AdamW: decay the parameter itself instead of adding to the gradient
  bool maximize = false;
};

/// A parameter for `adam_step`, its gradient and its moments, of one shape and floating dtype.
struct AdamOperands {
  Tensor parameter;
  Tensor grad;
  Tensor m;
  Tensor v;
  std::int64_t count = 1;  ///< which step of this parameter it is, from 1
};

/// For each of `operands`: m = beta1·m + (1 - beta1)·g; v = beta2·v + (1 - beta2)·g²; parameter -=
/// learning_rate/(1 - beta1^count) · m / (√v/√(1 - beta2^count) + epsilon), with
/// g = grad + weight_decay·parameter (Adam), or the parameter first multiplied by
/// 1 - learning_rate·weight_decay (AdamW). Throws `Error` before anything is changed where operands
/// do not fit. Kingma and Ba, "Adam", 2015; Loshchilov and Hutter, "Decoupled weight decay
/// regularization", 2019.
void adam_step(std::span<const AdamOperands> operands, const AdamStep& step);
inline void adam_step(const AdamOperands& one, const AdamStep& step) {
  adam_step(std::span(&one, 1), step);
}

}  // namespace tenon::ops
