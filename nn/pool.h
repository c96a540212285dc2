// Pooling layers.
#pragma once

#include "tenon/nn/module.h"
#include "tenon/ops/pool.h"

namespace tenon::nn {

/// ops::max_pool2d with a fixed kernel: `nn::MaxPool2d(2)`, `nn::MaxPool2d(3, {.stride = 2})`.
class MaxPool2d : public Module {
 public:
  explicit MaxPool2d(Pair kernel, const ops::MaxPool2dOptions& options = {})
      : kernel_(kernel), options_(options) {}
  Tensor forward(const Tensor& x) override { return ops::max_pool2d(x, kernel_, options_); }
  std::string extra_repr() const override;

 private:
  Pair kernel_;
  ops::MaxPool2dOptions options_;
};

/// ops::avg_pool2d with a fixed kernel.
class AvgPool2d : public Module {
 public:
  explicit AvgPool2d(Pair kernel, const ops::AvgPool2dOptions& options = {})
      : kernel_(kernel), options_(options) {}
  Tensor forward(const Tensor& x) override { return ops::avg_pool2d(x, kernel_, options_); }
  std::string extra_repr() const override;

 private:
  Pair kernel_;
  ops::AvgPool2dOptions options_;
};

}  // namespace tenon::nn
