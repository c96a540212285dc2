// When the fused kernel cuts the input channels into parts, and how: needs no GPU.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#ifdef TENON_WITH_CUDA

#include "fused_block_reference.h"
#include "tenon/ops/cuda/fused/conv_kernel.h"

namespace tenon {
namespace {

using ops::cuda::BlockProblem;
using ops::cuda::KernelPlan;

/// The plans of a bfloat16 block for an H100.
std::vector<KernelPlan> plans_for(const Shape& x, const Shape& weight,
                                  const ops::ConvTranspose2dOptions& options) {
  const BlockProblem problem{{x, DType::BFloat16, Device::cpu()},
                             weight,
                             test::transposed_shape(x, weight, options),
                             options,
                             true,
                             Float32Precision::Tf32};
  return ops::cuda::kernel_plans(problem, {90, 227 * 1024, 132});
}

/// Whether the library has the kernels for sm_90.
bool has_rows() {
  const auto plans = plans_for({1, 64, 8, 8}, {64, 64, 4, 4}, {.stride = 2, .padding = 1});
  return !plans.empty() && plans.front().row->architecture == 90;
}

TEST(KernelParts, FillTheChipWhereTilesAreFewAndChannelsMany) {
  if (!has_rows()) GTEST_SKIP() << "built without sm_90a";
  const auto plans = plans_for({1, 128, 28, 28}, {128, 48, 6, 6}, {.stride = 2, .padding = 2});
  ASSERT_GE(plans.size(), 2U);
  const KernelPlan& parts = plans[0];
  const KernelPlan& whole = plans[1];
  EXPECT_EQ(whole.parts, 1);
  ASSERT_GT(parts.parts, 1);
  EXPECT_EQ(parts.tiling.shape.groups, parts.parts);
  EXPECT_EQ(parts.tiling.shape.in_channels * parts.parts, 128);
  EXPECT_EQ(parts.tiling.shape.out_channels, 48);
  EXPECT_EQ(parts.tiling.tiles(), whole.tiling.tiles() * parts.parts);
  EXPECT_LE(parts.tiling.tiles(), 132);
  EXPECT_LT(parts.tiling.stages, whole.tiling.stages);
}

TEST(KernelParts, AreGroupsWithinGroups) {
  if (!has_rows()) GTEST_SKIP() << "built without sm_90a";
  const auto plans =
      plans_for({1, 3 * 96, 14, 14}, {3 * 96, 20, 5, 5}, {.padding = 2, .groups = 3});
  ASSERT_FALSE(plans.empty());
  EXPECT_GT(plans[0].parts, 1);
  EXPECT_EQ(plans[0].tiling.shape.groups, 3 * plans[0].parts);
  EXPECT_EQ(plans[0].tiling.shape.in_channels * plans[0].parts, 96);
}

TEST(KernelParts, AreNotMadeWhereTheyWouldCostMoreThanTheySave) {
  if (!has_rows()) GTEST_SKIP() << "built without sm_90a";
  const ops::ConvTranspose2dOptions options{.stride = 2, .padding = 1};
  for (const auto& [x, weight] : std::vector<std::pair<Shape, Shape>>{
           {{128, 512, 8, 8}, {512, 256, 4, 4}},  // tiles for the whole chip
           {{1, 16, 28, 28}, {16, 48, 4, 4}},     // few channels
           {{1, 127, 4, 4}, {127, 8, 4, 4}},      // a prime number of them
       }) {
    for (const KernelPlan& plan : plans_for(x, weight, options)) {
      EXPECT_EQ(plan.parts, 1) << plan.row->name << ", x " << x;
    }
  }
}

}  // namespace
}  // namespace tenon

#else

TEST(KernelParts, NeedCuda) { GTEST_SKIP() << "built without CUDA"; }

#endif
