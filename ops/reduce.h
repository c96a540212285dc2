// Reductions that add up: sum, mean, variance. The extremes are in extremum.h. Inputs of any
// strides are read where they lie, in an order that shapes and strides decide; results are
// contiguous.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// `x` with `dims` as the shape that a reduction over them leaves: size 1 with `keepdim`, otherwise
/// removed. No `dims` means all of them. Throws `Error` naming `op` for a dimension that is out of
/// range or named twice.
Shape reduced_shape(const Shape& x, const Shape& dims, bool keepdim, std::string_view op);

/// Sum over `dims` (all, if none are given). Bool and uint8 are summed as int64; an empty sum is 0.
Tensor sum(const Tensor& x, const Shape& dims = {}, bool keepdim = false);
/// Arithmetic mean over `dims`; NaN over no elements. Needs a floating dtype; 16-bit floats are
/// averaged in float32.
Tensor mean(const Tensor& x, const Shape& dims = {}, bool keepdim = false);
/// Variance over `dims`: the sum of squared deviations from the mean, divided by
/// max(0, n - correction): 1 for the unbiased estimate, 0 for the population's. Needs a floating
/// dtype.
Tensor var(const Tensor& x, const Shape& dims = {}, double correction = 1, bool keepdim = false);

}  // namespace tenon::ops
