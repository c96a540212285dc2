// The fully connected layer.
#pragma once

#include "tenon/nn/module.h"

namespace tenon::nn {

struct LinearOptions {
  bool bias = true;
};

/// x·weightᵀ + bias: [..., in] -> [..., out]. Both start uniform in ±1/sqrt(in).
class Linear : public Module {
 public:
  /// Throws `Error` when a size is negative.
  Linear(std::int64_t in_features, std::int64_t out_features, const LinearOptions& options = {});

  Tensor forward(const Tensor& x) override;
  std::string extra_repr() const override;

  Tensor weight;  ///< [out, in]
  Tensor bias;    ///< [out], or undefined
};

}  // namespace tenon::nn
