#include "tenon/nn/init.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tenon/core/factories.h"
#include "tenon/nn/conv.h"
#include "tenon/nn/linear.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::expect_error;
using test::expect_values;
namespace init = nn::init;

/// What a sample looks like.
struct Sample {
  double mean = 0;
  double deviation = 0;
  double lowest = 0;
  double highest = 0;
};

Sample sample_of(const Tensor& tensor) {
  const std::vector<double> values = tensor.to_vector<double>();
  const auto n = static_cast<double>(values.size());
  Sample sample;
  for (double value : values) sample.mean += value / n;
  for (double value : values) sample.deviation += (value - sample.mean) * (value - sample.mean) / n;
  sample.deviation = std::sqrt(sample.deviation);
  sample.lowest = *std::min_element(values.begin(), values.end());
  sample.highest = *std::max_element(values.begin(), values.end());
  return sample;
}

/// Tensors of some 100,000 elements: a mean strays by about 0.003 deviations, a deviation by 0.2%,
/// and a uniform sample comes within 0.1% of its bounds.
void expect_uniform(const Tensor& tensor, double bound) {
  const Sample sample = sample_of(tensor);
  EXPECT_NEAR(sample.mean, 0, 0.01 * bound);
  EXPECT_NEAR(sample.deviation, bound / std::sqrt(3.0), 0.01 * bound);
  EXPECT_GE(sample.lowest, -bound * (1 + 1e-6));
  EXPECT_LE(sample.highest, bound * (1 + 1e-6));
  EXPECT_LT(sample.lowest, -0.999 * bound);
  EXPECT_GT(sample.highest, 0.999 * bound);
}

void expect_normal(const Tensor& tensor, double deviation) {
  const Sample sample = sample_of(tensor);
  EXPECT_NEAR(sample.mean, 0, 0.02 * deviation);
  EXPECT_NEAR(sample.deviation, deviation, 0.01 * deviation);
  EXPECT_GT(sample.highest, 3.5 * deviation);  // of 100,000 normals some are this far out
  EXPECT_LT(sample.highest, 6.5 * deviation);
}

// ---- the layers' defaults: the bounds that PyTorch's modules have -------------------------------

TEST(DefaultInit, LinearIsUniformInOneOverTheRootOfItsInputs) {
  manual_seed(1);
  nn::Linear linear(7, 15'000);
  expect_uniform(linear.weight, 0.3779644730092272);  // 1/sqrt(7)
  expect_uniform(linear.bias, 0.3779644730092272);
}

TEST(DefaultInit, Conv2dCountsTheInputsOfAGroup) {
  manual_seed(1);
  nn::Conv2d conv(6, 4000, {.kernel = {3, 5}, .groups = 2});
  expect_uniform(conv.weight, 0.14907119849998599);  // 1/sqrt(3·3·5)
  const Sample bias = sample_of(conv.bias);
  EXPECT_LE(std::max(-bias.lowest, bias.highest), 0.14907119849998599 * (1 + 1e-6));
  EXPECT_GT(bias.highest, 0.148);
}

TEST(DefaultInit, ConvTranspose2dCountsItsOutputsAsPyTorchDoes) {
  manual_seed(1);
  nn::ConvTranspose2d conv(4000, 4, {.kernel = {3, 5}, .groups = 2});
  expect_uniform(conv.weight, 0.18257418583505536);  // 1/sqrt(2·3·5), with 2 = 4 outputs / 2
  const Sample bias = sample_of(conv.bias);
  EXPECT_LE(std::max(-bias.lowest, bias.highest), 0.18257418583505536 * (1 + 1e-6));
}

TEST(DefaultInit, TheSeedDecidesTheWeights) {
  manual_seed(5);
  nn::Linear a(3, 4), b(3, 4);
  manual_seed(5);
  nn::Linear c(3, 4);
  EXPECT_EQ(a.weight.to_vector<float>(), c.weight.to_vector<float>());
  EXPECT_EQ(a.bias.to_vector<float>(), c.bias.to_vector<float>());
  EXPECT_NE(a.weight.to_vector<float>(), b.weight.to_vector<float>());
}

TEST(DefaultInit, LayersWithoutInputsHaveAZeroBias) {
  nn::Linear linear(0, 3);
  expect_values(linear.bias, {3}, {0, 0, 0});
}

// ---- nn::init -----------------------------------------------------------------------------------

TEST(Init, FansOfEveryRank) {
  EXPECT_EQ(init::fans(zeros({3, 5})).in, 5);
  EXPECT_EQ(init::fans(zeros({3, 5})).out, 3);
  EXPECT_EQ(init::fans(zeros({3, 5, 2, 7})).in, 70);
  EXPECT_EQ(init::fans(zeros({3, 5, 2, 7})).out, 42);
}

TEST(Init, GainsArePyTorchs) {
  using init::Nonlinearity;
  EXPECT_EQ(init::gain(Nonlinearity::Linear), 1);
  EXPECT_EQ(init::gain(Nonlinearity::Sigmoid), 1);
  EXPECT_DOUBLE_EQ(init::gain(Nonlinearity::Tanh), 1.6666666666666667);
  EXPECT_DOUBLE_EQ(init::gain(Nonlinearity::Relu), 1.4142135623730951);
  EXPECT_DOUBLE_EQ(init::gain(Nonlinearity::LeakyRelu), 1.4141428569978354);
  EXPECT_DOUBLE_EQ(init::gain(Nonlinearity::LeakyRelu, 0.2), 1.3867504905630728);
  EXPECT_EQ(init::gain(Nonlinearity::Selu), 0.75);
}

TEST(Init, ConstantsZerosOnesAndTheIdentity) {
  expect_values(init::constant_(empty({2}), 2.5), {2}, {2.5, 2.5});
  expect_values(init::zeros_(ones({2})), {2}, {0, 0});
  expect_values(init::ones_(empty({2})), {2}, {1, 1});
  expect_values(init::eye_(ones({2, 3})), {2, 3}, {1, 0, 0, 0, 1, 0});
  expect_values(init::eye_(ones({3, 2})), {3, 2}, {1, 0, 0, 1, 0, 0});
}

TEST(Init, WorksOnLeavesThatRequireAGradient) {
  const Tensor leaf = empty({3, 3}, {.requires_grad = true});
  EXPECT_TRUE(init::kaiming_uniform_(leaf).is_leaf());
  EXPECT_TRUE(leaf.requires_grad());
  init::zeros_(leaf);
  init::eye_(leaf);
  init::trunc_normal_(leaf);
}

TEST(Init, XavierBounds) {
  Generator generator(1);
  const Tensor weight = empty({100, 50, 4, 5});  // fans 1000 and 2000
  expect_uniform(init::xavier_uniform_(weight, 2.0, generator), 2 * std::sqrt(6.0 / 3000));
  expect_normal(init::xavier_normal_(weight, 2.0, generator), 2 * std::sqrt(2.0 / 3000));
}

TEST(Init, KaimingBounds) {
  Generator generator(1);
  const Tensor weight = empty({100, 50, 4, 5});
  expect_uniform(init::kaiming_uniform_(weight, {}, generator), std::sqrt(6.0 / 1000));
  expect_uniform(init::kaiming_uniform_(
                     weight, {.mode = init::FanMode::Out, .nonlinearity = init::Nonlinearity::Tanh},
                     generator),
                 5.0 / 3 * std::sqrt(3.0 / 2000));
  expect_normal(init::kaiming_normal_(weight, {.slope = 0.5}, generator),
                std::sqrt(2.0 / 1.25 / 1000));
}

TEST(Init, UniformAndNormal) {
  Generator generator(1);
  const Tensor tensor = empty({100'000});
  const Sample sample = sample_of(init::uniform_(tensor, 2, 6, generator));
  EXPECT_NEAR(sample.mean, 4, 0.02);
  EXPECT_GE(sample.lowest, 2);
  EXPECT_LT(sample.highest, 6);
  expect_normal(init::normal_(tensor, 0, 0.5, generator), 0.5);
}

TEST(Init, TruncatedNormalStaysInsideAndHasTheRightSpread) {
  Generator generator(1);
  const Tensor tensor = empty({100'000}, {.dtype = DType::Float64});
  const Sample sample = sample_of(init::trunc_normal_(tensor, 1, 2, -1, 3, generator));
  EXPECT_GE(sample.lowest, -1);
  EXPECT_LE(sample.highest, 3);
  EXPECT_NEAR(sample.mean, 1, 0.02);
  // A standard normal cut at ±1 has the variance 1 − 2φ(1)/(Φ(1) − Φ(−1)) = 0.29112509.
  EXPECT_NEAR(sample.deviation, 2 * std::sqrt(0.2911250947), 0.01);
}

// ---- what is refused ----------------------------------------------------------------------------

TEST(InitBadInput, AVectorHasNoFans) {
  expect_error([] { init::kaiming_uniform_(empty({3})); }, {"kaiming_uniform_", "[3]"});
  expect_error([] { init::kaiming_normal_(empty({})); }, {"kaiming_normal_", "[]"});
  expect_error([] { init::xavier_uniform_(empty({3})); }, {"xavier_uniform_", "[3]"});
  expect_error([] { init::xavier_normal_(empty({3})); }, {"xavier_normal_", "[3]"});
  expect_error([] { init::fans(empty({3})); }, {"fans", "[3]"});
}

TEST(InitBadInput, IdentityOfThreeDimensions) {
  expect_error([] { init::eye_(empty({2, 2, 2})); }, {"eye_", "[2, 2, 2]"});
}

TEST(InitBadInput, TruncationWithoutAWidth) {
  expect_error([] { init::trunc_normal_(empty({3}), 0, 1, 2, 2); }, {"trunc_normal_", "[2, 2]"});
  expect_error([] { init::trunc_normal_(empty({3}), 0, -1); }, {"trunc_normal_", "-1"});
}

TEST(InitBadInput, IntegersCannotBeDrawn) {
  expect_error([] { init::uniform_(empty({3}, {.dtype = DType::Int64})); }, {"uniform_", "int64"});
}

}  // namespace
}  // namespace tenon
