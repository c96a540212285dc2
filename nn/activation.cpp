#include "tenon/nn/activation.h"

#include "tenon/core/error.h"
#include "tenon/ops/softmax.h"

namespace tenon::nn {

using tenon::detail::concat;

std::string LeakyReLU::extra_repr() const { return concat("negative_slope=", negative_slope_); }

std::string ELU::extra_repr() const { return concat("alpha=", alpha_); }

std::string GELU::extra_repr() const {
  return approximation_ == ops::GeluApproximation::Tanh ? "approximate=tanh" : "";
}

std::string Softplus::extra_repr() const {
  return concat("beta=", beta_, ", threshold=", threshold_);
}

Hardtanh::Hardtanh(double min, double max) : min_(min), max_(max) {
  TENON_CHECK(min < max, "Hardtanh: min must be below max, got ", min, " and ", max);
}

std::string Hardtanh::extra_repr() const { return concat("min=", min_, ", max=", max_); }

Tensor Softmax::forward(const Tensor& x) { return ops::softmax(x, dim_); }

std::string Softmax::extra_repr() const { return concat("dim=", dim_); }

}  // namespace tenon::nn
