// Gradient clipping.
#pragma once

#include <vector>

#include "tenon/core/tensor.h"

namespace tenon::nn {

struct ClipGradNormOptions {
  double norm_type = 2.0;           ///< infinity for the largest absolute value
  bool error_if_nonfinite = false;  ///< throw when the norm is infinite or NaN
};

/// Scales the gradients of `parameters` by min(1, max_norm / (norm + 1e-6)), where `norm` is that
/// of all of them taken as one vector, and returns it; those without a gradient count for nothing
/// (torch.nn.utils.clip_grad_norm_). Throws `Error` when max_norm is negative, norm_type not
/// positive, or as `error_if_nonfinite` says; the gradients are then as they were.
double clip_grad_norm_(const std::vector<Tensor>& parameters, double max_norm,
                       const ClipGradNormOptions& options = {});

/// Limits every element of the gradients to [−clip_value, clip_value], which must not be negative.
void clip_grad_value_(const std::vector<Tensor>& parameters, double clip_value);

}  // namespace tenon::nn
