// CUDA kernels of core's own ops.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::cuda {

/// Writes `source`, which must broadcast to `target`'s shape, over `target`, converting. Either may
/// be on the host or on another GPU; a copy to the host has arrived when this returns.
void copy(const Tensor& source, const Tensor& target);
/// Overwrites every element.
void fill(const Tensor& target, Scalar value);
/// target[i] = a[i] + b[i]; one dtype; a and b broadcast to the shape of `target`, which may be
/// either of them.
void add(const Tensor& a, const Tensor& b, const Tensor& target);
/// Sums `source` into the contiguous `target`, whose shape broadcasts to the source's. The order
/// of additions is fixed by shapes and strides alone.
void sum_to(const Tensor& source, const Tensor& target);
/// Launches a kernel that does nothing, one block of `threads`: what a launch alone costs the host,
/// and what becomes of one that fails (a block has at most 1,024 threads).
void launch_nothing(Device device, unsigned threads = 32);

}  // namespace tenon::cuda
