// The fused CUDA kernels: every row of the table that fits a problem, not only the one that would
// be chosen, against float64.
#include <gtest/gtest.h>

#ifdef TENON_WITH_CUDA

#include <set>
#include <tuple>

#include "fused_kernel_cases.h"

namespace tenon {
namespace {

using ops::cuda::KernelPlan;
using test::BlockCase;
using test::CoarsePrecision;
using test::EnvironmentGuard;
using test::KernelGeometry;
using test::KernelInputs;
using test::KernelSizes;
using test::wrong_elements;

using Parameters = std::tuple<KernelGeometry, CoarsePrecision>;

std::string describe(const KernelPlan& plan, const BlockCase& block) {
  std::ostringstream out;
  out << plan.row->name << ", " << plan.slots << " slots, " << plan.shared_bytes << " bytes; "
      << testing::PrintToString(block);
  return out.str();
}

/// A geometry and an arithmetic.
class FusedKernel : public testing::TestWithParam<Parameters> {
 protected:
  FusedKernel() : mode_(test::float32_mode(precision())) {}
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }

  const KernelGeometry& geometry() const { return std::get<0>(GetParam()); }
  const CoarsePrecision& precision() const { return std::get<1>(GetParam()); }

  /// Calls check(inputs, block) for each of `sizes` of which there is a convolution.
  template <class Check>
  void for_each(const std::vector<KernelSizes>& sizes, const Check& check) const {
    for (const KernelSizes& size : sizes) {
      if (!test::exists(geometry(), size)) continue;
      const BlockCase block = test::kernel_block(geometry(), size, precision());
      check(KernelInputs(block, precision()), block);
      if (HasFatalFailure()) return;
    }
  }

 private:
  Float32PrecisionGuard mode_;
};

/// What an architecture's rows may be and take.
void expect_within(const KernelPlan& plan, const std::string& architecture) {
  if (architecture.empty()) return;
  EXPECT_EQ(plan.row->architecture, 80);
  EXPECT_LE(plan.shared_bytes, (architecture == "89" ? 99 : 163) * 1024);
}

class FusedKernelResult : public FusedKernel {};

TEST_P(FusedKernelResult, OfEveryRowIsNearFloat64) {
  std::set<std::string> rows;
  for_each(test::sizes_of(geometry()), [&](const KernelInputs& inputs, const BlockCase& block) {
    const Tensor reference = test::kernel_reference(block).to(Device::cuda());
    const double tolerance = precision().tolerance;
    for (const std::string architecture : {"", "89", "80"}) {
      const EnvironmentGuard forced("TENON_FORCE_ARCH", architecture);
      const std::vector<KernelPlan> plans = kernel_plans(inputs.problem());
      if (geometry().table && architecture.empty()) {
        EXPECT_FALSE(plans.empty()) << testing::PrintToString(block);
      }
      for (const KernelPlan& plan : plans) {
        SCOPED_TRACE("TENON_FORCE_ARCH=" + architecture + ", " + describe(plan, block));
        expect_within(plan, architecture);
        test::expect_near(inputs.run(plan), reference, tolerance);
        rows.insert(plan.row->name);
      }
    }
  });
  std::string list;
  for (const std::string& row : rows) list += (list.empty() ? "" : "; ") + row;
  RecordProperty("rows", list);
  if (rows.empty() && !HasFailure()) GTEST_SKIP() << "no row fits: left to cuDNN and a pass";
}

INSTANTIATE_TEST_SUITE_P(Table, FusedKernelResult,
                         testing::Combine(testing::ValuesIn(test::table_geometries()),
                                          testing::ValuesIn(test::kernel_precisions())),
                         test::kernel_test_name);
INSTANTIATE_TEST_SUITE_P(Other, FusedKernelResult,
                         testing::Combine(testing::ValuesIn(test::other_geometries()),
                                          testing::ValuesIn(test::kernel_precisions())),
                         test::kernel_test_name);

// ---- what the result must not depend on ------------------------------------------------------

class FusedKernelBits : public FusedKernel {};

TEST_P(FusedKernelBits, DependOnThePlanAlone) {
  const std::vector<KernelSizes> sizes{{2, 3, 5, 7, 5}, {2, 19, 9, 66, 70}, {5, 70, 16, 16, 64}};
  for_each(sizes, [&](const KernelInputs& inputs, const BlockCase& block) {
    for (const KernelPlan& plan : kernel_plans(inputs.problem())) {
      SCOPED_TRACE(describe(plan, block));
      const Tensor z = inputs.run(plan);
      for (const double poison : {-7.0, 1e4}) test::expect_same_bits(inputs.run(plan, poison), z);
    }
  });
}

/// A contiguous copy of `values` that begins `offset` elements into its memory.
Tensor shifted(const Tensor& values, std::int64_t offset) {
  const Tensor buffer =
      zeros({values.numel() + offset}, {.dtype = values.dtype(), .device = values.device()});
  const Tensor view = buffer.narrow(0, offset, values.numel()).reshape(values.shape());
  view.copy_(values);
  return view;
}

// Widths that could be read in vectors, from addresses that could not.
TEST_P(FusedKernelBits, DoNotDependOnWhereInputsBegin) {
  const EnvironmentGuard by_rule("TENON_AUTOTUNE", "0");
  const std::vector<KernelSizes> sizes{{2, 9, 6, 12, 33}, {1, 64, 5, 64, 64}};
  for_each(sizes, [&](const KernelInputs& inputs, const BlockCase& block) {
    for (const std::int64_t offset : {1, 2, 3}) {
      KernelInputs moved = inputs;
      moved.x = shifted(inputs.x, offset);
      moved.weight = shifted(inputs.weight, offset);
      if (inputs.bias.defined()) moved.bias = shifted(inputs.bias, offset);
      ASSERT_TRUE(moved.x.is_contiguous());
      for (const KernelPlan& plan : kernel_plans(inputs.problem())) {
        SCOPED_TRACE("offset " + std::to_string(offset) + ", " + describe(plan, block));
        test::expect_same_bits(moved.run(plan), inputs.run(plan));
      }
      test::expect_near(moved.run_op(), test::kernel_reference(block).to(Device::cuda()),
                        precision().tolerance);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Table, FusedKernelBits,
                         testing::Combine(testing::ValuesIn(test::table_geometries()),
                                          testing::ValuesIn(test::kernel_precisions())),
                         test::kernel_test_name);

// ---- infinities and NaN ----------------------------------------------------------------------

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Sets elements of a contiguous tensor of float64.
Tensor with(const Tensor& values, const std::vector<std::pair<std::int64_t, double>>& elements) {
  std::vector<double> list = values.to_vector<double>();
  for (const auto& [index, value] : elements) list.at(static_cast<std::size_t>(index)) = value;
  return tensor(list, values.shape());
}

/// z by the definition: nothing is multiplied that is not there.
Tensor definition(const BlockCase& block) {
  test::Image z =
      test::reference_conv_transpose2d(block.x, block.weight, block.bias, block.options);
  const ops::Epilogue& e = block.epilogue;
  for (double& value : z.values) {
    value = std::min(std::max(test::before_clamp(e, value), e.min), e.max) * e.scale;
  }
  return z.tensor();
}

class FusedKernelNonFinite : public FusedKernel {
 protected:
  /// Calls check(block) with a block of finite numbers, without bounds and with.
  template <class Check>
  void for_each_chain(const Check& check) const {
    const KernelSizes size{2, 9, 5, 20, 33};
    BlockCase block = test::kernel_block(geometry(), size, precision());
    for (const ops::Epilogue& chain : {ops::Epilogue{.add = 0.5, .scale = 2}, block.epilogue}) {
      block.epilogue = chain;
      check(block);
    }
  }
  double bound() const { return 16 * precision().tolerance; }
};

TEST_P(FusedKernelNonFinite, InputsReachTheOutputsThatTheyBelongTo) {
  for_each_chain([&](BlockCase block) {
    // A corner, an edge and the middle, the first and the last channel, two that meet.
    const std::int64_t last = block.x.numel() - 1;
    block.x = with(block.x, {{0, kInfinity},
                             {19, -kInfinity},
                             {250, kNan},
                             {251, kInfinity},
                             {350, kInfinity},
                             {351, -kInfinity},
                             {last - 40, -kInfinity},
                             {last, kInfinity}});
    const KernelInputs inputs(block, precision());
    const Tensor wanted = definition(block);
    for (const KernelPlan& plan : kernel_plans(inputs.problem())) {
      SCOPED_TRACE(describe(plan, block));
      EXPECT_EQ(wrong_elements(inputs.run(plan), wanted, bound()), "");
    }
  });
}

/// `values`, with NaN in the output channels `channels` wherever `other` has it.
Tensor with_nan_of(const Tensor& values, const Tensor& other, const std::set<int>& channels) {
  test::Image image(values);
  const test::Image there(other);
  const std::int64_t plane = image.shape[2] * image.shape[3];
  for (std::size_t i = 0; i < image.values.size(); ++i) {
    const auto channel = static_cast<int>(static_cast<std::int64_t>(i) / plane % image.shape[1]);
    if (channels.contains(channel) && std::isnan(there.values[i])) image.values[i] = kNan;
  }
  return image.tensor();
}

// At float32 accuracy outputs are those of the definition. The others multiply the zeros that
// surround x too, as libraries do, so that an infinite weight may give NaN where it takes no part;
// but in its own channel only.
TEST_P(FusedKernelNonFinite, WeightsReachTheOutputsThatTheyBelongTo) {
  for_each_chain([&](BlockCase block) {
    const std::int64_t taps = geometry().kernel.h * geometry().kernel.w;
    const std::int64_t of_channel = block.weight.shape()[1] * taps;  // of an input channel
    block.weight = with(block.weight, {{1 * taps, kInfinity},
                                       {3 * of_channel + 1 * taps + taps - 1, -kInfinity},
                                       {8 * of_channel + 32 * taps + 1, kNan},
                                       {8 * of_channel + 20 * taps, kInfinity}});
    const KernelInputs inputs(block, precision());
    const Tensor wanted = definition(block);
    for (const KernelPlan& plan : kernel_plans(inputs.problem())) {
      SCOPED_TRACE(describe(plan, block));
      const Tensor z = inputs.run(plan);
      const Tensor allowed =
          test::is_strict(precision()) ? wanted : with_nan_of(wanted, z, {1, 20, 32});
      EXPECT_EQ(wrong_elements(z, allowed, bound()), "");
    }
  });
}

INSTANTIATE_TEST_SUITE_P(
    Table, FusedKernelNonFinite,
    testing::Combine(
        testing::ValuesIn(std::vector<KernelGeometry>{
            {"k3_s2_p1_op1", 3, {.stride = 2, .padding = 1, .output_padding = 1}, true},
            {"k4_s2_p1", 4, {.stride = 2, .padding = 1}, true},
            {"k2_s2", 2, {.stride = 2}, true},
            {"k3_s1_p1", 3, {.padding = 1}, true},
            {"k3x2_s3x2", {3, 2}, {.stride = {3, 2}}, false}}),
        testing::ValuesIn(test::kernel_precisions())),
    test::kernel_test_name);

}  // namespace
}  // namespace tenon

#else

TEST(FusedKernel, IsThereWithCudaOnly) { GTEST_SKIP() << "built without CUDA: nothing was run"; }

#endif
