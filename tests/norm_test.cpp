#include "tenon/ops/norm.h"

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

constexpr auto kFloat64 = DType::Float64;

class BatchNormGolden : public testing::TestWithParam<std::string> {};

TEST_P(BatchNormGolden, MatchesPyTorchForwardBackwardAndRunningStatistics) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const auto cases = test::read_golden("batch_norm.safetensors");
    const test::GoldenCase golden = cases.at(GetParam());
    const test::GoldenCase running = cases.at(GetParam() + "_running");
    const ops::BatchNormOptions options{.training = golden.attributes.at("training").get<bool>(),
                                        .momentum = golden.attributes.at("momentum").get<double>(),
                                        .eps = golden.attributes.at("eps").get<double>()};
    for (const DType dtype : {kFloat64, DType::Float32}) {
      const double tolerance = dtype == kFloat64 ? 1e-12 : 5e-6;
      const Tensor x = test::leaf(golden.get("x"), dtype, device);
      const Tensor weight = test::leaf(golden.get("weight"), dtype, device);
      const Tensor bias = test::leaf(golden.get("bias"), dtype, device);
      const Tensor mean = running.get("mean_before").to(device, dtype).clone();
      const Tensor variance = running.get("var_before").to(device, dtype).clone();
      const Tensor y = ops::batch_norm(x, mean, variance, weight, bias, options);
      expect_close(y, golden.get("y"), tolerance, tolerance);
      expect_close(mean, running.get("mean_after"), tolerance, tolerance);
      expect_close(variance, running.get("var_after"), tolerance, tolerance);
      y.backward(golden.get("grad_out").to(device, dtype));
      expect_close(x.grad(), golden.get("grad_x"), tolerance, tolerance);
      if (!weight.defined()) continue;
      expect_close(weight.grad(), golden.get("grad_weight"), tolerance, tolerance);
      expect_close(bias.grad(), golden.get("grad_bias"), tolerance, tolerance);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PyTorch, BatchNormGolden,
                         testing::Values("train", "train_plain", "train_3d", "eval", "eval_plain"),
                         [](const auto& test) { return test.param; });

class BatchNormOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(BatchNormOnDevice);

TEST_P(BatchNormOnDevice, GradcheckAndGradgradcheckInTraining) {
  const Tensor weight = normal({3}, kFloat64, 1).requires_grad_();
  const Tensor bias = normal({3}, kFloat64, 2).requires_grad_();
  const auto function = [](std::span<const Tensor> in) {
    return ops::batch_norm(in[0], {}, {}, in.size() > 1 ? in[1] : Tensor(),
                           in.size() > 2 ? in[2] : Tensor(), {.training = true});
  };
  for (const Shape& shape : {Shape{5, 3}, Shape{2, 3, 5}, Shape{2, 3, 1, 3}}) {
    const Tensor x = scattered(normal(shape, kFloat64, 3)).requires_grad_();
    EXPECT_TRUE(gradcheck(test::on_device(device(), function), {x, weight, bias}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device(), function), {x, weight, bias}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device(), function), {x, weight}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device(), function), {x}));
  }
}

TEST_P(BatchNormOnDevice, GradcheckAndGradgradcheckInEvaluation) {
  const Tensor mean = normal({3}, kFloat64, 4, device());
  const Tensor variance = full({3}, 0.7, {.dtype = kFloat64, .device = device()});
  const Tensor x = scattered(normal({2, 3, 2, 3}, kFloat64, 5)).requires_grad_();
  const Tensor weight = normal({3}, kFloat64, 6).requires_grad_();
  const Tensor bias = normal({3}, kFloat64, 7).requires_grad_();
  const auto function = [&](std::span<const Tensor> in) {
    return ops::batch_norm(in[0], mean, variance, in[1], in[2], {});
  };
  EXPECT_TRUE(gradcheck(test::on_device(device(), function), {x, weight, bias}));
  EXPECT_TRUE(gradgradcheck(test::on_device(device(), function), {x, weight, bias}));
}

TEST_P(BatchNormOnDevice, LargeMeanKeepsItsDigits) {
  // A one-pass variance would lose everything here: 1e4² is 1e8, beyond float32's seven digits.
  const Tensor x64 = normal({8, 2, 20, 20}, kFloat64, 8);
  const Tensor x = zeros(x64.shape());
  const std::vector<double> values = x64.to_vector<double>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    x.data<float>()[i] = static_cast<float>(1e4 + values[i]);
  }
  const Tensor y = ops::batch_norm(x.to(device()), {}, {}, {}, {}, {.training = true});
  const Tensor expected = ops::batch_norm(x.to(kFloat64), {}, {}, {}, {}, {.training = true});
  EXPECT_LE(test::relative_error(y, expected), 1e-3);
}

TEST_P(BatchNormOnDevice, ConstantChannelGivesBias) {
  const Tensor x = full({4, 2, 3, 3}, 7.25, {.device = device()});
  const Tensor bias = tensor({0.5F, -2.0F}).to(device());
  const Tensor y = ops::batch_norm(x, {}, {}, {}, bias, {.training = true});
  expect_close(y.select(1, 0), full({4, 3, 3}, 0.5, {.device = device()}), 0);
  expect_close(y.select(1, 1), full({4, 3, 3}, -2.0, {.device = device()}), 0);
}

TEST_P(BatchNormOnDevice, NaNStaysInItsChannel) {
  const Tensor x = normal({4, 2, 3}, DType::Float32, 9, device());
  x.select(1, 1).fill_(NAN);
  const Tensor mean = zeros({2}, {.device = device()});
  const Tensor variance = ones({2}, {.device = device()});
  const Tensor y = ops::batch_norm(x, mean, variance, {}, {}, {.training = true});
  EXPECT_TRUE(std::isfinite(y.select(1, 0).select(0, 0).select(0, 0).item<double>()));
  EXPECT_TRUE(std::isnan(y.select(1, 1).select(0, 0).select(0, 0).item<double>()));
  EXPECT_TRUE(std::isnan(mean.to_vector<double>()[1]));
  EXPECT_TRUE(std::isnan(variance.to_vector<double>()[1]));
}

TEST_P(BatchNormOnDevice, EvaluationLeavesRunningStatisticsAlone) {
  const Tensor mean = tensor({0.5F, 1.0F}).to(device());
  const Tensor variance = tensor({2.0F, 3.0F}).to(device());
  ops::batch_norm(normal({4, 2, 3}, DType::Float32, 10, device()), mean, variance, {}, {}, {});
  EXPECT_EQ(mean.to_vector<float>(), (std::vector<float>{0.5F, 1.0F}));
  EXPECT_EQ(variance.to_vector<float>(), (std::vector<float>{2.0F, 3.0F}));
}

TEST_P(BatchNormOnDevice, NoChannels) {
  const Tensor x = zeros({2, 0, 3}, {.device = device(), .requires_grad = true});
  const Tensor y = ops::batch_norm(x, {}, {}, {}, {}, {.training = true});
  EXPECT_EQ(y.shape(), x.shape());
  y.backward(zeros(x.shape(), {.device = device()}));
  EXPECT_EQ(x.grad().shape(), x.shape());
}

TEST_P(BatchNormOnDevice, EmptyBatchInEvaluation) {
  const Tensor x = zeros({0, 2, 3}, {.device = device(), .requires_grad = true});
  const Tensor weight = ones({2}, {.device = device(), .requires_grad = true});
  const Tensor y = ops::batch_norm(x, zeros({2}, {.device = device()}),
                                   ones({2}, {.device = device()}), weight, {}, {});
  EXPECT_EQ(y.shape(), x.shape());
  y.backward(zeros(x.shape(), {.device = device()}));
  expect_close(weight.grad(), zeros({2}, {.device = device()}), 0);
}

TEST_P(BatchNormOnDevice, HalfPrecisionComputesInFloat32) {
  for (const DType dtype : {DType::Float16, DType::BFloat16}) {
    const double tolerance = dtype == DType::Float16 ? 6e-4 : 5e-3;
    const Tensor x = test::leaf(normal({4, 3, 11, 7}, dtype, 11, device()), dtype);
    const Tensor weight = test::leaf(normal({3}, dtype, 12, device()), dtype);
    const Tensor x64 = test::leaf(x, kFloat64);
    const Tensor weight64 = test::leaf(weight, kFloat64);
    const Tensor y = ops::batch_norm(x, {}, {}, weight, {}, {.training = true});
    const Tensor y64 = ops::batch_norm(x64, {}, {}, weight64, {}, {.training = true});
    EXPECT_LE(test::relative_error(y, y64), tolerance);
    const Tensor grad = normal(x.shape(), dtype, 13, device());
    y.backward(grad);
    y64.backward(grad.to(kFloat64));
    EXPECT_LE(test::relative_error(x.grad(), x64.grad()), tolerance);
    EXPECT_LE(test::relative_error(weight.grad(), weight64.grad()), tolerance);
  }
}

TEST(BatchNorm, SameBitsForAnyNumberOfThreads) {
  const int threads = num_threads();
  const Tensor x = normal({9, 8, 31, 30}, DType::Float32, 14);
  set_num_threads(1);
  const Tensor y = ops::batch_norm(x, {}, {}, {}, {}, {.training = true});
  for (const int count : {2, 7}) {
    set_num_threads(count);
    test::expect_same_bits(ops::batch_norm(x, {}, {}, {}, {}, {.training = true}), y);
  }
  set_num_threads(threads);
}

TEST(BatchNorm, OnlyTrainingWithRunningStatisticsIsImpure) {
  const ops::BatchNormInputs running{.running = true};
  EXPECT_FALSE(ops::BatchNormOp({.training = true}, running).pure());
  EXPECT_TRUE(ops::BatchNormOp({.training = false}, running).pure());
  EXPECT_TRUE(ops::BatchNormOp({.training = true}, {}).pure());
}

TEST(BatchNormErrors, Shapes) {
  expect_error([] { ops::batch_norm(zeros({3}), zeros({3}), ones({3})); },
               {"batch_norm: x must be", "[3]"});
  expect_error(
      [] {
        ops::batch_norm(zeros({2, 3}), zeros({4}), ones({4}));
      },
      {"batch_norm", "float32[3]", "float32[4]"});
  expect_error(
      [] {
        ops::batch_norm(zeros({2, 3}), zeros({3}), ones({3}), ones({2}));
      },
      {"batch_norm", "float32[2]"});
}

TEST(BatchNormErrors, MissingStatistics) {
  expect_error([] { ops::batch_norm(zeros({2, 3}), {}, {}); }, {"batch_norm", "running_mean"});
  expect_error([] { ops::batch_norm(zeros({2, 3}), zeros({3}), {}); }, {"together"});
}

TEST(BatchNormErrors, OneValueForEachChannelInTraining) {
  expect_error(
      [] {
        ops::batch_norm(zeros({1, 3}), zeros({3}), ones({3}), {}, {}, {.training = true});
      },
      {"batch_norm", "more than one value", "[1, 3]"});
  expect_error(
      [] {
        ops::batch_norm(zeros({0, 3, 2}), {}, {}, {}, {}, {.training = true});
      },
      {"batch_norm", "more than one value", "[0, 3, 2]"});
}

TEST(BatchNormErrors, DTypeAndEps) {
  expect_error(
      [] {
        ops::batch_norm(zeros({2, 3}, {.dtype = DType::Int64}), {}, {});
      },
      {"batch_norm", "int64"});
  expect_error(
      [] {
        ops::batch_norm(zeros({2, 3}), zeros({3}, {.dtype = kFloat64}), ones({3}));
      },
      {"batch_norm", "float64"});
  expect_error(
      [] {
        ops::batch_norm(zeros({2, 3}), zeros({3}), ones({3}), {}, {}, {.eps = -1});
      },
      {"eps", "-1"});
}

}  // namespace
}  // namespace tenon
