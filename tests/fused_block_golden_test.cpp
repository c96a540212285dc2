// The fused block, and the same chain of single ops, against tensors that PyTorch made.
#include <gtest/gtest.h>

#include "compare.h"
#include "golden.h"
#include "tenon/core/precision.h"
#include "tenon/ops/activation.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon {
namespace {

using test::expect_close;
using test::GoldenCase;

class FusedBlockGolden : public testing::TestWithParam<std::string> {};

Pair pair_of(const GoldenCase& golden, const std::string& name, Pair fallback) {
  if (!golden.attributes.contains(name)) return fallback;
  return {golden.attributes.at(name).at(0).get<std::int64_t>(),
          golden.attributes.at(name).at(1).get<std::int64_t>()};
}

ops::ConvTranspose2dOptions options_of(const GoldenCase& golden) {
  return {.stride = pair_of(golden, "stride", 1),
          .padding = pair_of(golden, "padding", 0),
          .output_padding = pair_of(golden, "output_padding", 0),
          .dilation = pair_of(golden, "dilation", 1),
          .groups = golden.attribute<std::int64_t>("groups", 1)};
}

ops::Epilogue epilogue_of(const GoldenCase& golden) {
  const ops::Epilogue fallback;
  return {.mish = true,
          .add = golden.attribute("add", fallback.add),
          .min = golden.attribute("min", fallback.min),
          .max = golden.attribute("max", fallback.max),
          .scale = golden.attribute("scale", fallback.scale),
          .gradient_at_bounds = golden.attribute("gradient_at_bounds", false)};
}

Tensor unfused(const Tensor& x, const Tensor& weight, const Tensor& bias,
               const ops::ConvTranspose2dOptions& options, const ops::Epilogue& epilogue) {
  const Tensor value =
      ops::add(ops::mish(ops::conv_transpose2d(x, weight, bias, options)), epilogue.add);
  const Tensor bounded = epilogue.gradient_at_bounds
                             ? ops::clamp(value, epilogue.min, epilogue.max)
                             : ops::hardtanh(value, epilogue.min, epilogue.max);
  return ops::mul(bounded, epilogue.scale);
}

void expect_golden(const GoldenCase& golden, DType dtype, Device device, bool fused) {
  SCOPED_TRACE(testing::Message() << dtype << (fused ? " fused on " : " unfused on ") << device);
  const double tolerance = dtype == DType::Float64 ? 1e-12 : 2e-5;
  const Tensor x = test::leaf(golden.get("x"), dtype, device);
  const Tensor weight = test::leaf(golden.get("weight"), dtype, device);
  const Tensor bias = test::leaf(golden.get("bias"), dtype, device);
  const auto function = fused ? ops::conv_transpose2d_epilogue : unfused;
  const Tensor y = function(x, weight, bias, options_of(golden), epilogue_of(golden));
  expect_close(y, golden.get("y"), tolerance, tolerance);
  y.backward(golden.get("grad_out").to(device, dtype));
  expect_close(x.grad(), golden.get("grad_x"), tolerance, tolerance);
  expect_close(weight.grad(), golden.get("grad_weight"), tolerance, tolerance);
  if (bias.defined()) expect_close(bias.grad(), golden.get("grad_bias"), tolerance, tolerance);
}

TEST_P(FusedBlockGolden, MatchesPyTorchForwardAndBackward) {
  const GoldenCase golden = test::read_golden("fused_block.safetensors").at(GetParam());
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    for (const DType dtype : {DType::Float64, DType::Float32}) {
      expect_golden(golden, dtype, device, true);
      expect_golden(golden, dtype, device, false);
    }
  }
}

TEST(FusedBlockGoldenOnCuda, TakesPart) { TENON_SKIP_WITHOUT_GPU(); }

INSTANTIATE_TEST_SUITE_P(PyTorch, FusedBlockGolden,
                         testing::Values("mission", "no_bias", "rectangular_dilated_grouped",
                                         "clamp", "kernel_below_stride",
                                         "negative_bounds_zero_scale", "hardtanh_at_upper_bound",
                                         "hardtanh_at_lower_bound", "hardtanh_at_far_bound",
                                         "clamp_at_upper_bound", "clamp_at_lower_bound",
                                         "clamp_at_far_bound", "infinity", "minus_infinity", "nan"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace tenon
