#include "tenon/core/gradcheck.h"

#include <gtest/gtest.h>

#include "tenon/core/autograd.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/test_ops.h"

namespace tenon {
namespace {

using test::CustomBackwardOp;
using test::expect_error;
using test::random_leaf;

using Inputs = std::span<const Tensor>;

/// The product of two tensors, with the gradient of the first one wrong by the factor `error`.
Tensor product_with_error(const Tensor& a, const Tensor& b, double error) {
  const Tensor wrong =
      apply(CustomBackwardOp([error](const BackwardContext&, std::span<const Tensor> gradients) {
              return std::vector<Tensor>{test::scale(gradients[0], error)};
            }),
            {a});
  return test::mul(wrong, b);
}

TEST(Gradcheck, AcceptsRightGradientsOfSeveralInputs) {
  const auto f = [](Inputs x) { return test::mul(test::exp(x[0]), test::mul(x[1], x[1])); };
  EXPECT_TRUE(gradcheck(f, {random_leaf({3, 5}, 1), random_leaf({3, 5}, 2)}));
  EXPECT_TRUE(gradgradcheck(f, {random_leaf({3, 5}, 1), random_leaf({3, 5}, 2)}));
}

TEST(Gradcheck, NamesTheInputTheElementAndBothValuesOfAWrongGradient) {
  const auto f = [](Inputs x) { return product_with_error(x[0], x[1], 2); };
  expect_error(
      [&] {
        gradcheck(f, {random_leaf({2, 3}, 1), random_leaf({2, 3}, 2)});
      },
      {"gradcheck: input 0, element [0, 0]", "the gradient is", "differences give"});
}

TEST(Gradcheck, FindsAGradientThatIsWrongByOnePercent) {
  const auto f = [](Inputs x) { return product_with_error(x[0], x[1], 1.01); };
  expect_error(
      [&] {
        gradcheck(f, {random_leaf({5}, 1), random_leaf({5}, 2)});
      },
      {"gradcheck: input 0"});
}

TEST(Gradcheck, FindsAWrongGradientOfTheLastElementOnly) {
  const auto f = [](Inputs x) {
    return apply(CustomBackwardOp([](const BackwardContext&, std::span<const Tensor> gradients) {
                   std::vector<double> values = gradients[0].to_vector<double>();
                   values.back() += 0.5;
                   return std::vector<Tensor>{tensor(values, gradients[0].shape())};
                 }),
                 {x[0]});
  };
  expect_error([&] { gradcheck(f, {random_leaf({2, 3, 2})}); }, {"element [1, 2, 1]"});
}

TEST(Gradcheck, FindsAMissingGradient) {
  const auto f = [](Inputs x) { return test::mul(x[0], x[1].detach()); };
  expect_error(
      [&] {
        gradcheck(f, {random_leaf({3}, 1), random_leaf({3}, 2)});
      },
      {"gradcheck: input 1, element [0]", "the gradient is 0"});
}

TEST(Gradcheck, FindsANaNGradient) {
  const auto f = [](Inputs x) { return product_with_error(x[0], x[1], NAN); };
  expect_error(
      [&] {
        gradcheck(f, {random_leaf({3}, 1), random_leaf({3}, 2)});
      },
      {"gradcheck: input 0", "nan"});
}

TEST(Gradcheck, AcceptsAnInputWithoutInfluence) {
  const auto f = [](Inputs x) { return test::exp(x[0]); };
  EXPECT_TRUE(gradcheck(f, {random_leaf({3}, 1), random_leaf({4}, 2)}));
  EXPECT_TRUE(gradgradcheck(f, {random_leaf({3}, 1), random_leaf({4}, 2)}));
}

TEST(Gradcheck, TakesInputsOfAnyStrides) {
  Generator generator(5);
  const TensorOptions float64{.dtype = DType::Float64};
  const Tensor transposed = randn({4, 3}, float64, generator).transpose(0, 1).requires_grad_();
  const Tensor stepped = randn({3, 9}, float64, generator).slice(1, 1, 9, 2).requires_grad_();
  const Tensor expanded = randn({3, 1}, float64, generator).expand({3, 4}).requires_grad_();
  ASSERT_FALSE(transposed.is_contiguous() || stepped.is_contiguous() || expanded.is_contiguous());
  const auto f = [](Inputs x) { return test::mul(test::mul(x[0], x[1]), test::exp(x[2])); };
  EXPECT_TRUE(gradcheck(f, {transposed, stepped, expanded}));
  EXPECT_TRUE(gradgradcheck(f, {transposed, stepped, expanded}));
}

TEST(Gradcheck, LeavesTheInputsAndTheirGradientsAlone) {
  const Tensor x = random_leaf({3});
  const std::vector<double> before = x.to_vector<double>();
  gradcheck([](Inputs inputs) { return test::exp(inputs[0]); }, {x});
  EXPECT_EQ(x.to_vector<double>(), before);
  EXPECT_FALSE(x.grad().defined());
}

TEST(Gradcheck, WorksInsideNoGradGuard) {
  const NoGradGuard guard;
  Generator generator(3);
  const Tensor x = randn({3}, {.dtype = DType::Float64}, generator).requires_grad_();
  EXPECT_TRUE(gradcheck([](Inputs inputs) { return test::exp(inputs[0]); }, {x}));
  EXPECT_TRUE(gradgradcheck([](Inputs inputs) { return test::exp(inputs[0]); }, {x}));
}

TEST(Gradcheck, TakesConstantInputsOfAnyDtype) {
  const Tensor mask = tensor<std::int64_t>({1, 0, 2});
  const auto f = [](Inputs x) { return test::mul(x[0], x[1].to(DType::Float64)); };
  EXPECT_TRUE(gradcheck(f, {random_leaf({3}), mask}));
}

TEST(Gradcheck, RejectsFloat32AndInputsWithoutGradient) {
  const auto f = [](Inputs x) { return test::exp(x[0]); };
  expect_error(
      [&] {
        gradcheck(f, {ones({2, 3}, {.requires_grad = true})});
      },
      {"gradcheck: input 0 is float32[2, 3]", "float64"});
  expect_error([&] { gradcheck(f, {ones({2})}); }, {"none of the 1 inputs requires a gradient"});
  expect_error([&] { gradgradcheck(f, {ones({2}, {.requires_grad = true})}); },
               {"gradgradcheck: input 0 is float32[2]"});
}

TEST(Gradcheck, RejectsAnIntegerOutput) {
  const auto f = [](Inputs x) { return x[0].to(DType::Int64); };
  expect_error([&] { gradcheck(f, {random_leaf({2})}); }, {"gradcheck", "int64[2]"});
}

TEST(Gradgradcheck, FindsAFirstGradientThatIsRightButNotDifferentiable) {
  // The gradient of exp, computed from values that were cut off from the history.
  const auto f = [](Inputs x) {
    return apply(CustomBackwardOp(
                     [](const BackwardContext& context, std::span<const Tensor> gradients) {
                       return std::vector<Tensor>{
                           test::mul(gradients[0], test::exp(context.input(0).detach()))};
                     },
                     Saved{.inputs = index_bit(0)}),
                 {x[0]});
  };
  expect_error([&] { gradgradcheck(f, {random_leaf({3})}); },
               {"gradgradcheck: input 0, element [0]", "the gradient is 0"});
}

TEST(Gradgradcheck, ChecksTheGradientWithRespectToTheOutputsGradient) {
  const auto f = [](Inputs x) {
    return apply(CustomBackwardOp([](const BackwardContext&, std::span<const Tensor> gradients) {
                   return std::vector<Tensor>{gradients[0].detach()};
                 }),
                 {x[0]});
  };
  EXPECT_TRUE(gradcheck(f, {random_leaf({3})}));
  expect_error([&] { gradgradcheck(f, {random_leaf({3})}); }, {"gradgradcheck: input 1"});
}

}  // namespace
}  // namespace tenon
