// CPU kernels of the optimizers' steps; see ops/optimizer_step.h.
#pragma once

#include "tenon/ops/optimizer_step.h"

namespace tenon::ops::cpu {

/// All `operands` have one dtype and device. Momentum buffers may be undefined when momentum is 0.
void sgd_step(std::span<const SgdOperands> operands, const SgdStep& step);
/// All `operands` have one dtype and device.
void adam_step(std::span<const AdamOperands> operands, const AdamStep& step);

}  // namespace tenon::ops::cpu
