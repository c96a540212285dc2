// Which of the fused kernels runs a transposed convolution with its chain, and running it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tenon/core/precision.h"
#include "tenon/ops/cuda/fused/kernel_rows.h"

namespace tenon::ops::cuda {

/// All that a choice of kernel depends on, beside the addresses.
struct BlockProblem {
  TensorSpec x;
  Shape weight;
  Shape z;
  ConvTranspose2dOptions options;
  bool mish;
  Float32Precision precision;

  /// x [N, Cin, H, W], weight [Cin, Cout/groups, kH, kW], z [N, Cout, Hout, Wout]; with this
  /// thread's precision.
  static BlockProblem of(const TensorSpec& x, const Shape& weight, const Shape& z,
                         const ConvTranspose2dOptions& options, const Epilogue& epilogue);

  bool operator==(const BlockProblem&) const = default;
};

struct HashBlockProblem {
  std::size_t operator()(const BlockProblem& problem) const;
};

/// A row of the table fitted to a problem.
struct KernelPlan {
  const KernelRow* row;
  Tiling tiling;
  int slots;           ///< of the ring
  RawWindows raw;      ///< of bulk copies, where x is aligned for them
  int gradient_slots;  ///< of a group's ring for the gradient of z, where it allows bulk copies
  int shared_bytes;    ///< dynamic shared memory of a block
  int parts;           ///< of the input channels, whose sums are added up behind the kernel; or 1
  std::string packed_name;  ///< under which the packed weight is kept (core/derived.h)
};

/// What a plan must fit into.
struct KernelTarget {
  int architecture;  ///< compute capability, 89 for 8.9
  int shared_bytes;  ///< that a block may have
  int multiprocessors;

  /// The device's own, or what TENON_FORCE_ARCH=89 (80, 90) says instead of a newer one; "none" is
  /// one for which there are no kernels.
  static KernelTarget of(Device device);
};

/// The plans that fit, best first by what the table knows; none where the block is left to cuDNN
/// and a pointwise pass: float64, chains without mish, kernels above 7 x 7, strides above 4.
std::vector<KernelPlan> kernel_plans(const BlockProblem& problem, const KernelTarget& target,
                                     Work work = Work::Forward);
/// For the device of the problem's x.
std::vector<KernelPlan> kernel_plans(const BlockProblem& problem, Work work = Work::Forward);

/// The weight [Cin, Cout/groups, kH, kW] as the plan's kernel reads it, packed once a version.
Tensor packed_weights(const KernelPlan& plan, const Tensor& weight);

/// Stages whose products at float32 accuracy make a sum of at most kStepsOfSum steps, or one.
int stages_of_sum(const Tiling& tiling);

/// The part of the positions of all tiles that are positions of y.
double share_inside(const Tiling& tiling);

/// Blocks that the plan's kernel is launched with for the tiles of `tiling` on so many
/// multiprocessors.
int blocks_of(const KernelPlan& plan, const Tiling& tiling, int multiprocessors);

/// Has the plan's kernel read x, contiguous planes, which for kernels with `bulk_only` begin at a
/// multiple of 16 bytes.
void read_planes(KernelArguments& arguments, const KernelPlan& plan, const Tensor& x);

/// z = epilogue(conv_transpose2d(x, weight, bias)) by `plan`; x contiguous, z contiguous and
/// beginning at a multiple of 16 bytes, as new tensors do; bias may be undefined. The same bits for
/// the same plan, always.
void run_kernel_plan(const KernelPlan& plan, const Tensor& x, const Tensor& weight,
                     const Tensor& bias, const ConvTranspose2dOptions& options,
                     const Epilogue& epilogue, const Tensor& z);

/// True where the best plan is known to beat cuDNN and a pass: from measurements for rows of one
/// geometry; for the others by predicted times of products and traffic.
bool kernel_pays(const KernelPlan& plan, Device device);

}  // namespace tenon::ops::cuda
