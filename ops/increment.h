// Counting in place.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// Adds 1 to `counter`, an int64 tensor of one element, in place, and returns it. An op, so that a
/// compiled function counts its calls. Throws `Error` for another dtype or size.
Tensor increment_(const Tensor& counter);

/// `increment_`.
class IncrementOp : public Op {
 public:
  std::string_view name() const override { return "increment"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  bool differentiable() const override { return false; }
  bool pure() const override { return false; }
};

}  // namespace tenon::ops
