#include "tenon/nn/init.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "tenon/core/autograd.h"
#include "tenon/core/error.h"
#include "tenon/core/factories.h"

namespace tenon::nn::init {
namespace {

Fans checked_fans(const Tensor& tensor, std::string_view op) {
  TENON_CHECK(tensor.dim() >= 2, op, ": needs a weight of at least 2 dimensions, got shape ",
              tensor.shape());
  std::int64_t kernel = 1;
  for (std::size_t d = 2; d < tensor.dim(); ++d) kernel *= tensor.shape()[d];
  return {tensor.shape()[1] * kernel, tensor.shape()[0] * kernel};
}

/// Gain over the root of the fan that the options name; 0 for an empty weight, where it does not
/// matter.
double kaiming_deviation(const Tensor& tensor, const KaimingOptions& options, std::string_view op) {
  const Fans both = checked_fans(tensor, op);
  const std::int64_t fan = options.mode == FanMode::In ? both.in : both.out;
  if (fan == 0) return 0.0;
  return gain(options.nonlinearity, options.slope) / std::sqrt(static_cast<double>(fan));
}

double xavier_deviation(const Tensor& tensor, double gain, std::string_view op) {
  const Fans both = checked_fans(tensor, op);
  if (both.in + both.out == 0) return 0.0;
  return gain * std::sqrt(2.0 / static_cast<double>(both.in + both.out));
}

/// The standard normal distribution's integral, and its inverse by bisection.
double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

double inverse_normal_cdf(double p) {
  double low = -9.0;
  double high = 9.0;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (normal_cdf(middle) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace

Fans fans(const Tensor& weight) { return checked_fans(weight, "fans"); }

double gain(Nonlinearity nonlinearity, double slope) {
  switch (nonlinearity) {
    case Nonlinearity::Tanh:
      return 5.0 / 3.0;
    case Nonlinearity::Relu:
      return std::sqrt(2.0);
    case Nonlinearity::LeakyRelu:
      return std::sqrt(2.0 / (1.0 + slope * slope));
    case Nonlinearity::Selu:
      return 0.75;
    case Nonlinearity::Linear:
    case Nonlinearity::Sigmoid:
      break;
  }
  return 1.0;
}

const Tensor& constant_(const Tensor& tensor, Scalar value) {
  const NoGradGuard no_history;
  return tensor.fill_(value);
}

const Tensor& zeros_(const Tensor& tensor) { return constant_(tensor, 0); }

const Tensor& ones_(const Tensor& tensor) { return constant_(tensor, 1); }

const Tensor& eye_(const Tensor& tensor) {
  TENON_CHECK(tensor.dim() == 2, "eye_: needs 2 dimensions, got shape ", tensor.shape());
  const NoGradGuard no_history;
  tensor.fill_(0);
  const std::int64_t side = std::min(tensor.size(0), tensor.size(1));
  tensor.slice(0, 0, side).slice(1, 0, side).copy_(eye(side));
  return tensor;
}

const Tensor& uniform_(const Tensor& tensor, double low, double high, Generator& generator) {
  const NoGradGuard no_history;
  tenon::uniform_(tensor, low, high, generator);
  return tensor;
}

const Tensor& normal_(const Tensor& tensor, double mean, double stddev, Generator& generator) {
  const NoGradGuard no_history;
  tenon::normal_(tensor, mean, stddev, generator);
  return tensor;
}

const Tensor& trunc_normal_(const Tensor& tensor, double mean, double stddev, double low,
                            double high, Generator& generator) {
  TENON_CHECK(stddev > 0 && low < high, "trunc_normal_: needs stddev > 0 and low < high, got ",
              stddev, " and [", low, ", ", high, "]");
  const double first = normal_cdf((low - mean) / stddev);
  const double last = normal_cdf((high - mean) / stddev);
  const NoGradGuard no_history;
  const Tensor draws = empty(tensor.shape(), {.dtype = DType::Float64});
  tenon::uniform_(draws, first, std::max(first, last), generator);
  double* values = draws.data<double>();
  for (std::int64_t i = 0; i < draws.numel(); ++i) {
    values[i] = std::clamp(mean + stddev * inverse_normal_cdf(values[i]), low, high);
  }
  return tensor.copy_(draws);
}

const Tensor& xavier_uniform_(const Tensor& tensor, double gain, Generator& generator) {
  const double bound = std::sqrt(3.0) * xavier_deviation(tensor, gain, "xavier_uniform_");
  return init::uniform_(tensor, -bound, bound, generator);
}

const Tensor& xavier_normal_(const Tensor& tensor, double gain, Generator& generator) {
  return init::normal_(tensor, 0.0, xavier_deviation(tensor, gain, "xavier_normal_"), generator);
}

const Tensor& kaiming_uniform_(const Tensor& tensor, const KaimingOptions& options,
                               Generator& generator) {
  const double bound = std::sqrt(3.0) * kaiming_deviation(tensor, options, "kaiming_uniform_");
  return init::uniform_(tensor, -bound, bound, generator);
}

const Tensor& kaiming_normal_(const Tensor& tensor, const KaimingOptions& options,
                              Generator& generator) {
  return init::normal_(tensor, 0.0, kaiming_deviation(tensor, options, "kaiming_normal_"),
                       generator);
}

void default_layer_(const Tensor& weight, const Tensor& bias) {
  kaiming_uniform_(weight, {.slope = std::sqrt(5.0)});
  if (!bias.defined()) return;
  const std::int64_t fan_in = fans(weight).in;
  const double bound = fan_in > 0 ? 1.0 / std::sqrt(static_cast<double>(fan_in)) : 0.0;
  init::uniform_(bias, -bound, bound);
}

}  // namespace tenon::nn::init
