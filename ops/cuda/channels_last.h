// Channels-last memory: the strides of a logical [N, C, H, W] tensor whose channels lie together,
// which cuDNN's fastest kernels want.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// An uninitialised tensor of that spec ([N, C, H, W]) in channels-last memory.
Tensor empty_channels_last(const TensorSpec& spec);

/// The same values in channels-last memory: `x` itself if it is there already, otherwise `x` is
/// contiguous; [N, C, H, W] of a floating dtype.
Tensor to_channels_last(const Tensor& x);

/// Writes `source`, in channels-last memory, plus `bias` [C], which may be undefined, over the
/// contiguous `target`; one shape and dtype.
void from_channels_last(const Tensor& source, const Tensor& bias, const Tensor& target);

}  // namespace tenon::ops::cuda
