// Which dtype an op on several tensors computes in, by PyTorch's rules.
#pragma once

#include <span>

#include "tenon/core/tensor.h"

namespace tenon::ops {

/// The dtype that PyTorch's `torch.result_type` gives: tensors of one or more dimensions decide;
/// a 0-dimensional one only matters when it is of a higher category (bool < integer < floating).
/// `float32[3] + float64[]` is float32, `int64[3] + float64[]` is float64.
DType result_type(std::span<const Tensor> tensors);
DType result_type(const Tensor& a, const Tensor& b);
/// The same for a tensor and a number: float32 when a real meets an integer tensor.
DType result_type(const Tensor& x, Scalar scalar);

/// `dtype` if it is floating, otherwise float32: what functions such as `exp` give for integers.
DType floating_type(DType dtype);

}  // namespace tenon::ops
