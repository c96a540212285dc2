// The kernels of core's own ops, on whatever device the tensors are. They record no history and
// check nothing: the ops do.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::kernels {

/// Writes `source`, which must broadcast to `target`'s shape, over `target`, converting. The two
/// may be on different devices; a copy to the host has arrived when this returns.
void copy(const Tensor& source, const Tensor& target);
/// Overwrites every element.
void fill(const Tensor& target, Scalar value);
/// target[i] = a[i] + b[i]; one dtype; a and b broadcast to the shape of `target`, which may be
/// either of them.
void add(const Tensor& a, const Tensor& b, const Tensor& target);
/// Sums `source` into the contiguous `target`, whose shape broadcasts to the source's. The order
/// of additions is fixed by shapes and strides alone.
void sum_to(const Tensor& source, const Tensor& target);

}  // namespace tenon::kernels
