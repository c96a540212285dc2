// dx and dw at once, each on its part of the multiprocessors: both read all of dy, and what one of
// them has read is in the L2 cache for the other.
#pragma once

#include <optional>

#include "tenon/ops/cuda/fused/conv_kernel.h"
#include "tenon/ops/cuda/fused/weight_gradient.h"

namespace tenon::ops::cuda {

/// How they share the device.
struct GradientPair {
  int data_multiprocessors;   ///< those of dx
  WeightGradientPlan weight;  ///< on the others
};

/// The pair of `data`, a plan of Work::DataGradient, and the weight gradient of `problem`, whose
/// images count for both; none where it is not predicted to beat one behind the other, `alone`
/// being the weight gradient's plan for the whole of `target`, or before sm_90, where kernels do
/// not overlap.
std::optional<GradientPair> pair_gradients(const KernelPlan& data, const WeightGradientPlan& alone,
                                           const WeightGradientProblem& problem,
                                           const WeightGradientTarget& target);

}  // namespace tenon::ops::cuda
