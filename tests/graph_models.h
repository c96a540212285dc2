// Small models and helpers for the tests of graph.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/graph/graph.h"
#include "tenon/ops/activation.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/conv.h"
#include "tenon/ops/unary.h"
#include "tenon/tests/support/devices.h"

namespace tenon::graph::testing {

/// Normal numbers from a generator of its own, so that each test is alike wherever it runs.
inline Tensor random(const Shape& shape, std::uint64_t seed, DType dtype = DType::Float64,
                     Device device = Device::cpu()) {
  Generator generator(seed);
  return randn(shape, {.dtype = dtype}, generator).to(device);
}

/// A transposed convolution 3 -> 4 channels, kernel 3, stride 2, with parameters by name.
struct Up {
  Tensor weight;
  Tensor bias;
  ops::ConvTranspose2dOptions options{.stride = 2, .padding = 1, .output_padding = 1};
  bool is_training = true;

  explicit Up(DType dtype = DType::Float64, bool with_bias = true, Device device = Device::cpu())
      : weight(random({3, 4, 3, 3}, 11, dtype, device)) {
    weight.requires_grad_();
    if (with_bias) {
      bias = random({4}, 12, dtype, device);
      bias.requires_grad_();
    }
  }

  Tensor convolve(const Tensor& x) const { return ops::conv_transpose2d(x, weight, bias, options); }
  std::vector<NamedTensor> named_parameters() const {
    std::vector<NamedTensor> all = {{"up.weight", weight}};
    if (bias.defined()) all.push_back({"up.bias", bias});
    return all;
  }
  bool training() const { return is_training; }
};

/// An `Up` followed by any chain.
struct Block : Up {
  std::function<Tensor(const Tensor&)> chain;
  explicit Block(std::function<Tensor(const Tensor&)> steps, DType dtype = DType::Float64,
                 bool with_bias = true, Device device = Device::cpu())
      : Up(dtype, with_bias, device), chain(std::move(steps)) {}
  Tensor forward(const Tensor& x) const { return chain(convolve(x)); }
};

inline Tensor block_input(DType dtype = DType::Float64, Device device = Device::cpu()) {
  return random({2, 3, 5, 4}, 13, dtype, device);
}

/// The names of the ops in a graph, in order: "conv_transpose2d mish add".
inline std::string op_names(const Graph& graph) {
  std::string names;
  for (const Node& node : graph.nodes()) {
    if (!names.empty()) names += ' ';
    names += node.op->name();
  }
  return names;
}

/// Largest absolute difference.
inline double distance(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.spec(), b.spec());
  const std::vector<double> left = a.to_vector<double>();
  const std::vector<double> right = b.to_vector<double>();
  double largest = 0;
  for (std::size_t i = 0; i < left.size(); ++i) {
    // NaN must meet NaN; a difference of two NaN would otherwise pass any bound.
    if (std::isnan(left[i]) && std::isnan(right[i])) continue;
    if (left[i] == right[i]) continue;
    const double difference = std::abs(left[i] - right[i]);
    largest = std::isnan(difference) ? 1e300 : std::max(largest, difference);
  }
  return largest;
}

/// Σ y·v for a fixed v, so that every element has a gradient of its own.
inline Tensor weighted_gradient(const Tensor& y) {
  return random(y.shape(), 99, y.dtype(), y.device());
}

}  // namespace tenon::graph::testing
