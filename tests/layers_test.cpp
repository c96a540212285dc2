#include <gtest/gtest.h>

#include <cmath>

#include "tenon/core/autograd.h"
#include "tenon/core/gradcheck.h"
#include "tenon/core/parallel.h"
#include "tenon/graph/compile.h"
#include "tenon/nn/nn.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/devices.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::expect_error;

void expect_same(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.spec(), b.spec());
  EXPECT_EQ(a.to_vector<double>(), b.to_vector<double>());
}

Tensor draw(const Shape& shape) {
  Generator generator(4);
  return randn(shape, {}, generator);
}

TEST(Layers, HavePyTorchsWeightLayouts) {
  EXPECT_EQ(nn::Linear(3, 5).weight.shape(), (Shape{5, 3}));
  EXPECT_EQ(nn::Conv2d(6, 4, {.kernel = {3, 5}, .groups = 2}).weight.shape(), (Shape{4, 3, 3, 5}));
  EXPECT_EQ(nn::ConvTranspose2d(6, 4, {.kernel = {3, 5}, .groups = 2}).weight.shape(),
            (Shape{6, 2, 3, 5}));
  EXPECT_EQ(nn::ConvTranspose2d(6, 4, {.kernel = 3}).bias.shape(), (Shape{4}));
  EXPECT_FALSE(nn::Linear(3, 5, {.bias = false}).bias.defined());
  EXPECT_FALSE(nn::Conv2d(3, 5, {.kernel = 1, .bias = false}).bias.defined());
  EXPECT_EQ(nn::Conv2d(3, 5, {.kernel = 1, .bias = false}).parameters().size(), 1u);
}

class LayersOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(LayersOnDevice);

TEST_P(LayersOnDevice, ComputeWhatTheirOpsCompute) {
  const Tensor x = draw({2, 6, 7, 9}).to(device());
  nn::Linear linear(9, 5);
  linear.to(device());
  expect_same(linear(x), ops::linear(x, linear.weight, linear.bias));
  nn::Conv2d conv(
      6, 4, {.kernel = {3, 2}, .stride = {2, 1}, .padding = 1, .dilation = {1, 2}, .groups = 2});
  conv.to(device());
  expect_same(conv(x),
              ops::conv2d(x, conv.weight, conv.bias,
                          {.stride = {2, 1}, .padding = 1, .dilation = {1, 2}, .groups = 2}));
  nn::ConvTranspose2d up(6, 4,
                         {.kernel = {3, 2},
                          .stride = {3, 2},
                          .padding = {1, 0},
                          .output_padding = {2, 1},
                          .dilation = {1, 2},
                          .groups = 2});
  up.to(device());
  expect_same(up(x), ops::conv_transpose2d(x, up.weight, up.bias,
                                           {.stride = {3, 2},
                                            .padding = {1, 0},
                                            .output_padding = {2, 1},
                                            .dilation = {1, 2},
                                            .groups = 2}));
  expect_same(nn::MaxPool2d(2)(x), ops::max_pool2d(x, 2));
  expect_same(nn::MaxPool2d(3, {.stride = Pair(1), .padding = 1})(x),
              ops::max_pool2d(x, 3, {.stride = Pair(1), .padding = 1}));
  expect_same(nn::AvgPool2d({2, 3})(x), ops::avg_pool2d(x, {2, 3}));
  EXPECT_EQ(nn::Flatten()(x).shape(), (Shape{2, 6 * 7 * 9}));
  EXPECT_EQ(nn::Flatten(0, 2)(x).shape(), (Shape{2 * 6 * 7, 9}));
}

TEST_P(LayersOnDevice, ActivationsComputeWhatTheirOpsCompute) {
  const Tensor x = draw({3, 7}).to(device()) * 3.0;
  expect_same(nn::ReLU()(x), ops::relu(x));
  expect_same(nn::Tanh()(x), ops::tanh(x));
  expect_same(nn::Sigmoid()(x), ops::sigmoid(x));
  expect_same(nn::SiLU()(x), ops::silu(x));
  expect_same(nn::Mish()(x), ops::mish(x));
  expect_same(nn::LeakyReLU(0.2)(x), ops::leaky_relu(x, 0.2));
  expect_same(nn::ELU(0.7)(x), ops::elu(x, 0.7));
  expect_same(nn::GELU()(x), ops::gelu(x));
  expect_same(nn::GELU(ops::GeluApproximation::Tanh)(x),
              ops::gelu(x, ops::GeluApproximation::Tanh));
  expect_same(nn::Softplus(2, 5)(x), ops::softplus(x, 2, 5));
  expect_same(nn::Hardtanh(-0.5, 2)(x), ops::hardtanh(x, -0.5, 2));
  expect_same(nn::Softmax(0)(x), ops::softmax(x, 0));
  expect_same(nn::Softmax()(x), ops::softmax(x, 1));
}

class ModuleOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(ModuleOnDevice);

TEST_P(ModuleOnDevice, MovingKeepsTheTensorsTheirValuesAndGradients) {
  nn::Linear linear(3, 2);
  const std::vector<Tensor> before = linear.parameters();
  const std::vector<double> values = linear.weight.to_vector<double>();
  const Tensor x = ones({4, 3});
  ops::sum(linear(x)).backward();
  const std::vector<double> gradient = linear.weight.grad().to_vector<double>();
  linear.to(device());
  EXPECT_TRUE(linear.weight.is_same(before[0]));
  EXPECT_EQ(linear.weight.device(), device());
  EXPECT_EQ(linear.weight.to_vector<double>(), values);
  EXPECT_EQ(linear.weight.grad().device(), device());
  EXPECT_EQ(linear.weight.grad().to_vector<double>(), gradient);
  linear.zero_grad();
  ops::sum(linear(x.to(device()))).backward();
  EXPECT_EQ(linear.weight.grad().to_vector<double>(), gradient);
  linear.to(Device::cpu());
  EXPECT_TRUE(linear.bias.device().is_cpu());
  EXPECT_EQ(linear.weight.to_vector<double>(), values);
}

// ---- BatchNorm2d --------------------------------------------------------------------------------

class BatchNorm2dOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(BatchNorm2dOnDevice);

TEST_P(BatchNorm2dOnDevice, NormalisesByTheBatchAndTracksIt) {
  nn::BatchNorm2d norm(3);
  norm.to(device());
  const Tensor x = draw({4, 3, 5, 2}).to(device()) * 2.0 + 1.0;
  const Tensor y = norm(x);
  const Tensor channel = y.select(1, 1);
  EXPECT_NEAR(ops::mean(channel).item(), 0.0, 1e-6);
  EXPECT_NEAR(ops::mean(ops::square(channel)).item(), 1.0, 1e-4);
  const Tensor mean = ops::mean(x, {0, 2, 3});
  const Tensor variance = ops::var(x, {0, 2, 3});
  for (std::int64_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(norm.running_mean.select(0, c).item(), 0.1 * mean.select(0, c).item(), 1e-6);
    EXPECT_NEAR(norm.running_var.select(0, c).item(), 0.9 + 0.1 * variance.select(0, c).item(),
                1e-5);
  }
  EXPECT_EQ(norm.num_batches_tracked.item<std::int64_t>(), 1);
}

TEST_P(BatchNorm2dOnDevice, EvaluationUsesTheRunningStatisticsAndChangesNothing) {
  nn::BatchNorm2d norm(3);
  norm.to(device());
  norm(draw({4, 3, 5, 2}).to(device()));
  norm.eval();
  const std::vector<float> mean = norm.running_mean.to_vector<float>();
  const Tensor x = draw({1, 3, 1, 1}).to(device());
  const Tensor y = norm(x);
  for (std::int64_t c = 0; c < 3; ++c) {
    const double deviation = std::sqrt(norm.running_var.select(0, c).item() + 1e-5);
    const double expected =
        (x.select(1, c).item() - norm.running_mean.select(0, c).item()) / deviation;
    EXPECT_NEAR(y.select(1, c).item(), expected, 1e-6);
  }
  EXPECT_EQ(norm.running_mean.to_vector<float>(), mean);
  EXPECT_EQ(norm.num_batches_tracked.item<std::int64_t>(), 1);
}

TEST(BatchNorm2d, WithoutAMomentumTheStatisticsAreTheMeanOverAllBatches) {
  nn::BatchNorm2d norm(2, {.momentum = std::nullopt});
  double sum = 0.0;
  for (int i = 0; i < 3; ++i) {
    const Tensor x = draw({2, 2, 3, 3}) + static_cast<double>(i);
    norm(x);
    sum += ops::mean(x.select(1, 0)).item();
  }
  EXPECT_NEAR(norm.running_mean.select(0, 0).item(), sum / 3, 1e-6);
  expect_error([&] { graph::compile(norm)(draw({2, 2, 3, 3})); }, {"BatchNorm2d", "momentum"});
}

TEST(BatchNorm2d, WithoutTrackingEvaluationNormalisesByTheBatch) {
  nn::BatchNorm2d norm(2, {.affine = false, .track_running_stats = false});
  EXPECT_TRUE(norm.state_dict().empty());
  const Tensor x = draw({2, 2, 3, 3});
  const Tensor y = norm(x);
  norm.eval();
  expect_same(norm(x), y);
}

TEST_P(BatchNorm2dOnDevice, CountsItsBatchesWhenCompiledToo) {
  nn::BatchNorm2d eager(2), compiled(2);
  eager.to(device());
  compiled.to(device());
  const auto fast = graph::compile(compiled);
  for (int i = 0; i < 3; ++i) {
    const Tensor x = draw({2, 2, 3, 3}).to(device()) * static_cast<double>(i + 1);
    expect_same(fast(x), eager(x));
  }
  expect_same(compiled.running_var, eager.running_var);
  EXPECT_EQ(compiled.num_batches_tracked.item<std::int64_t>(), 3);
}

// ---- Dropout ------------------------------------------------------------------------------------

TEST(Dropout, ZeroesAndScalesInTrainingOnly) {
  nn::Dropout dropout(0.25);
  const Tensor x = ones({100, 100});
  manual_seed(3);
  const std::vector<float> y = dropout(x).to_vector<float>();
  std::int64_t kept = 0;
  for (float value : y) {
    EXPECT_TRUE(value == 0.0f || value == 1.0f / 0.75f);
    kept += value != 0.0f;
  }
  // 10,000 draws of probability 0.75: standard deviation 43.
  EXPECT_NEAR(static_cast<double>(kept), 7500, 200);
  dropout.eval();
  EXPECT_TRUE(dropout(x).is_same(x));
}

TEST(Dropout, TheSeedDecidesTheMask) {
  nn::Dropout dropout(0.5);
  const Tensor x = ones({33});
  manual_seed(3);
  const Tensor first = dropout(x);
  const Tensor second = dropout(x);
  EXPECT_NE(first.to_vector<float>(), second.to_vector<float>());
  manual_seed(3);
  expect_same(dropout(x), first);
}

TEST(Dropout, NeitherThreadsNorStridesChangeTheMask) {
  const Tensor x = ones({300, 301});
  const int threads = num_threads();
  manual_seed(3);
  const Tensor expected = ops::dropout(x, 0.5);
  for (int count : {1, 3}) {
    set_num_threads(count);
    manual_seed(3);
    expect_same(ops::dropout(x, 0.5), expected);
  }
  set_num_threads(threads);
  manual_seed(3);
  expect_same(ops::dropout(ones({301, 300}).transpose(0, 1), 0.5), expected);
}

TEST(Dropout, TheGradientPassesWhereTheElementWasKept) {
  const Tensor x = test::random_leaf({5, 7});
  manual_seed(1);
  const Tensor y = ops::dropout(x, 0.4);
  ops::sum(y * 3.0).backward();
  const std::vector<double> values = y.to_vector<double>();
  const std::vector<double> gradient = x.grad().to_vector<double>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_DOUBLE_EQ(gradient[i], values[i] == 0 ? 0 : 3.0 / 0.6) << i;
  }
}

TEST(Dropout, GradientAgreesWithDifferencesForAFixedMask) {
  const auto function = [](std::span<const Tensor> inputs) {
    manual_seed(9);
    return ops::dropout(inputs[0], 0.3);
  };
  const std::vector<Tensor> inputs = {test::random_leaf({3, 1, 5}).detach().transpose(0, 2)};
  inputs[0].requires_grad_();
  EXPECT_TRUE(gradcheck(function, inputs));
  EXPECT_TRUE(gradgradcheck(function, inputs));
}

TEST(Dropout, EdgeProbabilities) {
  const Tensor x = test::random_leaf({50});
  expect_same(ops::dropout(x, 0.0), x);
  const Tensor none = ops::dropout(x, 1.0);
  for (double value : none.to_vector<double>()) EXPECT_EQ(value, 0);
  ops::sum(none).backward();
  for (double value : x.grad().to_vector<double>()) EXPECT_EQ(value, 0);
}

TEST(Dropout, EveryFloatingDtypeAndEmptyTensors) {
  for (DType dtype : {DType::Float16, DType::BFloat16, DType::Float32, DType::Float64}) {
    const Tensor x = ones({3, 5, 7}, {.dtype = dtype});
    const Tensor y = ops::dropout(x, 0.5);
    EXPECT_EQ(y.dtype(), dtype);
    for (double value : y.to_vector<double>()) EXPECT_TRUE(value == 0 || value == 2);
    EXPECT_EQ(ops::dropout(empty({0, 3}, {.dtype = dtype}), 0.5).shape(), (Shape{0, 3}));
  }
}

TEST(Dropout, ACompiledFunctionDrawsAtEveryRun) {
  nn::Dropout dropout(0.5);
  const auto fast = graph::compile(dropout);
  const Tensor x = ones({64});
  manual_seed(3);
  const Tensor first = dropout(x);
  const Tensor second = dropout(x);
  manual_seed(3);
  expect_same(fast(x), first);
  expect_same(fast(x), second);
}

// ---- what is refused ----------------------------------------------------------------------------

TEST(LayersBadInput, LinearOfNegativeSize) {
  expect_error([] { nn::Linear(-1, 2); }, {"Linear", "in_features -1"});
}

TEST(LayersBadInput, LinearOnTheWrongWidth) {
  nn::Linear linear(3, 2);
  expect_error([&] { linear(ones({2, 4})); }, {"linear", "[2, 4]", "[2, 3]"});
}

TEST(LayersBadInput, ConvWithoutChannels) {
  expect_error([] { nn::Conv2d(0, 2, {.kernel = 3}); }, {"Conv2d", "in_channels 0"});
}

TEST(LayersBadInput, ConvKernelOfZero) {
  expect_error([] { nn::Conv2d(1, 2, {.kernel = {3, 0}}); }, {"Conv2d", "kernel", "(3, 0)"});
}

TEST(LayersBadInput, ConvStrideOfZero) {
  expect_error([] { nn::Conv2d(1, 2, {.kernel = 3, .stride = 0}); },
               {"Conv2d", "stride", "(0, 0)"});
}

TEST(LayersBadInput, ConvNegativePadding) {
  expect_error([] { nn::Conv2d(1, 2, {.kernel = 3, .padding = -1}); },
               {"Conv2d", "padding", "(-1, -1)"});
}

TEST(LayersBadInput, ConvDilationOfZero) {
  expect_error([] { nn::ConvTranspose2d(1, 2, {.kernel = 3, .dilation = 0}); },
               {"ConvTranspose2d", "dilation", "(0, 0)"});
}

TEST(LayersBadInput, ConvGroupsThatDoNotDivide) {
  expect_error([] { nn::Conv2d(3, 4, {.kernel = 3, .groups = 2}); },
               {"Conv2d", "groups 2", "in_channels 3"});
  expect_error([] { nn::ConvTranspose2d(4, 3, {.kernel = 3, .groups = 2}); },
               {"ConvTranspose2d", "groups 2", "out_channels 3"});
  expect_error([] { nn::Conv2d(4, 4, {.kernel = 3, .groups = 0}); }, {"Conv2d", "groups", "0"});
}

TEST(LayersBadInput, ConvTransposeOutputPaddingAsLargeAsTheStride) {
  expect_error([] { nn::ConvTranspose2d(1, 1, {.kernel = 3, .stride = 2, .output_padding = 2}); },
               {"ConvTranspose2d", "output_padding (2, 2)", "(2, 2)"});
}

TEST(LayersBadInput, ConvOnTheWrongChannels) {
  nn::Conv2d conv(3, 2, {.kernel = 3});
  expect_error([&] { conv(ones({1, 4, 8, 8})); }, {"conv2d", "[1, 4, 8, 8]"});
}

TEST(LayersBadInput, BatchNormWithoutFeatures) {
  expect_error([] { nn::BatchNorm2d(0); }, {"BatchNorm2d", "num_features", "0"});
}

TEST(LayersBadInput, BatchNormNegativeEps) {
  expect_error([] { nn::BatchNorm2d(2, {.eps = -1}); }, {"BatchNorm2d", "eps", "-1"});
}

TEST(LayersBadInput, BatchNormMomentumAboveOne) {
  expect_error([] { nn::BatchNorm2d(2, {.momentum = 1.5}); }, {"BatchNorm2d", "momentum", "1.5"});
}

TEST(LayersBadInput, BatchNormOnThreeDimensions) {
  nn::BatchNorm2d norm(2);
  expect_error([&] { norm(ones({2, 2, 3})); }, {"BatchNorm2d", "[2, 2, 3]"});
  EXPECT_EQ(norm.num_batches_tracked.item<std::int64_t>(), 0);
}

TEST(LayersBadInput, BatchNormOnTheWrongChannelsCountsNothing) {
  nn::BatchNorm2d norm(2);
  expect_error([&] { norm(ones({2, 3, 4, 4})); }, {"BatchNorm2d", "[2, 3, 4, 4]", "[N, 2, H, W]"});
  EXPECT_EQ(norm.num_batches_tracked.item<std::int64_t>(), 0);
}

TEST(LayersBadInput, DropoutProbabilityOutsideOfZeroToOne) {
  expect_error([] { nn::Dropout(1.5); }, {"Dropout", "p", "1.5"});
  expect_error([] { ops::dropout(ones({1}), -0.1); }, {"dropout", "p", "-0.1"});
}

TEST(LayersBadInput, DropoutOfIntegers) {
  expect_error([] { ops::dropout(arange(0, 3)); }, {"dropout", "int64[3]"});
}

TEST(LayersBadInput, HardtanhWithSwappedBounds) {
  expect_error([] { nn::Hardtanh(2, 1); }, {"Hardtanh", "2 and 1"});
}

TEST(LayersBadInput, IncrementOfReals) {
  expect_error([] { ops::increment_(zeros({})); }, {"increment", "float32[]"});
  expect_error([] { ops::increment_(arange(0, 2)); }, {"increment", "int64[2]"});
}

}  // namespace
}  // namespace tenon
