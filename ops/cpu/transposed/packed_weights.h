// Weights in the order in which the kernels read them.
#pragma once

#include <cstdint>

#include "tenon/core/tensor.h"
#include "tenon/ops/cpu/conv_transpose_tiles.h"
#include "tenon/ops/cpu/simd/channel_blocks.h"
#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/cpu/transposed/gradient_tiles.h"

namespace tenon::ops::cpu {

/// The weights of a transposed convolution as [group][phase][block of output channels]
/// [tap row, tap column, input channel][output channel of the block], kept with the tensor as long
/// as it does not change.
Tensor packed_weights(const TransposedPlan& plan, const simd::Kernels& kernels,
                      const Tensor& weight);

/// The same weights for the data gradient, as [group][block of input channels][tap of `taps`]
/// [output channel][input channel of the block].
Tensor packed_gradient_weights(const TransposedPlan& plan, const simd::Kernels& kernels,
                               const std::vector<GradientTap>& taps, const Tensor& weight);

}  // namespace tenon::ops::cpu
