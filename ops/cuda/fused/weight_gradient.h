// The gradient of a transposed convolution's weight on the tensor cores, from dy as rows of
// channels (channel_rows.h), and x as rows too or, on sm_90, as it is.
#pragma once

#include "tenon/core/tensor.h"
#include "tenon/ops/cuda/fused/channel_rows_ops.h"
#include "tenon/ops/cuda/fused/weight_gradient_rows.h"

namespace tenon::ops::cuda {

/// What is computed, from what and how exactly.
struct WeightGradientProblem {
  TransposedShape shape;
  OperandKind operand;
  bool split;  ///< float32 accuracy: of exact rows
};

/// A kernel and how it is launched.
struct WeightGradientPlan {
  const WeightGradientRow* row;
  WeightGradientTiling tiling;
  double cycles;  ///< that it is expected to take

  int shared_bytes() const { return tiling.shared_bytes(); }
  std::int64_t workspace_floats() const { return tiling.split_floats() * tiling.splits; }
  /// Whether x is read as planes, which begin at a multiple of 16 bytes; otherwise as rows.
  bool reads_planes() const { return row->config.warpgroups > 0; }
};

/// What a plan must fit into.
struct WeightGradientTarget {
  int multiprocessors;
  int shared_bytes;  ///< that a block can have
  int architecture = 80;

  static WeightGradientTarget of(Device device);
};

/// The plan for `problem`, of a shape that `tiling_fits`, that a model of its time takes for the
/// fastest. Looking at all takes up to a millisecond: keep it.
WeightGradientPlan plan_weight_gradient(const WeightGradientProblem& problem,
                                        const WeightGradientTarget& target);

/// The same with this kernel and tile, for tests and tuning; `splits` 0: as many as fill the
/// device. False where it does not fit.
bool make_weight_gradient_plan(const WeightGradientProblem& problem,
                               const WeightGradientTarget& target, const WeightGradientRow& row,
                               const WeightGradientTile& tile, int splits,
                               WeightGradientPlan& plan);

/// Sums x·dy over the positions of these images, as weight_gradient_tiling.h says, to `workspace`,
/// float32 of at least plan.workspace_floats(). With `continues` the sums begin with those that are
/// there from the same plan's call for other images; without, what is there does not count. `x`
/// [N, groups·Cin, H, W] contiguous, `x_rows` the same as `input_rows`, without memory where the
/// plan reads planes, `dy` as `output_rows`, of the same images, which may be fewer than the
/// plan's. The order of the sum is that of the plan and the calls alone, so that the result is the
/// same bits each time.
///
/// With `beside` the kernel does not wait for those ahead in the stream, but for their start: they
/// must leave x, dy and the workspace alone, and the first of them must itself have waited before
/// it let the next one begin. What comes behind this call finds all of them done, as ever. If one
/// of them is `leading`, this kernel may follow it.
void accumulate_weight_gradient(const WeightGradientPlan& plan, const Tensor& x,
                                const ChannelRows& x_rows, const ChannelRows& dy,
                                const Tensor& workspace, bool continues, bool beside = false,
                                const LeadingTiles& leading = {});

/// gradient = dW, [groups·Cin, Cout, kH, kW] floating, contiguous (Cin and Cout of a group), of all
/// images that were accumulated in `workspace`, which stays as it is. The order of the sum is the
/// plan's alone.
void finish_weight_gradient(const WeightGradientPlan& plan, const Tensor& workspace,
                            const Tensor& gradient);

}  // namespace tenon::ops::cuda
