// When a training step through the fused block is worth it.
#pragma once

#include "tenon/ops/conv.h"

namespace tenon::ops {

/// Multiply-adds for one element of y, on average: Cin/groups·kH·kW / (stride.h·stride.w).
double products_per_output(const Shape& weight, const Shape& x,
                           const ConvTranspose2dOptions& options);

/// Whether forward and backward of `conv_transpose2d_epilogue` together are expected to take no
/// longer than those of the unfused ops; x [N, Cin, H, W], weight [Cin, Cout/groups, kH, kW]. The
/// forward alone pays on every shape; the backward computes y again, which costs more the more
/// products an output has and the fewer channels share the handling of x.
bool fused_training_pays(const TensorSpec& x, const Shape& weight,
                         const ConvTranspose2dOptions& options);

}  // namespace tenon::ops
