#include <gtest/gtest.h>

#include "compare.h"
#include "conv_reference.h"
#include "tenon/core/gradcheck.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/conv.h"

namespace tenon {
namespace {

using test::expect_close;
using test::expect_error;
using test::normal;
using test::scattered;

constexpr auto kFloat64 = DType::Float64;

struct Case {
  Shape x, weight;
  ops::ConvTranspose2dOptions options;
};

std::vector<Case> cases() {
  return {
      {{2, 3, 4, 5}, {3, 2, 3, 3}, {}},
      {{1, 1, 3, 3}, {1, 1, 1, 1}, {.stride = 3}},
      {{2, 4, 4, 3}, {4, 3, 3, 3}, {.stride = 2, .padding = 1, .output_padding = 1}},
      {{1, 3, 3, 4}, {3, 2, 2, 5}, {.stride = {3, 2}, .padding = {1, 2}, .output_padding = {2, 1}}},
      {{2, 6, 3, 3}, {6, 2, 4, 4}, {.stride = 2, .padding = 1, .groups = 2}},
      {{1, 3, 4, 3}, {3, 2, 3, 2}, {.stride = {2, 4}, .dilation = {2, 3}, .groups = 3}},
      // Output padding beyond the stride is allowed where it is below the dilation.
      {{1, 2, 3, 4},
       {2, 2, 3, 3},
       {.stride = {1, 2}, .padding = {1, 3}, .output_padding = {2, 3}, .dilation = {3, 4}}},
      // Padding that cuts whole taps off.
      {{1, 2, 4, 3}, {2, 1, 7, 7}, {.padding = 4}},
      {{1, 1, 1, 1}, {1, 2, 2, 3}, {.stride = 4, .output_padding = 3}}};
}

class ConvTranspose2d : public testing::TestWithParam<int> {
 protected:
  Case sizes() const { return cases()[static_cast<std::size_t>(GetParam())]; }
};

TEST_P(ConvTranspose2d, MatchesDefinition) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Case c = sizes();
    const Tensor x = test::leaf(normal(c.x, kFloat64, 1), kFloat64, device);
    const Tensor weight = test::leaf(normal(c.weight, kFloat64, 2), kFloat64, device);
    const Tensor bias =
        test::leaf(normal({c.weight[1] * c.options.groups}, kFloat64, 3), kFloat64, device);
    const Tensor y = ops::conv_transpose2d(x, weight, bias, c.options);
    const Tensor expected = test::reference_conv_transpose2d(x, weight, bias, c.options).tensor();
    EXPECT_LE(test::relative_error(y, expected), 1e-14);
    const Tensor grad = normal(y.shape(), kFloat64, 4, device);
    y.backward(grad);
    const test::ReferenceGradients gradients =
        test::reference_conv_transpose2d_gradients(x, weight, test::Image(grad), c.options);
    EXPECT_LE(test::relative_error(x.grad(), gradients.x.tensor()), 1e-14);
    EXPECT_LE(test::relative_error(weight.grad(), gradients.weight.tensor()), 1e-14);
    EXPECT_LE(test::relative_error(bias.grad().to_vector<double>(), gradients.bias), 1e-13);
  }
}

TEST_P(ConvTranspose2d, ReadsStridedOperands) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Case c = sizes();
    const Tensor x = normal(c.x, kFloat64, 5, device);
    const Tensor weight = normal(c.weight, kFloat64, 6, device);
    test::expect_same_bits(ops::conv_transpose2d(scattered(x), scattered(weight), {}, c.options),
                           ops::conv_transpose2d(x, weight, {}, c.options));
  }
}

TEST_P(ConvTranspose2d, PassesGradcheckAndGradgradcheck) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Case c = sizes();
    const Tensor x = scattered(normal(c.x, kFloat64, 7)).requires_grad_();
    const Tensor weight = scattered(normal(c.weight, kFloat64, 8)).requires_grad_();
    const Tensor bias = normal({c.weight[1] * c.options.groups}, kFloat64, 9).requires_grad_();
    const auto function = [&](std::span<const Tensor> in) {
      return ops::conv_transpose2d(in[0], in[1], in[2], c.options);
    };
    EXPECT_TRUE(gradcheck(test::on_device(device, function), {x, weight, bias}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device, function), {x, weight, bias}));
  }
}

TEST_P(ConvTranspose2d, OtherDTypesAreRightWithinTheirRounding) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Case c = sizes();
    for (const DType dtype : {DType::Float32, DType::Float16, DType::BFloat16}) {
      const double tolerance = dtype == DType::Float32   ? 1e-6
                               : dtype == DType::Float16 ? 6e-4
                                                         : 5e-3;
      const Tensor x = test::leaf(normal(c.x, dtype, 10, device), dtype);
      const Tensor weight = test::leaf(normal(c.weight, dtype, 11, device), dtype);
      const Tensor x64 = test::leaf(x, kFloat64);
      const Tensor weight64 = test::leaf(weight, kFloat64);
      const Tensor y = ops::conv_transpose2d(x, weight, {}, c.options);
      const Tensor y64 = ops::conv_transpose2d(x64, weight64, {}, c.options);
      EXPECT_EQ(y.dtype(), dtype);
      EXPECT_LE(test::relative_error(y, y64), tolerance);
      y.backward(ones(y.shape(), {.dtype = dtype, .device = device}));
      y64.backward(ones(y.shape(), {.dtype = kFloat64, .device = device}));
      EXPECT_LE(test::relative_error(x.grad(), x64.grad()), tolerance);
      EXPECT_LE(test::relative_error(weight.grad(), weight64.grad()), tolerance);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, ConvTranspose2d, testing::Range(0, 9));

class ConvTranspose2dValuesOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(ConvTranspose2dValuesOnDevice);

TEST_P(ConvTranspose2dValuesOnDevice, OneImageWithoutBatch) {
  const Tensor x = normal({3, 4, 5}, kFloat64, 12, device());
  const Tensor weight = normal({3, 2, 3, 3}, kFloat64, 13, device());
  const Tensor y = ops::conv_transpose2d(x, weight, {}, {.stride = 2});
  EXPECT_EQ(y.shape(), Shape({2, 9, 11}));
  expect_close(y, ops::conv_transpose2d(x.unsqueeze(0), weight, {}, {.stride = 2}).squeeze(0), 0);
}

TEST_P(ConvTranspose2dValuesOnDevice, EmptyBatch) {
  const Tensor x = zeros({0, 3, 4, 5}, {.device = device(), .requires_grad = true});
  const Tensor weight = ones({3, 2, 3, 3}, {.device = device(), .requires_grad = true});
  const Tensor y = ops::conv_transpose2d(x, weight, {}, {.stride = 2});
  EXPECT_EQ(y.shape(), Shape({0, 2, 9, 11}));
  y.backward(zeros(y.shape(), {.device = device()}));
  EXPECT_EQ(x.grad().shape(), x.shape());
  expect_close(weight.grad(), zeros(weight.shape(), {.device = device()}), 0);
}

TEST_P(ConvTranspose2dValuesOnDevice, ManyTilesInBothDirections) {
  const ops::ConvTranspose2dOptions options{.stride = 2, .padding = 1, .output_padding = 1};
  // 256 channels leave about 114 positions a tile: rows of 130 are cut, rows of 40 are joined.
  for (const Shape& shape : {Shape{1, 256, 3, 130}, Shape{1, 256, 20, 40}}) {
    const Tensor x = normal(shape, kFloat64, 14, device());
    const Tensor weight = normal({256, 1, 3, 3}, kFloat64, 15, device());
    EXPECT_LE(
        test::relative_error(ops::conv_transpose2d(x, weight, {}, options),
                             test::reference_conv_transpose2d(x, weight, {}, options).tensor()),
        1e-14);
  }
}

TEST(ConvTranspose2dValues, SameBitsForAnyNumberOfThreads) {
  const int threads = num_threads();
  const Tensor x = normal({9, 6, 20, 20}, DType::Float32, 16);
  const Tensor weight = normal({6, 4, 3, 3}, DType::Float32, 17);
  const ops::ConvTranspose2dOptions options{.stride = 2, .padding = 1, .groups = 2};
  set_num_threads(1);
  const Tensor y = ops::conv_transpose2d(x, weight, {}, options);
  for (const int count : {2, 7}) {
    set_num_threads(count);
    test::expect_same_bits(ops::conv_transpose2d(x, weight, {}, options), y);
  }
  set_num_threads(threads);
}

TEST(ConvTranspose2dValues, AttributesNameEveryOption) {
  const ops::ConvTranspose2dOp op(
      {.stride = {2, 1}, .padding = 3, .output_padding = {1, 0}, .dilation = 2, .groups = 4});
  std::ostringstream text;
  text << op.attributes();
  EXPECT_EQ(text.str(),
            "stride=[2, 1], padding=[3, 3], output_padding=[1, 0], dilation=[2, 2], groups=4");
}

// ---- bad input ----------------------------------------------------------------------------------

Tensor call(const Shape& x, const Shape& weight, const ops::ConvTranspose2dOptions& options = {}) {
  return ops::conv_transpose2d(zeros(x), zeros(weight), {}, options);
}

TEST(ConvTranspose2dErrors, Rank) {
  expect_error([] { call({8, 8}, {1, 1, 3, 3}); }, {"conv_transpose2d: x must be", "[8, 8]"});
  expect_error([] { call({1, 1, 8, 8}, {3, 3}); }, {"conv_transpose2d: weight must be", "[3, 3]"});
}

TEST(ConvTranspose2dErrors, Channels) {
  expect_error([] { call({1, 3, 8, 8}, {4, 2, 3, 3}); }, {"3 channels", "needs 4"});
  expect_error([] { call({1, 3, 8, 8}, {3, 2, 3, 3}, {.groups = 2}); }, {"groups=2", "3 input"});
  expect_error(
      [] {
        ops::conv_transpose2d(zeros({1, 2, 5, 5}), zeros({2, 1, 3, 3}), zeros({2}));
      },
      {"bias must be [1]", "[2]"});
  expect_error([] { call({1, 1, 0, 8}, {1, 1, 3, 3}); }, {"empty", "[1, 1, 0, 8]"});
  expect_error([] { call({1, 1, 8, 8}, {1, 1, 0, 3}); }, {"weight", "empty"});
}

TEST(ConvTranspose2dErrors, Options) {
  expect_error([] { call({1, 1, 8, 8}, {1, 1, 3, 3}, {.stride = {1, 0}}); }, {"stride", "(1, 0)"});
  expect_error([] { call({1, 1, 8, 8}, {1, 1, 3, 3}, {.padding = -1}); }, {"padding", "(-1, -1)"});
  expect_error([] { call({1, 1, 8, 8}, {1, 1, 3, 3}, {.dilation = 0}); }, {"dilation", "(0, 0)"});
  expect_error([] { call({1, 1, 8, 8}, {1, 1, 3, 3}, {.groups = -2}); }, {"groups", "-2"});
}

TEST(ConvTranspose2dErrors, OutputPadding) {
  expect_error(
      [] {
        call({1, 1, 8, 8}, {1, 1, 3, 3}, {.output_padding = 1});
      },
      {"output_padding must be smaller", "(1, 1)", "stride (1, 1)"});
  expect_error(
      [] {
        call({1, 1, 8, 8}, {1, 1, 3, 3}, {.stride = 2, .output_padding = {0, 2}});
      },
      {"output_padding must be smaller", "(0, 2)"});
  expect_error(
      [] {
        call({1, 1, 8, 8}, {1, 1, 3, 3}, {.output_padding = -1});
      },
      {"output_padding must be at least 0"});
  EXPECT_NO_THROW(call({1, 1, 8, 8}, {1, 1, 3, 3}, {.output_padding = 1, .dilation = 2}));
}

TEST(ConvTranspose2dErrors, OutputOfNothing) {
  expect_error(
      [] {
        call({1, 1, 1, 1}, {1, 1, 3, 3}, {.padding = 2});
      },
      {"the output would be (-1, -1)", "less padding"});
}

TEST(ConvTranspose2dErrors, DTypes) {
  const TensorOptions half{.dtype = DType::Float16};
  expect_error(
      [&] {
        ops::conv_transpose2d(zeros({1, 1, 5, 5}), zeros({1, 1, 3, 3}, half));
      },
      {"float32", "float16"});
  const TensorOptions bytes{.dtype = DType::UInt8};
  expect_error(
      [&] {
        ops::conv_transpose2d(zeros({1, 1, 5, 5}, bytes), zeros({1, 1, 3, 3}, bytes));
      },
      {"floating", "uint8"});
}

}  // namespace
}  // namespace tenon
