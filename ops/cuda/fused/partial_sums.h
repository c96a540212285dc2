// What follows a convolution whose input channels were cut into parts, so that problems of few
// tiles fill the chip: the parts' sums are added up in a fixed order, then come bias and chain.
#pragma once

#include "tenon/core/tensor.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cuda {

/// z = epilogue(the sum over `parts` of `sums`, plus bias): sums is float32
/// [N, groups·parts·Cout/groups, Hout, Wout], all parts of a group next to each other, and z
/// [N, Cout, Hout, Wout] of a floating dtype, both contiguous and of less than 2^31 elements; bias
/// [Cout] of z's dtype or undefined.
void add_partial_sums(const Tensor& sums, int parts, int groups, const Tensor& bias,
                      const Epilogue& epilogue, const Tensor& z);

}  // namespace tenon::ops::cuda
