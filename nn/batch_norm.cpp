#include "tenon/nn/batch_norm.h"

#include "tenon/core/factories.h"
#include "tenon/core/op.h"
#include "tenon/ops/increment.h"
#include "tenon/ops/norm.h"

namespace tenon::nn {

BatchNorm2d::BatchNorm2d(std::int64_t num_features, const BatchNorm2dOptions& options)
    : num_features_(num_features), options_(options) {
  TENON_CHECK(num_features >= 1, "BatchNorm2d: num_features must be at least 1, got ",
              num_features);
  TENON_CHECK(options.eps >= 0, "BatchNorm2d: eps must not be negative, got ", options.eps);
  TENON_CHECK(!options.momentum || (*options.momentum >= 0 && *options.momentum <= 1),
              "BatchNorm2d: momentum must be in [0, 1], got ", options.momentum.value_or(0));
  if (options.affine) {
    weight = add_parameter("weight", ones({num_features}));
    bias = add_parameter("bias", zeros({num_features}));
  }
  if (options.track_running_stats) {
    running_mean = add_buffer("running_mean", zeros({num_features}));
    running_var = add_buffer("running_var", ones({num_features}));
    num_batches_tracked = add_buffer("num_batches_tracked", zeros({}, {.dtype = DType::Int64}));
  }
}

Tensor BatchNorm2d::forward(const Tensor& x) {
  TENON_CHECK(x.dim() == 4 && x.size(1) == num_features_, "BatchNorm2d: input must be [N, ",
              num_features_, ", H, W], got ", x.shape());
  const bool tracked = running_mean.defined();
  double momentum = options_.momentum.value_or(0.0);
  if (training() && tracked) {
    ops::increment_(num_batches_tracked);
    if (!options_.momentum) {
      TENON_CHECK(!is_tracing(),
                  "BatchNorm2d: without a momentum each step weighs its batch differently, which "
                  "a compiled function cannot; give a momentum");
      momentum = 1.0 / static_cast<double>(num_batches_tracked.item<std::int64_t>());
    }
  }
  return ops::batch_norm(
      x, running_mean, running_var, weight, bias,
      {.training = training() || !tracked, .momentum = momentum, .eps = options_.eps});
}

std::string BatchNorm2d::extra_repr() const {
  std::string text = tenon::detail::concat(num_features_, ", eps=", options_.eps, ", momentum=");
  text += options_.momentum ? tenon::detail::concat(*options_.momentum) : "none";
  if (!options_.affine) text += ", affine=false";
  if (!options_.track_running_stats) text += ", track_running_stats=false";
  return text;
}

}  // namespace tenon::nn
