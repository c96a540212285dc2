// The fused backward by own kernels: dy from x and the gradient of z, then dx and dw from dy. Dy
// passes from kernel to kernel as ChannelRows; x is ChannelRows to those kernels that take no
// planes.
#pragma once

#include <optional>
#include <string>

#include "tenon/ops/cuda/fused/channel_rows.h"
#include "tenon/ops/cuda/fused/conv_kernel.h"
#include "tenon/ops/cuda/fused/weight_gradient_rows.h"

namespace tenon::ops::cuda {

/// The kernels of a backward.
struct BackwardPlan {
  KernelPlan sum_gradient;   ///< dy
  KernelPlan data_gradient;  ///< dx
};

/// The best plan for the problem, or none where the backward is left to cuDNN: float64,
/// chains without mish, geometries that the tables do not hold.
std::optional<BackwardPlan> backward_plan(const BlockProblem& problem, const KernelTarget& target);

/// True where the plan, which is the problem's, is known or predicted to beat cuDNN's convolutions
/// and one pass.
bool backward_pays(const BackwardPlan& plan, const BlockProblem& problem);

/// Rows of bias sums that the plan's kernel writes for so many images.
std::int64_t bias_sum_rows(const KernelPlan& plan, int images);

/// Whether run_sum_gradient reads x as rows; else it reads planes.
bool takes_rows(const KernelPlan& plan);

/// dy, in `grad_y`, from x [N, Cin, H, W], w, b and the gradient of z [N, Cout, Hout, Wout], both
/// contiguous. `x_rows` is x as rows; it need be there only if takes_rows(plan). `bias_sums`
/// [bias_sum_rows, Cout] float32 receives sums of dy that together are the gradient of the bias.
/// The images are those of `x`, which may be fewer than the plan's. `progress`, if defined, becomes
/// 0 for the data gradient behind this.
void run_sum_gradient(const KernelPlan& plan, const Tensor& x, const ChannelRows& x_rows,
                      const Tensor& weight, const Tensor& bias, const Tensor& grad_out,
                      const Epilogue& epilogue, const ChannelRows& grad_y, const Tensor& bias_sums,
                      const Tensor& progress = {});

/// dx [N, Cin, H, W], contiguous, from dy and w, by so many multiprocessors, which count in
/// `progress`, if defined, an integer on the device, the tiles that they have begun.
void run_data_gradient(const KernelPlan& plan, const ChannelRows& grad_y, const Tensor& weight,
                       const Tensor& grad_x, int multiprocessors, const Tensor& progress = {});

/// Those tiles, of so many images.
LeadingTiles leading_tiles(const KernelPlan& data_gradient, int images, int multiprocessors,
                           const Tensor& progress);

}  // namespace tenon::ops::cuda
