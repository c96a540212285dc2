// Clipping of gradients, against torch.nn.utils.
#include "tenon/nn/clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compare.h"
#include "tenon/core/factories.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::expect_error;

/// Zeros that take a gradient: clipping never reads a parameter itself.
Tensor parameter_of(std::int64_t size) {
  return zeros({size}, {.dtype = DType::Float64, .requires_grad = true});
}

void expect_near(const Tensor& value, const std::vector<double>& expected, double tolerance) {
  test::expect_close(value, tensor(expected, {static_cast<std::int64_t>(expected.size())}), 0,
                     tolerance);
}

/// Gradients (3, −4), (1, 2, −2), and a parameter without one.
std::vector<Tensor> with_gradients() {
  const std::vector<Tensor> parameters = {parameter_of(2), parameter_of(3), parameter_of(1)};
  parameters[0].set_grad(tensor<double>({3, -4}));
  parameters[1].set_grad(tensor<double>({1, 2, -2}));
  return parameters;
}

TEST(ClipGradNorm, ScalesByTheNormOfAllGradients) {
  const std::vector<Tensor> parameters = with_gradients();
  EXPECT_DOUBLE_EQ(nn::clip_grad_norm_(parameters, 2), 5.8309518948453007);
  expect_near(parameters[0].grad(), {1.028991334384495, -1.3719884458459932}, 1e-15);
  expect_near(parameters[1].grad(),
              {0.34299711146149831, 0.68599422292299661, -0.68599422292299661}, 1e-15);
  EXPECT_FALSE(parameters[2].grad().defined());
}

TEST(ClipGradNorm, OtherNorms) {
  std::vector<Tensor> parameters = with_gradients();
  EXPECT_DOUBLE_EQ(nn::clip_grad_norm_(parameters, 2, {.norm_type = 1}), 12);
  expect_near(parameters[0].grad(), {0.49999995833333688, -0.6666666111111158}, 1e-15);
  parameters = with_gradients();
  EXPECT_NEAR(nn::clip_grad_norm_(parameters, 2, {.norm_type = 3}), 4.7622031559045981, 1e-14);
  expect_near(parameters[0].grad(), {1.2599207853280867, -1.6798943804374491}, 1e-14);
  parameters = with_gradients();
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(nn::clip_grad_norm_(parameters, 2, {.norm_type = infinity}), 4);
  expect_near(parameters[0].grad(), {1.4999996250000938, -1.9999995000001249}, 1e-15);
}

TEST(ClipGradNorm, LeavesSmallGradientsAlone) {
  const std::vector<Tensor> parameters = with_gradients();
  nn::clip_grad_norm_(parameters, 6);
  EXPECT_EQ(parameters[0].grad().to_vector<double>(), (std::vector<double>{3, -4}));
}

TEST(ClipGradNorm, DoesNotOverflowInHalfPrecision) {
  const Tensor parameter = zeros({4}, {.dtype = DType::Float16, .requires_grad = true});
  parameter.set_grad(full({4}, 30000, {.dtype = DType::Float16}));
  EXPECT_DOUBLE_EQ(nn::clip_grad_norm_({parameter}, 1),
                   2 * parameter.grad().detach().fill_(30000).select(0, 0).item());
}

TEST(ClipGradNorm, NoGradientsHaveTheNormZero) {
  EXPECT_EQ(nn::clip_grad_norm_({parameter_of(1)}, 1), 0);
  EXPECT_EQ(nn::clip_grad_norm_({}, 1), 0);
}

TEST(ClipGradNorm, NotFiniteIsReturnedOrRefused) {
  const Tensor parameter = parameter_of(2);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  parameter.set_grad(tensor<double>({3, nan}));
  expect_error([&] { nn::clip_grad_norm_({parameter}, 1, {.error_if_nonfinite = true}); },
               {"clip_grad_norm_", "nan"});
  EXPECT_EQ(parameter.grad().to_vector<double>()[0], 3);
  for (double p : {2.0, std::numeric_limits<double>::infinity()}) {
    parameter.set_grad(tensor<double>({3, nan}));
    EXPECT_TRUE(std::isnan(nn::clip_grad_norm_({parameter}, 1, {.norm_type = p})));
  }
}

TEST(ClipGradValue, LimitsEveryElement) {
  const std::vector<Tensor> parameters = with_gradients();
  nn::clip_grad_value_(parameters, 1.5);
  EXPECT_EQ(parameters[0].grad().to_vector<double>(), (std::vector<double>{1.5, -1.5}));
  EXPECT_EQ(parameters[1].grad().to_vector<double>(), (std::vector<double>{1, 1.5, -1.5}));
}

TEST(ClipBadInput, NegativeNorms) {
  expect_error([] { nn::clip_grad_norm_({}, -1); }, {"clip_grad_norm_", "max_norm", "-1"});
  expect_error([] { nn::clip_grad_norm_({}, 1, {.norm_type = 0}); },
               {"clip_grad_norm_", "norm_type", "0"});
  expect_error([] { nn::clip_grad_value_({}, -0.5); }, {"clip_grad_value_", "-0.5"});
}

}  // namespace
}  // namespace tenon
