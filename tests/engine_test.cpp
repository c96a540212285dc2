// How the engine works inside: long chains, order, memory, saved tensors, failures, threads.
#include <gtest/gtest.h>

#include <thread>

#include "tenon/core/autograd.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/test_ops.h"

namespace tenon {
namespace {

using test::CustomBackwardOp;
using test::expect_error;
using test::expect_values;
using test::mul;
using test::scale;
using test::sum;

Tensor leaf(std::initializer_list<double> values) {
  return tensor<double>(values).requires_grad_();
}

std::int64_t bytes_in_use() { return memory_stats(Device::cpu()).in_use; }

// ---- long histories -----------------------------------------------------------------------------

constexpr int kLong = 200000;
constexpr int kQuiteLong = 50000;  // deep enough to overflow the stack of a recursive engine

TEST(LongChain, ForwardBackwardAndDestructionDoNotRecurse) {
  const Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < kLong; ++i) y = accumulate(y, x);
  EXPECT_EQ(y.item(), kLong + 1);
  y.backward();
  EXPECT_EQ(x.grad().item(), kLong + 1);
}

TEST(LongChain, IsDestroyedWithoutABackward) {
  const std::int64_t before = bytes_in_use();
  {
    const Tensor x = leaf({1});
    Tensor y = x;
    for (int i = 0; i < kLong; ++i) y = mul(y, x);
    EXPECT_GT(bytes_in_use() - before, kLong * 8);
  }
  EXPECT_EQ(bytes_in_use(), before);
}

TEST(LongChain, OfSavedOutputsIsDestroyedAndDifferentiated) {
  const Tensor x = leaf({0});
  Tensor y = x;
  for (int i = 0; i < kQuiteLong; ++i) y = scale(test::exp(y), 0);  // stays 0, saves e^0 each time
  y.backward();
  EXPECT_EQ(x.grad().item(), 0);
}

TEST(LongChain, HasASecondDerivative) {
  const Tensor x = leaf({2});
  Tensor y = mul(x, x);
  for (int i = 0; i < kQuiteLong; ++i) y = scale(y, 1);
  const Tensor first = grad({&y, 1}, {&x, 1}, {}, {.create_graph = true})[0];
  EXPECT_EQ(grad({&first, 1}, {&x, 1})[0].item(), 2);
}

TEST(LongChain, ADeepStackOfDiamondsRunsEachNodeOnce) {
  const Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < 50; ++i) y = accumulate(y, y);  // 2^50 paths
  y.backward();
  EXPECT_EQ(x.grad().item(), std::ldexp(1, 50));
}

// ---- determinism --------------------------------------------------------------------------------

TEST(Engine, AddsGradientsInAFixedOrder) {
  // In float32 the sum of these depends on the order: it must be the same in every run.
  std::vector<float> results;
  for (int run = 0; run < 5; ++run) {
    const Tensor x = full({}, 1, {.requires_grad = true});
    Tensor total = scale(x, 0);
    for (int i = 0; i < 200; ++i) total = accumulate(total, scale(x, 1.0 / (1 + i * i % 37)));
    total.backward();
    results.push_back(x.grad().item<float>());
  }
  for (float result : results) EXPECT_EQ(result, results[0]);
}

TEST(Engine, ANodeRunsOnlyAfterAllItsGradientsArrived) {
  const Tensor x = leaf({1});
  int runs = 0;
  const Tensor shared =
      apply(CustomBackwardOp([&](const BackwardContext&, std::span<const Tensor> gradients) {
              ++runs;
              EXPECT_EQ(gradients[0].item(), 1 + 2 * 3 + 5);
              return std::vector<Tensor>{gradients[0]};
            }),
            {x});
  // Paths of different lengths to the same node.
  const Tensor longer = scale(scale(shared, 3), 2);
  const Tensor y = accumulate(accumulate(shared, longer), scale(shared, 5));
  y.backward();
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(x.grad().item(), 12);
}

// ---- several outputs, undefined gradients -------------------------------------------------------

TEST(MultipleOutputs, UnusedOnesCountAsZero) {
  const Tensor x = leaf({3});
  test::powers(x)[0].backward();
  expect_values(x.grad(), {1}, {6});
  x.set_grad({});
  test::powers(x)[1].backward();
  expect_values(x.grad(), {1}, {27});
}

TEST(MultipleOutputs, AllContribute) {
  const Tensor x = leaf({3});
  const std::vector<Tensor> outputs = test::powers(x);
  mul(outputs[0], outputs[1]).backward();  // x⁵
  expect_values(x.grad(), {1}, {5 * 81});
}

TEST(MultipleOutputs, HaveHooksAndRetainedGradientsOfTheirOwn) {
  const Tensor x = leaf({3});
  const std::vector<Tensor> outputs = test::powers(x);
  outputs[0].register_hook([](const Tensor& g) { return scale(g, 0); });
  outputs[1].retain_grad();
  mul(outputs[0], outputs[1]).backward();
  expect_values(outputs[1].grad(), {1}, {9});
  EXPECT_FALSE(outputs[0].grad().defined());
  expect_values(x.grad(), {1}, {27 * 9});
}

TEST(UndefinedGradients, AreNotSentOn) {
  const Tensor x = leaf({3});
  const Tensor blocked =
      apply(CustomBackwardOp([](const BackwardContext&, std::span<const Tensor>) {
              return std::vector<Tensor>{Tensor()};
            }),
            {x});
  accumulate(blocked, scale(x, 2)).backward();
  expect_values(x.grad(), {1}, {2});
  x.set_grad({});
  apply(CustomBackwardOp([](const BackwardContext&, std::span<const Tensor>) {
          return std::vector<Tensor>{Tensor()};
        }),
        {x})
      .backward();
  EXPECT_FALSE(x.grad().defined());
}

TEST(NeedsGrad, TellsAnOpWhichGradientsAreWanted) {
  const Tensor x = leaf({3});
  const Tensor constant = tensor<double>({4});
  struct Recorder : test::MulOp {
    std::vector<bool>* wanted;
    std::vector<Tensor> backward(const BackwardContext& context,
                                 std::span<const Tensor> gradients) const override {
      EXPECT_EQ(context.input_count(), 2u);
      EXPECT_EQ(context.input_spec(1).shape, Shape{1});
      *wanted = {context.needs_grad(0), context.needs_grad(1)};
      return MulOp::backward(context, gradients);
    }
  };
  std::vector<bool> wanted;
  Recorder op;
  op.wanted = &wanted;
  apply(op, {x, constant}).backward();
  EXPECT_EQ(wanted, (std::vector<bool>{true, false}));
  const Tensor z = leaf({5});
  const Tensor y = apply(op, {x, z});
  grad({&y, 1}, {&z, 1});
  EXPECT_EQ(wanted, (std::vector<bool>{false, true})) << "grad() wants only what leads to z";
}

// ---- saved tensors ------------------------------------------------------------------------------

TEST(SavedTensors, ChangedInPlaceAreReportedByOpInputAndVersion) {
  const Tensor x = leaf({3});
  const Tensor constant = tensor<double>({4});
  const Tensor y = mul(x, constant);
  constant.fill_(5);
  expect_error([&] { y.backward(); },
               {"input 1 of 'test_mul'", "float64[1]", "changed in place", "clone()"});
  EXPECT_FALSE(x.grad().defined());
}

TEST(SavedTensors, ChangedThroughAViewAreReportedToo) {
  const Tensor x = leaf({1, 2});
  const Tensor constant = tensor<double>({4, 5});
  const Tensor y = mul(x, constant);
  constant.slice(0, 1).fill_(0);
  expect_error([&] { sum(y).backward(); }, {"input 1 of 'test_mul'"});
}

TEST(SavedTensors, ALeafChangedUnderNoGradIsReported) {
  const Tensor x = leaf({3});
  const Tensor y = mul(x, x);
  {
    const NoGradGuard guard;
    x.fill_(4);
  }
  expect_error([&] { y.backward(); }, {"'test_mul'", "changed in place"});
}

TEST(SavedTensors, AFailureAfterTheFirstGradientWasMadeIsCleanedUp) {
  const Tensor x = leaf({3});
  const Tensor z = leaf({4});
  const std::int64_t before = bytes_in_use();
  {
    const Tensor y = mul(x, z);
    const NoGradGuard guard;
    x.fill_(5);  // only the gradient of z, the second one, needs x
    expect_error([&] { y.backward(); }, {"input 0 of 'test_mul'", "changed in place"});
  }
  EXPECT_EQ(bytes_in_use(), before);
  EXPECT_FALSE(x.grad().defined() || z.grad().defined());
}

TEST(SavedTensors, SavedOutputsAreCheckedAsWell) {
  const Tensor x = leaf({3});
  const Tensor y = test::exp(x);
  y.detach().fill_(1);
  expect_error([&] { y.backward(); }, {"output 0 of 'test_exp'", "changed in place"});
}

TEST(SavedTensors, AreOnlyThoseTheOpAskedFor) {
  const Tensor x = leaf({3});
  const Tensor constant = tensor<double>({4});
  const Tensor y = mul(x, constant);  // the gradient of x needs `constant` but not x
  {
    const NoGradGuard guard;
    x.fill_(100);
  }
  y.backward();
  expect_values(x.grad(), {1}, {4});
}

TEST(SavedTensors, ThatTheOpDidNotAskForAreRefused) {
  const Tensor x = leaf({3});
  const auto reads = [](std::function<Tensor(const BackwardContext&)> read) {
    return CustomBackwardOp([read](const BackwardContext& context, std::span<const Tensor>) {
      return std::vector<Tensor>{read(context)};
    });
  };
  const Tensor input = apply(reads([](const BackwardContext& c) { return c.input(0); }), {x});
  expect_error([&] { input.backward(); }, {"'test_custom'", "did not save its input 0"});
  const Tensor output = apply(reads([](const BackwardContext& c) { return c.output(0); }), {x});
  expect_error([&] { output.backward(); }, {"'test_custom'", "did not save its output 0"});
}

TEST(SavedTensors, AreFreedAsSoonAsTheyAreSpent) {
  constexpr std::int64_t kBytes = 80000;
  constexpr int kSteps = 10;
  const Tensor x = zeros({kBytes / 8}, {.dtype = DType::Float64, .requires_grad = true});
  std::vector<std::int64_t> in_use;
  Tensor y = x;
  for (int i = 0; i < kSteps; ++i) {
    y = test::exp(scale(y, 0));
    y.register_hook([&](const Tensor&) {
      in_use.push_back(bytes_in_use());
      return Tensor();
    });
  }
  y = sum(y);
  y.backward();
  ASSERT_EQ(in_use.size(), static_cast<std::size_t>(kSteps));
  for (std::size_t i = 1; i + 1 < in_use.size(); ++i) {
    EXPECT_EQ(in_use[i] - in_use[i + 1], kBytes) << "each step frees the output it had saved";
  }
}

TEST(SavedTensors, AreKeptByRetainGraph) {
  const Tensor x = zeros({1000}, {.dtype = DType::Float64, .requires_grad = true});
  const Tensor y = sum(test::exp(x));
  const std::int64_t before = bytes_in_use();
  y.backward({}, true);
  EXPECT_EQ(bytes_in_use() - before, 8000) << "only the gradient is new";
  y.backward();
  EXPECT_EQ(bytes_in_use() - before, 0) << "the saved output went, the gradient stays";
}

TEST(SavedTensors, NothingLeaksWithHooksRetainedGradientsAndSecondDerivatives) {
  const std::int64_t before = bytes_in_use();
  {
    const Tensor x = leaf({1, 2, 3});
    const Tensor y = test::exp(mul(x, x)).retain_grad();
    y.register_hook([](const Tensor& g) { return scale(g, 2); });
    const Tensor total = sum(y);
    const Tensor first = grad({&total, 1}, {&x, 1}, {}, {.create_graph = true})[0];
    sum(first).backward();
  }
  EXPECT_EQ(bytes_in_use(), before);
}

TEST(SavedTensors, AreNotKeptUnderNoGrad) {
  const Tensor x = leaf({1, 2, 3});
  const NoGradGuard guard;
  const std::int64_t before = bytes_in_use();
  test::exp(mul(x, x));
  EXPECT_EQ(bytes_in_use(), before);
}

// ---- failures -----------------------------------------------------------------------------------

TEST(Failure, InsideAnOpsBackwardLeavesTheEngineUsable) {
  const Tensor x = leaf({3});
  const Tensor broken = apply(
      CustomBackwardOp([](const BackwardContext&, std::span<const Tensor>) -> std::vector<Tensor> {
        throw std::runtime_error("the op's own failure");
      }),
      {x});
  const Tensor y = mul(broken, x);
  EXPECT_THROW(y.backward(), std::runtime_error);
  EXPECT_TRUE(grad_enabled());
  mul(x, x).backward();
  expect_values(x.grad(), {1}, {6});
}

TEST(Failure, InsideAHookLeavesTheEngineUsable) {
  const Tensor x = leaf({3});
  const Tensor y = mul(x, x);
  const std::size_t id = y.register_hook(
      [](const Tensor&) -> Tensor { throw std::runtime_error("the hook's own failure"); });
  EXPECT_THROW(y.backward(), std::runtime_error);
  EXPECT_TRUE(grad_enabled());
  EXPECT_FALSE(x.grad().defined());
  y.remove_hook(id);
  y.backward();
  expect_values(x.grad(), {1}, {6});
}

TEST(Failure, AWrongNumberOrShapeOfGradientsIsReported) {
  const Tensor x = leaf({3});
  const auto returning = [&](std::vector<Tensor> gradients) {
    return apply(CustomBackwardOp([gradients](const BackwardContext&, std::span<const Tensor>) {
                   return gradients;
                 }),
                 {x});
  };
  expect_error([&] { returning({}).backward(); },
               {"'test_custom' returned 0 gradients for 1 inputs"});
  expect_error([&] { returning({zeros({2}, {.dtype = DType::Float64})}).backward(); },
               {"'test_custom'", "float64[2]", "input 0", "float64[1]"});
  expect_error([&] { returning({zeros({1})}).backward(); }, {"'test_custom'", "float32[1]"});
}

TEST(Failure, AnOpWithoutBackwardSaysSo) {
  struct ForwardOnly : test::ScaleOp {
    ForwardOnly() : ScaleOp(1) {}
    std::string_view name() const override { return "forward_only"; }
    std::vector<Tensor> backward(const BackwardContext& context,
                                 std::span<const Tensor> gradients) const override {
      return Op::backward(context, gradients);
    }
  };
  const Tensor y = apply(ForwardOnly(), {leaf({3})});
  expect_error([&] { y.backward(); }, {"forward_only", "no backward"});
}

TEST(Failure, UndefinedInputsOfAnOpAreReported) {
  expect_error([] { mul(tensor<double>({1}), Tensor()); },
               {"test_mul", "input 1 is an undefined tensor"});
}

// ---- backward from within, and from several threads ---------------------------------------------

TEST(Reentrancy, AHookMayRunABackwardOfItsOwn) {
  const Tensor x = leaf({3});
  const Tensor inner = leaf({5});
  const Tensor y = mul(x, x);
  y.register_hook([&](const Tensor&) {
    const GradModeGuard recording(true);
    mul(inner, inner).backward();
    return Tensor();
  });
  y.backward();
  expect_values(x.grad(), {1}, {6});
  expect_values(inner.grad(), {1}, {10});
}

TEST(Threads, SeparateGraphsRunAtOnce) {
  std::vector<double> results(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < results.size(); ++t) {
    threads.emplace_back([t, &results] {
      for (int round = 0; round < 20; ++round) {
        const Tensor x = leaf({1.0 + static_cast<double>(t), 2});
        Tensor y = x;
        for (int i = 0; i < 50; ++i) y = accumulate(y, mul(x, x));
        sum(y).backward();
        results[t] = x.grad().to_vector<double>()[0];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t t = 0; t < results.size(); ++t) {
    EXPECT_EQ(results[t], 1 + 50 * 2 * (1.0 + static_cast<double>(t)));
  }
}

TEST(Threads, MayShareConstantsAndForwardHistories) {
  const Tensor constant = tensor<double>({2, 3});
  std::vector<std::thread> threads;
  std::vector<std::vector<double>> results(4);
  for (std::size_t t = 0; t < results.size(); ++t) {
    threads.emplace_back([&, t] {
      const Tensor x = leaf({1, 1});
      sum(mul(mul(x, constant), constant)).backward();
      results[t] = x.grad().to_vector<double>();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, (std::vector<double>{4, 9}));
}

TEST(Threads, AHistoryMadeByOneThreadIsDestroyedByAnother) {
  const Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < kQuiteLong; ++i) y = scale(y, 1);
  std::thread([y = std::move(y)]() mutable {
    y.backward();
    y = Tensor();
  }).join();
  EXPECT_EQ(x.grad().item(), 1);
}

}  // namespace
}  // namespace tenon
