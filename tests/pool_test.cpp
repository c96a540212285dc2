#include "tenon/ops/pool.h"

#include <gtest/gtest.h>

#include "compare.h"
#include "golden.h"
#include "tenon/core/gradcheck.h"
#include "tenon/core/parallel.h"
#include "tenon/core/precision.h"

namespace tenon {
namespace {

using test::expect_close;
using test::expect_error;
using test::normal;
using test::scattered;

class PoolGolden : public testing::TestWithParam<std::string> {};

Pair pair_of(const nlohmann::json& attributes, const std::string& name, Pair fallback) {
  if (!attributes.contains(name)) return fallback;
  return {attributes.at(name).at(0).get<std::int64_t>(),
          attributes.at(name).at(1).get<std::int64_t>()};
}

TEST_P(PoolGolden, MatchesPyTorchForwardAndBackward) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const test::GoldenCase golden = test::read_golden("pool.safetensors").at(GetParam());
    const Pair kernel = pair_of(golden.attributes, "kernel_size", 1);
    const Pair stride = pair_of(golden.attributes, "stride", kernel);
    const Pair padding = pair_of(golden.attributes, "padding", 0);
    const Pair dilation = pair_of(golden.attributes, "dilation", 1);
    const bool ceil_mode = golden.attribute("ceil_mode", false);
    const bool count_include_pad = golden.attribute("count_include_pad", true);
    for (const DType dtype : {DType::Float64, DType::Float32}) {
      const double tolerance = dtype == DType::Float64 ? 1e-14 : 1e-6;
      const Tensor x = test::leaf(golden.get("x"), dtype, device);
      const Tensor y =
          golden.attributes.at("op") == "max_pool2d"
              ? ops::max_pool2d(x, kernel, {stride, padding, dilation, ceil_mode})
              : ops::avg_pool2d(x, kernel, {stride, padding, ceil_mode, count_include_pad});
      expect_close(y, golden.get("y"), tolerance, tolerance);
      y.backward(golden.get("grad_out").to(device, dtype));
      expect_close(x.grad(), golden.get("grad_x"), tolerance, tolerance);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PyTorch, PoolGolden,
                         testing::Values("max_pool2d_plain", "max_pool2d_overlapping",
                                         "max_pool2d_dilated", "max_pool2d_ceil",
                                         "avg_pool2d_plain", "avg_pool2d_padded",
                                         "avg_pool2d_without_padding_counted", "avg_pool2d_ceil",
                                         "avg_pool2d_ceil_without_padding_counted"),
                         [](const auto& test) { return test.param; });

class MaxPool2dOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(MaxPool2dOnDevice);

TEST_P(MaxPool2dOnDevice, GradcheckAndGradgradcheck) {
  const Tensor x = scattered(normal({2, 3, 7, 5}, DType::Float64, 1)).requires_grad_();
  for (const ops::MaxPool2dOptions& options :
       {ops::MaxPool2dOptions{}, ops::MaxPool2dOptions{.stride = {1, 2}, .padding = 1},
        ops::MaxPool2dOptions{.stride = 2, .dilation = {2, 1}, .ceil_mode = true}}) {
    const auto function = [&](std::span<const Tensor> in) {
      return ops::max_pool2d(in[0], 2, options);
    };
    EXPECT_TRUE(gradcheck(test::on_device(device(), function), {x}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device(), function), {x}));
  }
}

class AvgPool2dOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(AvgPool2dOnDevice);

TEST_P(AvgPool2dOnDevice, GradcheckAndGradgradcheck) {
  const Tensor x = scattered(normal({2, 3, 7, 5}, DType::Float64, 2)).requires_grad_();
  for (const ops::AvgPool2dOptions& options :
       {ops::AvgPool2dOptions{}, ops::AvgPool2dOptions{.stride = {1, 2}, .padding = 1},
        ops::AvgPool2dOptions{.stride = 2, .ceil_mode = true, .count_include_pad = false}}) {
    const auto function = [&](std::span<const Tensor> in) {
      return ops::avg_pool2d(in[0], {2, 3}, options);
    };
    EXPECT_TRUE(gradcheck(test::on_device(device(), function), {x}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device(), function), {x}));
  }
}

TEST_P(MaxPool2dOnDevice, NaNWinsItsWindowAndTakesTheGradient) {
  const Tensor x = tensor(std::vector<double>{1, NAN, 3, 4, 5, 6, 7, 8}, {1, 1, 2, 4})
                       .to(device())
                       .requires_grad_();
  const Tensor y = ops::max_pool2d(x, 2);
  expect_close(y, tensor(std::vector<double>{NAN, 8}, {1, 1, 1, 2}).to(device()), 0);
  y.backward(ones(y.shape(), {.dtype = DType::Float64, .device = device()}));
  expect_close(x.grad(),
               tensor(std::vector<double>{0, 1, 0, 0, 0, 0, 0, 1}, {1, 1, 2, 4}).to(device()), 0);
}

TEST_P(MaxPool2dOnDevice, PaddingNeverWins) {
  const Tensor x = full({1, 1, 3, 3}, -INFINITY, {.device = device()});
  expect_close(ops::max_pool2d(x, 3, {.stride = 2, .padding = 1}),
               full({1, 1, 2, 2}, -INFINITY, {.device = device()}), 0);
  expect_close(ops::max_pool2d(full({1, 1, 3, 3}, -5.0, {.device = device()}), 3,
                               {.stride = 2, .padding = 1}),
               full({1, 1, 2, 2}, -5.0, {.device = device()}), 0);
}

TEST_P(MaxPool2dOnDevice, FirstOfEqualElementsTakesTheGradient) {
  const Tensor x = ones({1, 1, 2, 2}, {.device = device(), .requires_grad = true});
  ops::max_pool2d(x, 2).backward();
  expect_close(x.grad(), tensor(std::vector<double>{1, 0, 0, 0}, {1, 1, 2, 2}).to(device()), 0);
}

TEST(MaxPool2d, SecondOutputSaysWhere) {
  const Tensor x = tensor(std::vector<float>{1, 2, 9, 3, 8, 4, 5, 6}, {1, 1, 2, 4});
  const std::vector<Tensor> inputs{x};
  const std::vector<Tensor> outputs =
      call(std::make_shared<const ops::MaxPool2dOp>(Pair(2), ops::MaxPool2dOptions{}), inputs);
  EXPECT_EQ(outputs[1].to_vector<std::int64_t>(), (std::vector<std::int64_t>{4, 2}));
}

class Pool2dOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(Pool2dOnDevice);

TEST_P(Pool2dOnDevice, OneImageWithoutBatchAndEmptyBatch) {
  const Tensor x = normal({3, 6, 4}, DType::Float32, 3, device());
  expect_close(ops::max_pool2d(x, 2), ops::max_pool2d(x.unsqueeze(0), 2).squeeze(0), 0);
  expect_close(ops::avg_pool2d(x, 2), ops::avg_pool2d(x.unsqueeze(0), 2).squeeze(0), 0);
  const Tensor none = zeros({0, 3, 6, 4}, {.device = device(), .requires_grad = true});
  EXPECT_EQ(ops::max_pool2d(none, 2).shape(), Shape({0, 3, 3, 2}));
  const Tensor y = ops::avg_pool2d(none, 2);
  EXPECT_EQ(y.shape(), Shape({0, 3, 3, 2}));
  y.backward(zeros(y.shape(), {.device = device()}));
  EXPECT_EQ(none.grad().shape(), none.shape());
}

TEST_P(Pool2dOnDevice, HalfPrecisionSumsInFloat32) {
  for (const DType dtype : {DType::Float16, DType::BFloat16}) {
    const Tensor x = test::leaf(normal({2, 3, 9, 9}, dtype, 4, device()), dtype);
    const Tensor x64 = test::leaf(x, DType::Float64);
    const double tolerance = dtype == DType::Float16 ? 5e-4 : 4e-3;
    const Tensor y = ops::avg_pool2d(x, 3, {.stride = 1});
    const Tensor y64 = ops::avg_pool2d(x64, 3, {.stride = 1});
    EXPECT_LE(test::relative_error(y, y64), tolerance);
    y.backward(ones(y.shape(), {.dtype = dtype, .device = device()}));
    y64.backward(ones(y.shape(), {.dtype = DType::Float64, .device = device()}));
    EXPECT_LE(test::relative_error(x.grad(), x64.grad()), tolerance);
    expect_close(ops::max_pool2d(x, 3), ops::max_pool2d(x64, 3), 0);
  }
}

TEST(Pool2d, SameBitsForAnyNumberOfThreads) {
  const int threads = num_threads();
  const Tensor x = normal({9, 8, 31, 30}, DType::Float32, 5);
  set_num_threads(1);
  const Tensor largest = ops::max_pool2d(x, 3, {.stride = 2});
  const Tensor mean = ops::avg_pool2d(x, 3, {.stride = 2});
  for (const int count : {2, 7}) {
    set_num_threads(count);
    test::expect_same_bits(ops::max_pool2d(x, 3, {.stride = 2}), largest);
    test::expect_same_bits(ops::avg_pool2d(x, 3, {.stride = 2}), mean);
  }
  set_num_threads(threads);
}

TEST(PoolErrors, Shapes) {
  expect_error([] { ops::max_pool2d(zeros({4, 4}), 2); }, {"max_pool2d: x must be", "[4, 4]"});
  expect_error(
      [] {
        ops::avg_pool2d(zeros({1, 1, 3, 3}), 4);
      },
      {"avg_pool2d: kernel (4, 4)", "does not fit"});
  expect_error(
      [] {
        ops::max_pool2d(zeros({1, 1, 3, 3}), 2, {.dilation = 3});
      },
      {"max_pool2d", "does not fit"});
  expect_error([] { ops::max_pool2d(zeros({1, 0, 3, 3}), 2); }, {"max_pool2d", "empty"});
}

TEST(PoolErrors, Options) {
  expect_error([] { ops::max_pool2d(zeros({1, 1, 4, 4}), 0); }, {"kernel", "(0, 0)"});
  expect_error([] { ops::max_pool2d(zeros({1, 1, 4, 4}), 2, {.stride = 0}); }, {"stride"});
  expect_error(
      [] {
        ops::avg_pool2d(zeros({1, 1, 4, 4}), 2, {.padding = 2});
      },
      {"padding", "half the kernel", "(2, 2)"});
  expect_error([] { ops::avg_pool2d(zeros({1, 1, 4, 4}), 2, {.padding = -1}); }, {"padding"});
  expect_error([] { ops::max_pool2d(zeros({1, 1, 4, 4}), 2, {.dilation = 0}); }, {"dilation"});
}

TEST(PoolErrors, DType) {
  const TensorOptions int64{.dtype = DType::Int64};
  expect_error([&] { ops::max_pool2d(zeros({1, 1, 4, 4}, int64), 2); }, {"max_pool2d", "int64"});
  expect_error([&] { ops::avg_pool2d(zeros({1, 1, 4, 4}, int64), 2); }, {"avg_pool2d", "int64"});
}

TEST(PoolErrors, PlacesOutsideThePlane) {
  const Tensor values = ones({1, 1, 2, 2});
  const Tensor places = full({1, 1, 2, 2}, 9, {.dtype = DType::Int64});
  expect_error(
      [&] {
        apply(ops::PlaneScatterOp({3, 3}), {values, places});
      },
      {"plane_scatter", "9"});
  expect_error(
      [&] {
        apply(ops::PlaneGatherOp(), {ones({1, 1, 3, 3}), places});
      },
      {"plane_gather", "9"});
}

}  // namespace
}  // namespace tenon
