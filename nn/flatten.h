// Joining dimensions.
#pragma once

#include "tenon/nn/module.h"

namespace tenon::nn {

/// Joins dimensions `first` to `last` (inclusive): [N, C, H, W] -> [N, C·H·W] by default.
class Flatten : public Module {
 public:
  explicit Flatten(std::int64_t first = 1, std::int64_t last = -1) : first_(first), last_(last) {}
  Tensor forward(const Tensor& x) override { return x.flatten(first_, last_); }
  std::string extra_repr() const override {
    return std::to_string(first_) + ", " + std::to_string(last_);
  }

 private:
  std::int64_t first_;
  std::int64_t last_;
};

}  // namespace tenon::nn
