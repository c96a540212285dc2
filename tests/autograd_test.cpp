// What a user of autograd relies on: modes, leaves, accumulation, hooks, grad().
#include "tenon/core/autograd.h"

#include <gtest/gtest.h>

#include <thread>

#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/test_ops.h"

namespace tenon {
namespace {

using test::expect_error;
using test::expect_values;
using test::mul;
using test::scale;
using test::sum;

Tensor leaf(std::initializer_list<double> values) {
  return tensor<double>(values).requires_grad_();
}

/// `grad` of one output with respect to one input.
Tensor grad_of(const Tensor& output, const Tensor& input, BackwardOptions options = {}) {
  return grad({&output, 1}, {&input, 1}, {}, options)[0];
}

// ---- modes and leaves ---------------------------------------------------------------------------

TEST(GradMode, NoGradGuardStopsTheRecordingAndNests) {
  const Tensor x = leaf({1, 2});
  EXPECT_TRUE(grad_enabled());
  {
    const NoGradGuard outer;
    EXPECT_FALSE(grad_enabled());
    EXPECT_FALSE(mul(x, x).requires_grad());
    {
      const GradModeGuard inner(true);
      EXPECT_TRUE(mul(x, x).requires_grad());
    }
    EXPECT_FALSE(grad_enabled());
  }
  EXPECT_TRUE(mul(x, x).requires_grad());
}

TEST(GradMode, BelongsToTheThread) {
  const NoGradGuard guard;
  bool enabled_elsewhere = false;
  std::thread([&] { enabled_elsewhere = grad_enabled(); }).join();
  EXPECT_TRUE(enabled_elsewhere);
}

TEST(GradMode, SurvivesAnException) {
  const Tensor x = leaf({1});
  EXPECT_THROW(
      {
        const NoGradGuard guard;
        detail::fail("thrown with the guard alive");
      },
      Error);
  EXPECT_TRUE(grad_enabled());
}

TEST(Leaf, IsWhatNoOpComputed) {
  const Tensor x = leaf({1, 2});
  const Tensor plain = tensor<double>({1, 2});
  EXPECT_TRUE(x.is_leaf());
  EXPECT_TRUE(plain.is_leaf());
  EXPECT_TRUE(mul(plain, plain).is_leaf()) << "no history was recorded";
  EXPECT_FALSE(mul(x, plain).is_leaf());
  EXPECT_TRUE(mul(x, plain).requires_grad());
  EXPECT_FALSE(plain.requires_grad());
  EXPECT_TRUE(mul(x, plain).detach().is_leaf());
}

TEST(Leaf, RequiresGradCanBeSwitchedOff) {
  const Tensor x = leaf({1, 2});
  x.requires_grad_(false);
  EXPECT_FALSE(x.requires_grad());
  EXPECT_FALSE(mul(x, x).requires_grad());
}

TEST(Leaf, OnlyFloatingLeavesCanRequireAGradient) {
  expect_error([] { zeros({2}, {.dtype = DType::Int64}).requires_grad_(); },
               {"requires_grad_", "int64"});
  expect_error([] { zeros({2}, {.dtype = DType::Bool, .requires_grad = true}); },
               {"requires_grad_", "bool"});
  const Tensor x = leaf({1});
  expect_error([&] { mul(x, x).requires_grad_(false); }, {"requires_grad_", "leaf"});
}

TEST(Leaf, CannotBeChangedInPlaceWhileItsGradientIsRecorded) {
  const Tensor x = leaf({1, 2});
  expect_error([&] { x.fill_(3); }, {"fill_", "gradient is being recorded", "NoGradGuard"});
  expect_error([&] { x.copy_(tensor<double>({3, 4})); }, {"copy_", "NoGradGuard"});
  expect_error([&] { mul(x, x).zero_(); }, {"fill_"});
  const NoGradGuard guard;
  x.fill_(3);
  expect_values(x, {2}, {3, 3});
}

TEST(Detach, CutsTheHistoryAndSharesTheElements) {
  const Tensor x = leaf({2, 3});
  const Tensor y = mul(x, x);
  const Tensor cut = y.detach();
  EXPECT_FALSE(cut.requires_grad());
  EXPECT_EQ(cut.raw_data(), y.raw_data());
  EXPECT_FALSE(cut.is_same(y));
  sum(mul(y, cut)).backward();  // d(x² · c)/dx = 2xc with c = x²
  expect_values(x.grad(), {2}, {16, 54});
  const Tensor changed = y.detach();
  changed.fill_(7);
  expect_values(y, {2}, {7, 7});
}

// ---- backward -----------------------------------------------------------------------------------

TEST(Backward, AddsUpOverSharedInputsAndDiamonds) {
  const Tensor x = leaf({3, -2});
  const Tensor square = mul(x, x);
  const Tensor y = mul(square, mul(square, x));  // x⁵
  y.backward(tensor<double>({1, 2}));
  expect_values(x.grad(), {2}, {5 * 81, 2 * 5 * 16});
}

TEST(Backward, AddsToTheGradientThatIsThere) {
  const Tensor x = leaf({3});
  sum(mul(x, x)).backward();
  const Tensor first = x.grad();
  sum(scale(x, 10)).backward();
  expect_values(x.grad(), {1}, {16});
  EXPECT_TRUE(x.grad().is_same(first)) << "handles to the gradient see the sum";
  x.set_grad({});
  EXPECT_FALSE(x.grad().defined());
  sum(scale(x, 10)).backward();
  expect_values(x.grad(), {1}, {10});
  expect_values(first, {1}, {16});
}

TEST(Backward, OfALeafItselfIsTheGivenGradient) {
  const Tensor x = leaf({3, 4});
  const Tensor given = tensor<double>({5, 6});
  x.backward(given);
  expect_values(x.grad(), {2}, {5, 6});
  x.backward(given);
  expect_values(x.grad(), {2}, {10, 12});
  expect_values(given, {2}, {5, 6});
}

TEST(Backward, NeverSharesOneGradientBetweenTwoTensors) {
  const Tensor a = leaf({1, 2});
  const Tensor b = leaf({3, 4});
  const Tensor given = tensor<double>({1, 1});
  accumulate(a, b).backward(given);
  a.grad().fill_(9);
  expect_values(b.grad(), {2}, {1, 1});
  expect_values(given, {2}, {1, 1});
}

TEST(Backward, AGradientKeptUnderCreateGraphIsNotTheCallersTensor) {
  const Tensor x = leaf({1, 2});
  const Tensor given = tensor<double>({1, 1});
  x.reshape({2, 1}).backward(given.reshape({2, 1}), true, true);
  x.reshape({2, 1}).backward(given.reshape({2, 1}));
  expect_values(x.grad(), {2}, {2, 2});
  expect_values(given, {2}, {1, 1});
  // An expanded gradient has one element in memory for several.
  const Tensor y = leaf({1, 2, 3});
  sum(y).backward({}, true, true);
  sum(y).backward();
  expect_values(y.grad(), {3}, {2, 2, 2});
}

TEST(Backward, AddsToAnExpandedGradientThatTheUserSet) {
  const Tensor x = leaf({1, 2, 3});
  x.set_grad(tensor<double>({5}).expand({3}));
  x.backward(tensor<double>({1, 2, 3}));
  expect_values(x.grad(), {3}, {6, 7, 8});
}

TEST(Backward, OfSeveralOutputsAddsTheirGradients) {
  const Tensor x = leaf({2});
  const Tensor outputs[] = {mul(x, x), scale(x, 3)};
  const Tensor gradients[] = {tensor<double>({10}), tensor<double>({100})};
  backward(outputs, gradients);
  expect_values(x.grad(), {1}, {340});
  const Tensor z = leaf({2});
  const Tensor square = mul(z, z);
  const Tensor nested[] = {mul(square, z), square};  // one output inside the other's history
  backward(nested);
  expect_values(z.grad(), {1}, {12 + 4});
}

TEST(Backward, LeavesTensorsThatRequireNoGradientAlone) {
  const Tensor x = leaf({2});
  const Tensor constant = tensor<double>({5});
  mul(x, constant).backward();
  EXPECT_FALSE(constant.grad().defined());
  expect_values(x.grad(), {1}, {5});
}

TEST(Backward, NeedsAGradientUnlessTheOutputHasOneElement) {
  const Tensor x = leaf({1, 2, 3});
  expect_error([&] { mul(x, x).backward(); }, {"backward", "[3]", "needs a gradient"});
  mul(x, x).slice(0, 0, 1).backward();
  expect_values(x.grad(), {3}, {2, 0, 0});
}

TEST(Backward, RejectsAGradientOfAnotherShapeOrDtype) {
  const Tensor x = leaf({1, 2, 3});
  expect_error(
      [&] {
        mul(x, x).backward(tensor<double>({1, 2}));
      },
      {"backward", "float64[2]", "float64[3]"});
  expect_error([&] { mul(x, x).backward(ones({3})); }, {"backward", "float32[3]", "float64[3]"});
  const Tensor outputs[] = {sum(x), sum(x)};
  const Tensor one[] = {scalar_tensor(1.0, {.dtype = DType::Float64})};
  expect_error([&] { backward(outputs, one); }, {"backward", "2 outputs but 1 gradients"});
}

TEST(Backward, RejectsAnOutputWithoutHistoryOrUndefined) {
  const Tensor x = leaf({1});
  expect_error([&] { x.detach().backward(); }, {"backward", "does not require a gradient"});
  {
    const NoGradGuard guard;
    const Tensor y = mul(x, x);
    expect_error([&] { y.backward(); }, {"backward", "NoGradGuard"});
  }
  expect_error([] { Tensor().backward(); }, {"backward", "output 0 is an undefined tensor"});
}

TEST(Backward, ASecondOneNeedsRetainGraph) {
  const Tensor x = leaf({3});
  const Tensor y = mul(x, x);
  y.backward({}, true);
  y.backward();
  expect_values(x.grad(), {1}, {12});
  expect_error([&] { y.backward(); }, {"'test_mul'", "freed", "retain_graph = true"});
  expect_values(x.grad(), {1}, {12});
}

TEST(Backward, ASecondOneThroughOpsThatSaveNothingIsFree) {
  const Tensor x = leaf({3});
  const Tensor y = scale(x, 2);
  y.backward();
  y.backward();
  expect_values(x.grad(), {1}, {4});
}

TEST(SetGrad, RejectsAnotherShapeOrDtype) {
  const Tensor x = leaf({1, 2});
  expect_error([&] { x.set_grad(tensor<double>({1})); }, {"set_grad", "float64[1]", "float64[2]"});
  expect_error([&] { x.set_grad(ones({2})); }, {"set_grad", "float32[2]"});
}

// ---- hooks and gradients of tensors that are not leaves -----------------------------------------

TEST(Hooks, SeeAndReplaceTheGradientInTheOrderOfRegistration) {
  const Tensor x = leaf({3});
  const Tensor y = scale(x, 2);
  std::vector<double> seen;
  y.register_hook([&](const Tensor& gradient) {
    seen.push_back(gradient.item());
    return scale(gradient, 10);
  });
  y.register_hook([&](const Tensor& gradient) {
    seen.push_back(gradient.item());
    return Tensor();  // looks only
  });
  y.register_hook([&](const Tensor& gradient) {
    seen.push_back(gradient.item());
    return scale(gradient, 5);
  });
  scale(y, 7).backward();
  EXPECT_EQ(seen, (std::vector<double>{7, 70, 70}));
  expect_values(x.grad(), {1}, {2 * 350});
}

TEST(Hooks, OfALeafRunOnTheSumOfItsGradientsAndBeforeAccumulation) {
  const Tensor x = leaf({3});
  int calls = 0;
  x.register_hook([&](const Tensor& gradient) {
    ++calls;
    EXPECT_EQ(gradient.item(), 6);
    return scale(gradient, -1);
  });
  mul(x, x).backward();
  expect_values(x.grad(), {1}, {-6});
  mul(x, x).backward();
  EXPECT_EQ(calls, 2);
  expect_values(x.grad(), {1}, {-12});
}

TEST(Hooks, CanBeRemoved) {
  const Tensor x = leaf({3});
  const Tensor y = scale(x, 1);
  const std::size_t first = y.register_hook([](const Tensor& g) { return scale(g, 2); });
  const std::size_t second = y.register_hook([](const Tensor& g) { return scale(g, 3); });
  EXPECT_NE(first, second);
  y.remove_hook(first);
  y.backward({}, true);
  expect_values(x.grad(), {1}, {3});
  y.remove_hook(second);
  y.backward();
  expect_values(x.grad(), {1}, {4});
  expect_error([&] { y.remove_hook(second); }, {"remove_hook", std::to_string(second)});
}

TEST(Hooks, NumbersAreNotGivenTwice) {
  const Tensor x = leaf({3});
  const std::size_t first = x.register_hook([](const Tensor& g) { return scale(g, 2); });
  x.remove_hook(first);
  const std::size_t second = x.register_hook([](const Tensor& g) { return scale(g, 3); });
  EXPECT_NE(first, second);
  expect_error([&] { x.remove_hook(first); }, {"remove_hook"});
}

TEST(Hooks, MayRemoveThemselves) {
  const Tensor x = leaf({3});
  std::size_t id = 0;
  id = x.register_hook([&](const Tensor& gradient) {
    x.remove_hook(id);
    x.register_hook([](const Tensor& g) { return scale(g, 100); });
    return scale(gradient, 2);
  });
  scale(x, 1).backward();
  expect_values(x.grad(), {1}, {2});
  scale(x, 1).backward();
  expect_values(x.grad(), {1}, {102});
}

TEST(Hooks, AreRefusedOnTensorsWithoutGradient) {
  const Tensor x = tensor<double>({1});
  expect_error([&] { x.register_hook([](const Tensor& g) { return g; }); },
               {"register_hook", "does not require a gradient"});
  expect_error([&] { x.remove_hook(0); }, {"remove_hook", "does not require a gradient"});
  expect_error([&] { x.retain_grad(); }, {"retain_grad", "does not require a gradient"});
}

TEST(Hooks, ThatReturnAnotherShapeOrDtypeAreReported) {
  const Tensor x = leaf({1, 2});
  x.register_hook([](const Tensor&) { return zeros({3}, {.dtype = DType::Float64}); });
  expect_error([&] { sum(x).backward(); }, {"hook", "float64[3]", "float64[2]"});
  const Tensor y = leaf({1, 2});
  y.register_hook([](const Tensor&) { return zeros({2}); });
  expect_error([&] { sum(y).backward(); }, {"hook", "float32[2]", "float64[2]"});
}

TEST(RetainGrad, KeepsTheGradientOfAComputedTensor) {
  const Tensor x = leaf({3});
  const Tensor kept = scale(x, 2).retain_grad();
  const Tensor lost = scale(kept, 5);
  scale(lost, 7).backward({}, true);
  expect_values(kept.grad(), {1}, {35});
  EXPECT_FALSE(lost.grad().defined());
  expect_values(x.grad(), {1}, {70});
}

TEST(RetainGrad, AccumulatesAndIsIndependentOfOtherGradients) {
  const Tensor x = leaf({3});
  const Tensor kept = x.reshape({1, 1}).retain_grad();
  const Tensor y = scale(kept, 4);
  y.backward({}, true);
  y.backward();
  expect_values(kept.grad(), {1, 1}, {8});
  kept.grad().fill_(0);
  expect_values(x.grad(), {1}, {8});
}

TEST(RetainGrad, SeesWhatHooksMadeOfTheGradient) {
  const Tensor x = leaf({3});
  const Tensor y = scale(x, 2);
  y.retain_grad();
  y.register_hook([](const Tensor& g) { return scale(g, 10); });
  y.backward();
  expect_values(y.grad(), {1}, {10});
}

// ---- grad() -------------------------------------------------------------------------------------

TEST(Grad, WithRespectToIntermediatesTouchesNoGradient) {
  const Tensor x = leaf({3});
  const Tensor middle = mul(x, x).retain_grad();
  const Tensor y = mul(middle, scale(x, 2));  // 2x³
  const Tensor inputs[] = {middle, x, y};
  const std::vector<Tensor> gradients = grad({&y, 1}, inputs);
  expect_values(gradients[0], {1}, {6});
  expect_values(gradients[1], {1}, {54});
  expect_values(gradients[2], {1}, {1});
  EXPECT_FALSE(x.grad().defined());
  EXPECT_FALSE(middle.grad().defined());
}

TEST(Grad, RunsOnlyWhatLeadsToTheInputs) {
  const Tensor x = leaf({3});
  const Tensor other = leaf({5});
  int calls = 0;
  const Tensor watched = scale(other, 1);
  watched.register_hook([&](const Tensor&) {
    ++calls;
    return Tensor();
  });
  const Tensor y = mul(mul(x, x), watched);
  expect_values(grad_of(y, x), {1}, {30});
  EXPECT_EQ(calls, 0);
}

TEST(Grad, RunsTheHooksOfLeavesAndOthersAlike) {
  const Tensor x = leaf({3});
  x.register_hook([](const Tensor& g) { return scale(g, 10); });
  expect_values(grad_of(mul(x, x), x), {1}, {60});
  const Tensor middle = scale(x, 2);
  middle.register_hook([](const Tensor& g) { return scale(g, -1); });
  expect_values(grad_of(scale(middle, 5), middle), {1}, {-5});
}

TEST(Grad, OfAnUnusedInputIsUndefinedOnlyWhenAllowed) {
  const Tensor x = leaf({3});
  const Tensor unused = leaf({1, 2});
  const Tensor y = mul(x, x);
  const Tensor inputs[] = {unused, x};
  expect_error(
      [&] {
        grad({&y, 1}, inputs, {}, {.retain_graph = true});
      },
      {"grad", "input 0", "float64[2]", "allow_unused"});
  const std::vector<Tensor> gradients = grad({&y, 1}, inputs, {}, {}, true);
  EXPECT_FALSE(gradients[0].defined());
  expect_values(gradients[1], {1}, {6});
  const Tensor plain = tensor<double>({1});
  expect_error([&] { grad_of(mul(x, x), plain); }, {"grad", "float64[1]", "require a gradient"});
}

TEST(Grad, WeightsTheOutputs) {
  const Tensor x = leaf({1, 2});
  const Tensor outputs[] = {mul(x, x), scale(x, 3)};
  const Tensor weights[] = {tensor<double>({1, 10}), tensor<double>({100, 1000})};
  expect_values(grad(outputs, {&x, 1}, weights)[0], {2}, {302, 3040});
}

TEST(Grad, SecondAndThirdDerivatives) {
  const Tensor x = leaf({3, -2});
  const Tensor fourth_power = mul(mul(x, x), mul(x, x));
  const Tensor first = grad_of(sum(fourth_power), x, {.create_graph = true});
  expect_values(first, {2}, {108, -32});
  const Tensor second = grad_of(sum(first), x, {.create_graph = true});
  expect_values(second, {2}, {108, 48});
  const Tensor third = grad_of(sum(second), x, {.create_graph = true});
  expect_values(third, {2}, {72, -48});
  const Tensor fourth = grad_of(sum(third), x);
  expect_values(fourth, {2}, {24, 24});
  EXPECT_FALSE(fourth.requires_grad());
}

TEST(Grad, SecondDerivativesThroughASavedOutput) {
  const Tensor x = leaf({0.5});
  const Tensor y = test::exp(mul(x, x));
  const Tensor first = grad_of(y, x, {.create_graph = true});
  const Tensor second = grad_of(first, x);
  EXPECT_NEAR(second.item(), (2 + 4 * 0.25) * std::exp(0.25), 1e-14);
}

TEST(Grad, BackwardWithCreateGraphGivesLeavesADifferentiableGradient) {
  const Tensor x = leaf({3});
  mul(mul(x, x), x).backward({}, false, true);
  const Tensor first = x.grad();
  ASSERT_TRUE(first.requires_grad());
  expect_values(first, {1}, {27});
  x.set_grad({});
  first.backward();
  expect_values(x.grad(), {1}, {18});
}

TEST(Grad, ThePenaltyOnAGradientTrainsThroughIt) {
  // loss = (d(x³)/dx)² = 9x⁴, its derivative 36x³.
  const Tensor x = leaf({2});
  const Tensor slope = grad_of(mul(mul(x, x), x), x, {.create_graph = true});
  mul(slope, slope).backward();
  expect_values(x.grad(), {1}, {36 * 8});
}

}  // namespace
}  // namespace tenon
