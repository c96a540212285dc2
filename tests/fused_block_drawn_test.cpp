// The fused block against its definition in float64, over drawn cases: kernels 1 to 7, strides 1 to
// 4, rectangular, dilated, grouped, with and without bias and bounds; on every device and in every
// precision.
#include <gtest/gtest.h>

#include "fused_block_reference.h"
#include "tenon/core/precision.h"
#include "tenon/ops/activation.h"
#include "tenon/ops/binary.h"

namespace tenon {
namespace {

using test::BlockCase;
using test::BlockReference;
using test::relative_error;

/// A result and the gradients of its inputs; bias may be undefined.
struct Outcome {
  Tensor z, grad_x, grad_weight, grad_bias;
};

Tensor unfused(const Tensor& x, const Tensor& weight, const Tensor& bias,
               const ops::ConvTranspose2dOptions& options, const ops::Epilogue& epilogue) {
  Tensor value = ops::conv_transpose2d(x, weight, bias, options);
  if (epilogue.mish) value = ops::mish(value);
  value = ops::add(value, epilogue.add);
  if (epilogue.clamps()) {
    value = epilogue.gradient_at_bounds ? ops::clamp(value, epilogue.min, epilogue.max)
                                        : ops::hardtanh(value, epilogue.min, epilogue.max);
  }
  return ops::mul(value, epilogue.scale);
}

template <class Function>
Outcome run(const BlockCase& block, DType dtype, Device device, Function function) {
  const Tensor x = test::leaf(block.x, dtype, device);
  const Tensor weight = test::leaf(block.weight, dtype, device);
  const Tensor bias = test::leaf(block.bias, dtype, device);
  const Tensor z = function(x, weight, bias, block.options, block.epilogue);
  z.backward(block.grad_out.to(device, dtype));
  return {z.detach(), x.grad(), weight.grad(), bias.defined() ? bias.grad() : Tensor()};
}

void expect_near_reference(const Outcome& outcome, const BlockReference& reference,
                           double tolerance) {
  ASSERT_EQ(outcome.z.shape(), reference.z.shape);
  EXPECT_LE(relative_error(outcome.z.to_vector<double>(), reference.z.values), tolerance);
  const test::ReferenceGradients& gradients = reference.gradients;
  EXPECT_LE(relative_error(outcome.grad_x.to_vector<double>(), gradients.x.values), tolerance);
  EXPECT_LE(relative_error(outcome.grad_weight.to_vector<double>(), gradients.weight.values),
            tolerance);
  if (outcome.grad_bias.defined()) {
    EXPECT_LE(relative_error(outcome.grad_bias.to_vector<double>(), gradients.bias), tolerance);
  }
}

void expect_agree(const Outcome& a, const Outcome& b, double tolerance) {
  EXPECT_LE(relative_error(a.z, b.z), tolerance);
  EXPECT_LE(relative_error(a.grad_x, b.grad_x), tolerance);
  EXPECT_LE(relative_error(a.grad_weight, b.grad_weight), tolerance);
  if (a.grad_bias.defined()) {
    EXPECT_LE(relative_error(a.grad_bias, b.grad_bias), tolerance);
  }
}

void expect_same_bits(const Outcome& a, const Outcome& b) {
  test::expect_same_bits(a.z, b.z);
  test::expect_same_bits(a.grad_x, b.grad_x);
  test::expect_same_bits(a.grad_weight, b.grad_weight);
  if (a.grad_bias.defined()) test::expect_same_bits(a.grad_bias, b.grad_bias);
}

/// Runs the fused block twice: nothing may depend on timing.
Outcome run_fused(const BlockCase& block, DType dtype, Device device) {
  const Outcome outcome = run(block, dtype, device, ops::conv_transpose2d_epilogue);
  expect_same_bits(run(block, dtype, device, ops::conv_transpose2d_epilogue), outcome);
  return outcome;
}

class DrawnBlock : public testing::TestWithParam<int> {};

TEST_P(DrawnBlock, MatchesDefinitionAndUnfusedOps) {
  const BlockCase block = test::draw_block(static_cast<std::uint64_t>(GetParam()));
  SCOPED_TRACE(testing::PrintToString(block));
  const BlockReference reference = test::reference_block(block);
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    for (const DType dtype : {DType::Float32, DType::Float64}) {
      SCOPED_TRACE(testing::Message() << dtype << " on " << device);
      const double tolerance = dtype == DType::Float32 ? 2e-6 : 1e-12;
      const Outcome fused = run_fused(block, dtype, device);
      const Outcome single = run(block, dtype, device, unfused);
      expect_near_reference(fused, reference, tolerance);
      expect_agree(fused, single, tolerance);
    }
  }
}

TEST_P(DrawnBlock, MatchesDefinitionInCoarsePrecisions) {
  constexpr test::CoarsePrecision kPrecisions[] = {{"tf32", DType::Float32, 11, 1e-3},
                                                   {"bfloat16", DType::BFloat16, 8, 1e-2},
                                                   {"float16", DType::Float16, 11, 2e-3}};
  const Float32PrecisionGuard fast(Float32Precision::Tf32);
  for (const test::CoarsePrecision& precision : kPrecisions) {
    const BlockCase block = test::draw_block(static_cast<std::uint64_t>(GetParam()), precision);
    SCOPED_TRACE(testing::PrintToString(block));
    const BlockReference reference = test::reference_block(block);
    for (const Device device : test::test_devices()) {
      SCOPED_TRACE(testing::Message() << precision.name << " on " << device);
      expect_near_reference(run_fused(block, precision.dtype, device), reference,
                            precision.tolerance);
    }
  }
}

TEST(DrawnBlockOnCuda, TakesPart) { TENON_SKIP_WITHOUT_GPU(); }

INSTANTIATE_TEST_SUITE_P(Case, DrawnBlock, testing::Range(0, 240));

}  // namespace
}  // namespace tenon
