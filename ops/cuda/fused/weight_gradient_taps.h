// The part of a weight gradient's plan that says which taps are summed together, and what they take
// of shared memory.
#pragma once

#include "tenon/ops/cuda/fused/pack_weights.h"
#include "tenon/ops/cuda/fused/weight_gradient_tiling.h"

namespace tenon::ops::cuda {

/// Cuts `list` into units that a block of `config` can sum and that fit `shared_bytes`, as few as
/// there are, of the tile that `t` has. False where there are none.
bool cut_taps(const WeightGradientConfig& config, OperandKind operand, const TapList& list,
              int shared_bytes, WeightGradientTiling& t);

}  // namespace tenon::ops::cuda
