#include "tenon/ops/increment.h"

namespace tenon::ops {

Tensor increment_(const Tensor& counter) { return apply(IncrementOp(), {counter}); }

std::vector<TensorSpec> IncrementOp::infer(std::span<const TensorSpec> inputs) const {
  TENON_CHECK(inputs[0].dtype == DType::Int64 && inputs[0].shape.numel() == 1,
              "increment: needs an int64 tensor of one element, got ", inputs[0]);
  return {inputs[0]};
}

std::vector<Tensor> IncrementOp::forward(std::span<const Tensor> inputs,
                                         std::span<const TensorSpec>) const {
  inputs[0].fill_(inputs[0].item<std::int64_t>() + 1);
  return {inputs[0]};
}

}  // namespace tenon::ops
