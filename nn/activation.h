// The activations as layers; what each computes stands at the function of the same name in ops.
#pragma once

#include "tenon/nn/module.h"
#include "tenon/ops/activation.h"

namespace tenon::nn {

class ReLU : public Module {
 public:
  Tensor forward(const Tensor& x) override { return ops::relu(x); }
};

class Tanh : public Module {
 public:
  Tensor forward(const Tensor& x) override { return ops::tanh(x); }
};

class Sigmoid : public Module {
 public:
  Tensor forward(const Tensor& x) override { return ops::sigmoid(x); }
};

class SiLU : public Module {
 public:
  Tensor forward(const Tensor& x) override { return ops::silu(x); }
};

class Mish : public Module {
 public:
  Tensor forward(const Tensor& x) override { return ops::mish(x); }
};

class LeakyReLU : public Module {
 public:
  explicit LeakyReLU(double negative_slope = 0.01) : negative_slope_(negative_slope) {}
  Tensor forward(const Tensor& x) override { return ops::leaky_relu(x, negative_slope_); }
  std::string extra_repr() const override;

 private:
  double negative_slope_;
};

class ELU : public Module {
 public:
  explicit ELU(double alpha = 1.0) : alpha_(alpha) {}
  Tensor forward(const Tensor& x) override { return ops::elu(x, alpha_); }
  std::string extra_repr() const override;

 private:
  double alpha_;
};

class GELU : public Module {
 public:
  explicit GELU(ops::GeluApproximation approximation = ops::GeluApproximation::None)
      : approximation_(approximation) {}
  Tensor forward(const Tensor& x) override { return ops::gelu(x, approximation_); }
  std::string extra_repr() const override;

 private:
  ops::GeluApproximation approximation_;
};

class Softplus : public Module {
 public:
  explicit Softplus(double beta = 1.0, double threshold = 20.0)
      : beta_(beta), threshold_(threshold) {}
  Tensor forward(const Tensor& x) override { return ops::softplus(x, beta_, threshold_); }
  std::string extra_repr() const override;

 private:
  double beta_;
  double threshold_;
};

class Hardtanh : public Module {
 public:
  /// Throws `Error` unless min < max.
  explicit Hardtanh(double min = -1.0, double max = 1.0);
  Tensor forward(const Tensor& x) override { return ops::hardtanh(x, min_, max_); }
  std::string extra_repr() const override;

 private:
  double min_;
  double max_;
};

/// Along `dim`, by default the last one.
class Softmax : public Module {
 public:
  explicit Softmax(std::int64_t dim = -1) : dim_(dim) {}
  Tensor forward(const Tensor& x) override;
  std::string extra_repr() const override;

 private:
  std::int64_t dim_;
};

}  // namespace tenon::nn
