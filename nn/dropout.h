// Dropout.
#pragma once

#include "tenon/nn/module.h"

namespace tenon::nn {

/// ops::dropout in training; the identity in evaluation.
class Dropout : public Module {
 public:
  /// `p` is the probability of a zero. Throws `Error` unless it is in [0, 1].
  explicit Dropout(double p = 0.5);
  Tensor forward(const Tensor& x) override;
  std::string extra_repr() const override;

 private:
  double p_;
};

}  // namespace tenon::nn
