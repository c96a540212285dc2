#include "tenon/ops/unary.h"

#include <limits>

#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

OpCase make(const std::string& name, Tensor (*function)(const Tensor&),
            const std::function<double(double)>& reference, double low, double high,
            bool integers = false) {
  OpCase result{.name = name,
                .function = [function](Inputs x) { return function(x[0]); },
                .reference = elementwise([reference](Values v) { return reference(v[0]); }),
                .shapes = unary_shapes(),
                .low = low,
                .high = high};
  if (integers) result.dtypes.push_back(DType::Int64);
  return result;
}

std::vector<OpCase> unary_cases() {
  std::vector<OpCase> cases = {
      make(
          "neg", ops::neg, [](double x) { return -x; }, -3, 3, true),
      make(
          "abs", ops::abs, [](double x) { return std::abs(x); }, -3, 3, true),
      make(
          "sign", ops::sign, [](double x) { return x > 0   ? 1
                                                   : x < 0 ? -1
                                                           : 0; }, -3, 3, true),
      make(
          "square", ops::square, [](double x) { return x * x; }, -3, 3, true),
      make(
          "floor", ops::floor, [](double x) { return std::floor(x); }, -3, 3, true),
      make(
          "exp", ops::exp, [](double x) { return std::exp(x); }, -4, 4),
      make(
          "log", ops::log, [](double x) { return std::log(x); }, 1.5, 9),
      make(
          "log_small", ops::log, [](double x) { return std::log(x); }, 1e-4, 0.5),
      make(
          "sqrt", ops::sqrt, [](double x) { return std::sqrt(x); }, 0.1, 9),
      make(
          "rsqrt", ops::rsqrt, [](double x) { return 1 / std::sqrt(x); }, 0.5, 9),
      make(
          "reciprocal", ops::reciprocal, [](double x) { return 1 / x; }, 0.5, 3),
      make(
          "reciprocal_negative", ops::reciprocal, [](double x) { return 1 / x; }, -3, -0.5),
      make(
          "sin", ops::sin, [](double x) { return std::sin(x); }, -1.5, 1.5),
      make(
          "cos", ops::cos, [](double x) { return std::cos(x); }, -1.5, 1.5),
  };
  return cases;
}

TENON_OP_TESTS(Unary, unary_cases());

TEST(UnaryRange, ExpReachesBothEndsOfTheRange) {
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor x = tensor<float>({-inf, -200, -100, 88.5, 88.8F, 200, inf});
  const std::vector<float> y = ops::exp(x).to_vector<float>();
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[1], 0);
  EXPECT_GT(y[2], 0) << "e^-100 is a denormal number, not 0";
  EXPECT_NEAR(y[3] / std::exp(88.5), 1, 1e-6);
  EXPECT_EQ(y[4], inf);
  EXPECT_EQ(y[5], inf);
  EXPECT_EQ(y[6], inf);
  EXPECT_TRUE(std::isnan(ops::exp(full({1}, std::nan("")).to(DType::Float32)).item<float>()));
}

TEST(UnaryRange, LogOfZeroNegativeInfiniteAndDenormal) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> y =
      ops::log(tensor<float>({0, -1, inf, 1e-40F, 1, 1e-38F})).to_vector<float>();
  EXPECT_EQ(y[0], -inf);
  EXPECT_TRUE(std::isnan(y[1]));
  EXPECT_EQ(y[2], inf);
  EXPECT_NEAR(y[3], std::log(static_cast<double>(1e-40F)), 1e-4);
  EXPECT_EQ(y[4], 0);
  EXPECT_NEAR(y[5], std::log(1e-38), 1e-4);
}

TEST(UnaryRange, FloatFunctionsAreAccurateToAFewRoundings) {
  const Tensor x = linspace(-20, 20, 20001);
  const Tensor wide = x.to(DType::Float64);
  const std::vector<std::pair<std::string, Tensor (*)(const Tensor&)>> functions = {
      {"exp", ops::exp},
      {"tanh", ops::tanh},
      {"sigmoid", ops::sigmoid},
      {"mish", ops::mish},
      {"silu", ops::silu}};
  for (const auto& [name, function] : functions) {
    // Within 5 units in the last place, relative to each result.
    expect_within(function(x), function(wide), {6e-7, 0}, name);
  }
}

TEST(UnaryRange, RootsOfZeroInfiniteNegativeAndDenormal) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const std::int64_t count : {1, 40}) {
    const auto at = [&](Tensor (*function)(const Tensor&), float x) {
      return function(full({count}, x)).to_vector<float>()[0];
    };
    EXPECT_EQ(at(ops::sqrt, inf), inf);
    EXPECT_EQ(at(ops::sqrt, 0), 0);
    EXPECT_NEAR(at(ops::sqrt, 1e-40F) / 1e-20, 1, 1e-4);
    EXPECT_TRUE(std::isnan(at(ops::sqrt, -1)));
    EXPECT_EQ(at(ops::rsqrt, inf), 0);
    EXPECT_EQ(at(ops::rsqrt, 0), inf);
  }
}

TEST(UnaryDtypes, FloatFunctionsOfIntegersGiveFloat32) {
  for (const DType dtype : {DType::Int64, DType::UInt8, DType::Bool}) {
    const Tensor y = ops::exp(ones({2}, {.dtype = dtype}));
    EXPECT_EQ(y.dtype(), DType::Float32);
    EXPECT_NEAR(y.to_vector<double>()[0], std::exp(1.0), 1e-6);
  }
  EXPECT_EQ(ops::square(ones({2}, {.dtype = DType::UInt8})).dtype(), DType::UInt8);
  EXPECT_EQ(ops::neg(ones({1}, {.dtype = DType::UInt8})).item<int>(), 255);
}

TEST(UnaryErrors, NegAndSignOfBool) {
  const Tensor x = ones({2}, {.dtype = DType::Bool});
  expect_error([&] { -x; }, {"neg", "bool"});
  expect_error([&] { ops::sign(x); }, {"sign", "bool"});
}

TEST(UnaryGradients, AbsIsFlatAtZero) {
  const Tensor x = tensor<double>({-2, 0, 2});
  x.requires_grad_();
  ops::abs(x).backward(ones({3}, {.dtype = DType::Float64}));
  expect_values(x.grad(), {3}, {-1, 0, 1});
}

}  // namespace
}  // namespace tenon::test
