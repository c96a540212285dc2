// The fused block's backward on a GPU for batches that it cuts into slices.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "support/devices.h"
#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/memory.h"
#include "tenon/core/op.h"
#include "tenon/core/precision.h"
#include "tenon/core/random.h"
#include "tenon/ops/ops.h"

namespace tenon {
namespace {

struct Arithmetic {
  const char* name;
  DType dtype;
  Float32Precision precision;
  double tolerance;  // relative, of norms
};

/// x, weight, bias and z's gradient: y takes 8.4 MB an image in float32, so that 31 images
/// are more than one slice.
std::vector<Tensor> inputs_of(std::int64_t batch, DType dtype) {
  manual_seed(5);
  const TensorOptions options{.dtype = dtype, .device = Device::cuda(0)};
  return {randn({batch, 16, 128, 128}, options), randn({16, 32, 3, 3}, options) * 0.1,
          randn({32}, options), randn({batch, 32, 256, 256}, options)};
}

std::vector<Tensor> backward(const std::vector<Tensor>& inputs, bool with_x = true) {
  const ops::ConvTranspose2dOptions options{.stride = 2, .padding = 1, .output_padding = 1};
  // Bounds that nothing reaches: beside one, rounding decides whether a gradient passes.
  const ops::Epilogue epilogue{.add = 0.5, .min = -50, .max = 50, .scale = 2};
  return call(std::make_shared<const ops::ConvTranspose2dEpilogueBackwardOp>(
                  options, epilogue, ops::EpilogueGradients{with_x, true, true}),
              inputs);
}

/// The norm of a - b over that of b.
double distance(const Tensor& a, const Tensor& b) {
  const Tensor difference = a.to(DType::Float32) - b.to(DType::Float32);
  const Tensor wide = b.to(DType::Float32);
  return std::sqrt(ops::sum(difference * difference).item<double>() /
                   ops::sum(wide * wide).item<double>());
}

class SlicedBackward : public testing::TestWithParam<Arithmetic> {
 protected:
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }
};

TEST_P(SlicedBackward, IsTheSumOfTheImagesOneByOne) {
  const NoGradGuard no_grad;
  const Float32PrecisionGuard precision(GetParam().precision);
  // Slices of equal size, and a last one that is smaller; twice as many images in two bytes.
  for (std::int64_t batch : {32, 31}) {
    if (item_size(GetParam().dtype) == 2) batch = 2 * batch - batch % 2;
    const std::vector<Tensor> inputs = inputs_of(batch, GetParam().dtype);
    const std::vector<Tensor> whole = backward(inputs);
    Tensor weight_sum = zeros(whole[1].shape(), {.device = Device::cuda(0)});
    Tensor bias_sum = zeros(whole[2].shape(), {.device = Device::cuda(0)});
    for (std::int64_t image = 0; image < batch; ++image) {
      const std::vector<Tensor> one = backward(
          {inputs[0].narrow(0, image, 1), inputs[1], inputs[2], inputs[3].narrow(0, image, 1)});
      ASSERT_LE(distance(whole[0].narrow(0, image, 1), one[0]), GetParam().tolerance) << image;
      weight_sum = weight_sum + one[1].to(DType::Float32);
      bias_sum = bias_sum + one[2].to(DType::Float32);
    }
    EXPECT_LE(distance(whole[1], weight_sum), GetParam().tolerance) << batch;
    EXPECT_LE(distance(whole[2], bias_sum), GetParam().tolerance) << batch;
  }
}

TEST_P(SlicedBackward, GivesTheSameBitsAgain) {
  const NoGradGuard no_grad;
  const Float32PrecisionGuard precision(GetParam().precision);
  const std::vector<Tensor> inputs = inputs_of(61, GetParam().dtype);
  const std::vector<Tensor> first = backward(inputs);
  const std::vector<Tensor> second = backward(inputs);
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(ops::sum(ops::ne(first[i], second[i])).item<std::int64_t>(), 0) << i;
  }
}

// Where no bulk copy could begin.
TEST_P(SlicedBackward, IsTheSameFromAnyAddress) {
  const NoGradGuard no_grad;
  const Float32PrecisionGuard precision(GetParam().precision);
  std::vector<Tensor> inputs = inputs_of(3, GetParam().dtype);
  const std::vector<Tensor> wanted = backward(inputs);
  for (const std::size_t moved : {0, 3}) {  // x, and z's gradient
    const Tensor original = inputs[moved];
    const Tensor memory =
        empty({original.numel() + 1}, {.dtype = original.dtype(), .device = original.device()});
    inputs[moved] = memory.narrow(0, 1, original.numel()).reshape(original.shape());
    inputs[moved].copy_(original);
    const std::vector<Tensor> got = backward(inputs);
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_LE(distance(got[i], wanted[i]), GetParam().tolerance) << moved << ", gradient " << i;
    }
    inputs[moved] = original;
  }
}

// Slices are smaller then, because x's rows find no room where dx will be.
TEST_P(SlicedBackward, GivesTheSameWithoutTheInputsGradient) {
  const NoGradGuard no_grad;
  const Float32PrecisionGuard precision(GetParam().precision);
  const std::vector<Tensor> inputs = inputs_of(61, GetParam().dtype);
  const std::vector<Tensor> wanted = backward(inputs);
  const std::vector<Tensor> got = backward(inputs, false);
  ASSERT_EQ(got.size(), 2);
  EXPECT_LE(distance(got[0], wanted[1]), GetParam().tolerance);
  EXPECT_LE(distance(got[1], wanted[2]), GetParam().tolerance);
}

TEST_P(SlicedBackward, HoldsAQuarterOfAGibibyteAtMost) {
  const NoGradGuard no_grad;
  const Float32PrecisionGuard precision(GetParam().precision);
  const Device device = Device::cuda(0);
  const std::vector<Tensor> inputs = inputs_of(96, GetParam().dtype);  // y: 805 MB in float32
  for (const bool with_x : {true, false}) {
    backward(inputs, with_x);  // weights in another order are kept from here on
    const std::int64_t before = memory_stats(device).in_use;
    reset_peak_memory(device);
    const std::vector<Tensor> gradients = backward(inputs, with_x);
    const std::int64_t results = memory_stats(device).in_use - before;
    EXPECT_LE(memory_stats(device).peak - before - results, std::int64_t{256} << 20) << with_x;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, SlicedBackward,
    testing::Values(Arithmetic{"tf32", DType::Float32, Float32Precision::Tf32, 1e-3},
                    Arithmetic{"float32", DType::Float32, Float32Precision::Float32, 1e-5},
                    Arithmetic{"bfloat16", DType::BFloat16, Float32Precision::Tf32, 1e-2},
                    Arithmetic{"float16", DType::Float16, Float32Precision::Tf32, 2e-3}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tenon
