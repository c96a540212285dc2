#include "tenon/nn/clip.h"

#include <algorithm>
#include <cmath>

#include "tenon/core/autograd.h"
#include "tenon/ops/activation.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/extremum.h"
#include "tenon/ops/reduce.h"
#include "tenon/ops/unary.h"

namespace tenon::nn {
namespace {

std::vector<Tensor> gradients_of(const std::vector<Tensor>& parameters) {
  std::vector<Tensor> result;
  for (const Tensor& parameter : parameters) {
    const Tensor gradient = parameter.grad();
    if (gradient.defined() && gradient.numel() > 0) result.push_back(gradient);
  }
  return result;
}

/// Σ |x|^p, in float64: the squares of many small gradients must neither vanish nor drown.
double sum_of_powers(const Tensor& gradient, double p) {
  const Tensor x = gradient.detach().to(DType::Float64);
  if (p == 2.0) return ops::sum(ops::square(x)).item();
  return ops::sum(ops::pow(ops::abs(x), p)).item();
}

/// The larger, NaN when either is.
double larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }

}  // namespace

double clip_grad_norm_(const std::vector<Tensor>& parameters, double max_norm,
                       const ClipGradNormOptions& options) {
  TENON_CHECK(max_norm >= 0, "clip_grad_norm_: max_norm must not be negative, got ", max_norm);
  TENON_CHECK(options.norm_type > 0, "clip_grad_norm_: norm_type must be positive, got ",
              options.norm_type);
  const NoGradGuard no_history;
  const std::vector<Tensor> gradients = gradients_of(parameters);
  double norm = 0.0;
  if (std::isinf(options.norm_type)) {
    for (const Tensor& gradient : gradients) {
      norm = larger(ops::max(ops::abs(gradient.detach())).item(), norm);
    }
  } else {
    for (const Tensor& gradient : gradients) norm += sum_of_powers(gradient, options.norm_type);
    norm = options.norm_type == 2.0 ? std::sqrt(norm) : std::pow(norm, 1.0 / options.norm_type);
  }
  TENON_CHECK(!options.error_if_nonfinite || std::isfinite(norm),
              "clip_grad_norm_: the norm of the gradients is ", norm);
  const double factor = max_norm / (norm + 1e-6);
  // A factor of NaN does reach the gradients, as in PyTorch: one of them was NaN already.
  if (!(factor >= 1.0)) {
    for (const Tensor& gradient : gradients) gradient.copy_(ops::mul(gradient.detach(), factor));
  }
  return norm;
}

void clip_grad_value_(const std::vector<Tensor>& parameters, double clip_value) {
  TENON_CHECK(clip_value >= 0, "clip_grad_value_: clip_value must not be negative, got ",
              clip_value);
  const NoGradGuard no_history;
  for (const Tensor& gradient : gradients_of(parameters)) {
    gradient.copy_(ops::clamp(gradient.detach(), -clip_value, clip_value));
  }
}

}  // namespace tenon::nn
