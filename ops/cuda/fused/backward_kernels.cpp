#include "tenon/ops/cuda/fused/backward_kernels.h"

#include <cstdint>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/fused/tensor_map.h"
#include "tenon/ops/fused/training_pays.h"

namespace tenon::ops::cuda {
namespace {

/// The plan for as many images as there are.
Tiling tiling_of(const KernelPlan& plan, int images) {
  Tiling tiling = plan.tiling;
  tiling.shape.images = images;
  tiling.image_tiles = (images + tiling.tile.images - 1) / tiling.tile.images;
  return tiling;
}

/// What all kernels of the backward are called with.
KernelArguments arguments_of(const KernelPlan& plan, int images, const Tensor& packed) {
  KernelArguments arguments{};
  arguments.packed = packed.raw_data();
  arguments.tiling = tiling_of(plan, images);
  arguments.slots = plan.slots;
  arguments.stages_of_sum = stages_of_sum(plan.tiling);
  arguments.take_turns = plan.row->take_turns && plan.tiling.stages <= plan.slots;
  return arguments;
}

void read_rows(KernelArguments& arguments, const KernelPlan& plan, const ChannelRows& rows) {
  arguments.rows = rows;
  if (plan.row->architecture == 90) {
    arguments.x_map = rows_map(rows, arguments.tiling, plan.row->config.chunks);
  }
}

int* counter(const Tensor& progress) {
  return progress.defined() ? static_cast<int*>(progress.raw_data()) : nullptr;
}

void launch(const KernelPlan& plan, const KernelArguments& arguments, const Epilogue& epilogue,
            int multiprocessors, Device device) {
  plan.row->launch(arguments, epilogue, blocks_of(plan, arguments.tiling, multiprocessors),
                   plan.shared_bytes, device);
}

}  // namespace

std::optional<BackwardPlan> backward_plan(const BlockProblem& problem, const KernelTarget& target) {
  const std::vector<KernelPlan> sums = kernel_plans(problem, target, Work::SumGradient);
  const std::vector<KernelPlan> data = kernel_plans(problem, target, Work::DataGradient);
  if (sums.empty() || data.empty()) return std::nullopt;
  return BackwardPlan{sums.front(), data.front()};
}

bool backward_pays(const BackwardPlan& plan, const BlockProblem& problem) {
  const KernelPlan& sums = plan.sum_gradient;
  const Device device = problem.x.device;
  if (KernelTarget::of(device).architecture < 90) return kernel_pays(sums, device);
  // On an H100 rows for any geometry multiply more slowly than cuDNN. Those of one geometry,
  // forward and backward, beside cuDNN's convolutions and one pass, ms: mission 6.98 and 9.07,
  // dcgan8 0.635 and 0.728, dcgan32 0.859 and 1.060, unet 0.275 and 0.365, k5 0.318 and 0.401, s1
  // 0.272 and 0.384 in TF32; but small, where half of what tiles hold lies outside of z, 0.300 and
  // 0.247.
  const bool of_geometry =
      sums.row->config.kernel != 0 && plan.data_gradient.row->config.kernel != 0;
  constexpr double kLeastInside = 0.6;
  if (!of_geometry || share_inside(sums.tiling) < kLeastInside) return false;
  // At 16 bits memory traffic weighs half, and products through registers and shared memory no
  // less: with many of them an output cuDNN wins. With bfloat16, forward and backward beside
  // cuDNN's form, ms: dcgan32 (512 products an output) 0.483 and 0.505, s1 (576) 0.191 and 0.192,
  // k5 (800) 0.200 and 0.208; but dcgan8 (2,048) 0.382 and 0.310.
  constexpr double kMostProducts = 1024;
  return sums.row->operand == OperandKind::Tf32 ||
         products_per_output(problem.weight, problem.x.shape, problem.options) <= kMostProducts;
}

std::int64_t bias_sum_rows(const KernelPlan& plan, int images) {
  return bias_sum_rows(plan.row->config, tiling_of(plan, images));
}

bool takes_rows(const KernelPlan& plan) { return plan.row->config.takes_rows(); }

void run_sum_gradient(const KernelPlan& plan, const Tensor& x, const ChannelRows& x_rows,
                      const Tensor& weight, const Tensor& bias, const Tensor& grad_out,
                      const Epilogue& epilogue, const ChannelRows& grad_y, const Tensor& bias_sums,
                      const Tensor& progress) {
  const Device device = weight.device();
  const tenon::cuda::DeviceGuard guard(device);
  const Tensor packed = packed_weights(plan, weight);
  KernelArguments arguments = arguments_of(plan, static_cast<int>(x.shape()[0]), packed);
  if (takes_rows(plan)) {
    read_rows(arguments, plan, x_rows);
  } else {
    read_planes(arguments, plan, x);
  }
  arguments.bias = bias.defined() ? bias.raw_data() : nullptr;
  arguments.progress = counter(progress);
  const bool boxes = plan.gradient_slots > 0 && has_gradient_map(grad_out);
  // Runs of neighbouring columns are read at once; three columns are no power of two.
  const int run = plan.row->config.column_phases == 3 ? 1 : plan.row->config.column_phases;
  const std::size_t bytes = item_size(grad_out.dtype()) * static_cast<std::size_t>(run);
  const bool aligned = reinterpret_cast<std::uintptr_t>(grad_out.raw_data()) % bytes == 0 &&
                       grad_out.shape()[3] % run == 0;
  arguments.gradient = {.map = boxes ? gradient_map(grad_out, plan.row->config) : TensorMap{},
                        .slots = boxes ? plan.gradient_slots : 0,
                        .grad_out = grad_out.raw_data(),
                        .aligned = aligned,
                        .grad_y = grad_y,
                        .bias_sums = bias_sums.data<float>()};
  launch(plan, arguments, epilogue, tenon::cuda::properties(device).multiprocessors, device);
}

void run_data_gradient(const KernelPlan& plan, const ChannelRows& grad_y, const Tensor& weight,
                       const Tensor& grad_x, int multiprocessors, const Tensor& progress) {
  const Device device = weight.device();
  const tenon::cuda::DeviceGuard guard(device);
  const Tensor packed = packed_weights(plan, weight);
  KernelArguments arguments = arguments_of(plan, grad_y.images, packed);
  read_rows(arguments, plan, grad_y);
  arguments.z = grad_x.raw_data();
  arguments.progress = counter(progress);
  launch(plan, arguments, Epilogue{}, multiprocessors, device);
}

LeadingTiles leading_tiles(const KernelPlan& data_gradient, int images, int multiprocessors,
                           const Tensor& progress) {
  const Tiling t = tiling_of(data_gradient, images);
  return {.begun = counter(progress),
          .ahead = blocks_of(data_gradient, t, multiprocessors) / 2,
          .count = t.tiles(),
          .units = t.units(),
          .images = t.tile.images,
          .rows = t.tile.rows,
          .columns = t.tile.columns,
          .row_tiles = t.row_tiles,
          .column_tiles = t.column_tiles};
}

}  // namespace tenon::ops::cuda
