// The convolutions against tensors that PyTorch made.
#include <gtest/gtest.h>

#include "compare.h"
#include "golden.h"
#include "tenon/core/precision.h"
#include "tenon/ops/conv.h"

namespace tenon {
namespace {

using test::expect_close;
using test::GoldenCase;

class ConvolutionGolden : public testing::TestWithParam<std::string> {};

Pair pair_of(const GoldenCase& golden, const std::string& name, Pair fallback) {
  if (!golden.attributes.contains(name)) return fallback;
  return {golden.attributes.at(name).at(0).get<std::int64_t>(),
          golden.attributes.at(name).at(1).get<std::int64_t>()};
}

TEST_P(ConvolutionGolden, MatchesPyTorchForwardAndBackward) {
  const GoldenCase golden = test::read_golden("convolution.safetensors").at(GetParam());
  const Pair stride = pair_of(golden, "stride", 1);
  const Pair padding = pair_of(golden, "padding", 0);
  const Pair dilation = pair_of(golden, "dilation", 1);
  const auto groups = golden.attribute<std::int64_t>("groups", 1);
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    for (const DType dtype : {DType::Float64, DType::Float32}) {
      SCOPED_TRACE(testing::Message() << dtype << " on " << device);
      const double tolerance = dtype == DType::Float64 ? 1e-12 : 2e-5;
      const Tensor x = test::leaf(golden.get("x"), dtype, device);
      const Tensor weight = test::leaf(golden.get("weight"), dtype, device);
      const Tensor bias = test::leaf(golden.get("bias"), dtype, device);
      const Tensor y =
          golden.attributes.at("op") == "conv2d"
              ? ops::conv2d(x, weight, bias, {stride, padding, dilation, groups})
              : ops::conv_transpose2d(
                    x, weight, bias,
                    {stride, padding, pair_of(golden, "output_padding", 0), dilation, groups});
      expect_close(y, golden.get("y"), tolerance, tolerance);
      y.backward(golden.get("grad_out").to(device, dtype));
      expect_close(x.grad(), golden.get("grad_x"), tolerance, tolerance);
      expect_close(weight.grad(), golden.get("grad_weight"), tolerance, tolerance);
      expect_close(bias.grad(), golden.get("grad_bias"), tolerance, tolerance);
    }
  }
}

TEST(ConvolutionGoldenOnCuda, TakesPart) { TENON_SKIP_WITHOUT_GPU(); }

INSTANTIATE_TEST_SUITE_P(PyTorch, ConvolutionGolden,
                         testing::Values("conv2d_plain", "conv2d_strided", "conv2d_dilated",
                                         "conv2d_grouped", "conv2d_depthwise", "conv2d_pointwise",
                                         "conv_transpose2d_plain", "conv_transpose2d_upsampling",
                                         "conv_transpose2d_rectangular", "conv_transpose2d_dilated",
                                         "conv_transpose2d_grouped", "conv_transpose2d_depthwise"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace tenon
