// The fused block's backward on a GPU: by own kernels where the tables hold the problem, otherwise
// by cuDNN's convolutions with one pass between them.
#pragma once

#include <cstdint>
#include <string>

#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cuda {

/// Computes the gradients that are defined tensors by own kernels, from contiguous tensors:
/// x [N, Cin, H, W], weight [Cin, Cout/groups, kH, kW], bias [Cout] or undefined, grad_out
/// [N, Cout, Hout, Wout]. y is computed again and its gradient dy kept for a slice of the batch at
/// a time. Returns false, and has done nothing, where there are no such kernels.
bool backward_by_kernels(const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& grad_out, const ConvTranspose2dOptions& options,
                         const Epilogue& epilogue, const Tensor& grad_x, const Tensor& grad_weight,
                         const Tensor& grad_bias);

/// The names of the kernels that the above runs; empty where it returns false.
std::string backward_kernel_names(const TensorSpec& x, const Shape& weight, const Shape& z,
                                  const ConvTranspose2dOptions& options, const Epilogue& epilogue);

/// Images `first` to `first + count` of a tensor [N, ...], without history.
Tensor images_of(const Tensor& tensor, std::int64_t first, std::int64_t count);

}  // namespace tenon::ops::cuda
