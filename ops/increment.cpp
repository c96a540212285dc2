#include "tenon/ops/increment.h"

#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"

namespace tenon::ops {

Tensor increment_(const Tensor& counter) { return apply(IncrementOp(), {counter}); }

std::vector<TensorSpec> IncrementOp::infer(std::span<const TensorSpec> inputs) const {
  TENON_CHECK(inputs[0].dtype == DType::Int64 && inputs[0].shape.numel() == 1,
              "increment: needs an int64 tensor of one element, got ", inputs[0]);
  return {inputs[0]};
}

std::vector<Tensor> IncrementOp::forward(std::span<const Tensor> inputs,
                                         std::span<const TensorSpec>) const {
  const Tensor& counter = inputs[0];
  tenon::detail::begin_in_place(counter, "increment");
  // Added where the counter is: reading it would make the host wait for the device.
  const Tensor one = tenon::detail::make_empty(counter.spec());
  kernels::fill(one, 1);
  kernels::add(counter, one, counter);
  return {inputs[0]};
}

}  // namespace tenon::ops
