// What runs a fused block on a GPU: one of the fused kernels, or cuDNN followed by a pointwise
// pass.
#pragma once

#include <functional>
#include <string>

#include "tenon/ops/cuda/fused/conv_kernel.h"

namespace tenon::ops::cuda {

/// The plan for `problem`, or null for cuDNN and a pass. Shapes that the table knows are looked up
/// there. For others, up to three kernels and the alternative are timed once where tuning is on
/// (core/tuning.h; TENON_AUTOTUNE=1 times the table's shapes too, 0 none): `run` runs a plan, null
/// for the alternative. A kernel is taken for a gain of 2% or more. The choice is kept for this
/// thread, and on disk in fused_kernels.json (ops/tuning_cache.h). The pointer is this
/// thread's, and valid until its next call.
const KernelPlan* choose_kernel(const BlockProblem& problem,
                                const std::function<void(const KernelPlan*)>& run);

/// The name of what `choose_kernel` has chosen or, before that, would choose without timing.
std::string kernel_name(const BlockProblem& problem);

}  // namespace tenon::ops::cuda
