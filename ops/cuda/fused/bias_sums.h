// The gradient of the bias from the many sums of dy that the kernel of dy leaves, one for each
// warp's positions (kernel_config.h): rows of sums [rows, Cout], float32 and contiguous. They are
// added up slice by slice of the batch, so that only a few stay until the last.
#pragma once

#include <cstdint>

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// Neighbouring rows of which add_bias_rows makes one.
inline constexpr int kBiasRowsOfSum = 128;

/// Rows that it makes of so many.
constexpr std::int64_t bias_rows_of_sums(std::int64_t rows) {
  return (rows + kBiasRowsOfSum - 1) / kBiasRowsOfSum;
}

/// sums[first + i] = the sum of rows i·kBiasRowsOfSum and following, of those that there are;
/// `sums` [at least first + bias_rows_of_sums(rows), Cout], floating. In a fixed order, so that the
/// result is the same bits each time. With `beside` it does not wait for the kernel ahead in the
/// stream, see accumulate_weight_gradient.
void add_bias_rows(const Tensor& rows, const Tensor& sums, std::int64_t first, bool beside = false);

/// gradient [Cout], floating and contiguous, = the sum of all rows, formed in float32, in a fixed
/// order likewise.
void finish_bias_gradient(const Tensor& rows, const Tensor& gradient);

}  // namespace tenon::ops::cuda
