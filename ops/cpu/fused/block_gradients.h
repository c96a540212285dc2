// The results of the fused block's backward on the CPU, float32.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::ops::cpu {

/// Where the gradients go, in contiguous memory; null for those that are not wanted.
struct BlockGradients {
  float* x;
  float* weight;
  float* bias;

  /// Undefined tensors are not wanted.
  static BlockGradients of(const Tensor& x, const Tensor& weight, const Tensor& bias) {
    const auto data = [](const Tensor& tensor) {
      return tensor.defined() ? tensor.data<float>() : nullptr;
    };
    return {data(x), data(weight), data(bias)};
  }
};

}  // namespace tenon::ops::cpu
