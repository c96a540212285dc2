// Weights in the order in which the fused kernel reads them.
#pragma once

#include "tenon/core/tensor.h"
#include "tenon/ops/cuda/fused/kernel_config.h"

namespace tenon::ops::cuda {

/// The type of the products, and so how numbers are rounded and how many fit into 16 bytes.
enum class OperandKind : std::uint8_t { Tf32, BFloat16, Float16 };

/// `weight` [Cin, Cout/groups, kH, kW], contiguous on a GPU, for kernels of `config` and tiles of
/// `tiling`, as bytes: rows of 16 bytes of consecutive input channels in the order
/// [group][tile of output channels][set of row phases][stage][tap][half][chunk][output channel],
/// with zeros beyond the last channels.
Tensor pack_weights(const Tensor& weight, OperandKind operand, const KernelConfig& config,
                    const Tiling& tiling);

}  // namespace tenon::ops::cuda
