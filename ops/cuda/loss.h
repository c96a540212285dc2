// CUDA kernel of the negative log likelihood.
#pragma once

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// For each sample: used = weight[target] (1 without weights) and loss = -used·x[target]; both 0
/// where target is `ignore_index`. x [N, C, ...], target int64 and the outputs [N, ...], weight [C]
/// or undefined; all contiguous. A target outside [0, C) is found by the kernel: the sample's loss
/// is NaN, and the next synchronisation of the device throws `Error`.
void nll_loss(const Tensor& x, const Tensor& target, const Tensor& weight,
              std::int64_t ignore_index, const Tensor& loss, const Tensor& used);

}  // namespace tenon::ops::cuda
