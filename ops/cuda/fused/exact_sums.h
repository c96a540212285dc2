// What heads and tails cannot say: the tail of an infinity is infinity minus itself, no number, and
// so becomes every sum that the infinity takes part in. Where the fused kernel at float32 accuracy
// met such a sum, these are computed again as they are written, slowly.
#pragma once

#include "tenon/core/tensor.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cuda {

/// Computes those elements of z again that are NaN, if the number at `found_nan`, in the device's
/// memory, is not 0. All tensors float32 and contiguous; x [N, Cin, H, W],
/// weight [Cin, Cout/groups, kH, kW], bias [Cout] or undefined, z [N, Cout, Hout, Wout].
void replace_nan_by_exact_sums(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                               const Tensor& z, const int* found_nan);

}  // namespace tenon::ops::cuda
