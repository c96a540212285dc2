// Steps that a GPU replays beside the same steps run op by op: the same bits in everything, and an
// error where a replay could not do what the work does.
#include "tenon/core/captured_step.h"

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <vector>

#include "compare.h"
#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/random.h"
#include "tenon/graph/graph.h"
#include "tenon/nn/nn.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/devices.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::expect_error;
using test::expect_same_bits;

constexpr int kSteps = 12;

/// [N, 3, 9, 9] -> scores of 4 classes: random numbers, and buffers that a step changes.
struct Classifier : nn::Module {
  nn::Conv2d conv{3, 5, {.kernel = 3, .padding = 1}};
  nn::BatchNorm2d norm{5};
  nn::ConvTranspose2d up{5, 6, {.kernel = 4, .stride = 2, .padding = 1}};
  nn::MaxPool2d pool{3};
  nn::Dropout dropout{0.25};
  nn::Linear scores{6 * 6 * 6, 4};

  Classifier() {
    add("conv", conv);
    add("norm", norm);
    add("up", up);
    add("pool", pool);
    add("dropout", dropout);
    add("scores", scores);
  }

  Tensor forward(const Tensor& x) override {
    const Tensor h = up(ops::relu(norm(conv(x))));
    const Tensor block = ops::hardtanh(ops::mish(h) + 0.5) * 2.0;
    return scores(dropout(pool(block)).flatten(1));
  }
};

/// How a step of training is run.
using Runner = std::function<void()>;
using MakeRunner = std::function<Runner(const std::function<void()>& work)>;

Runner run_directly(const std::function<void()>& work) { return work; }

class CapturedStepTest : public test::DeviceTest {
 protected:
  /// Losses, weights, buffers and gradients of a training.
  std::vector<Tensor> train(const MakeRunner& make, bool compiled) const {
    manual_seed(7);
    Classifier model;
    model.to(device());
    const graph::CompiledFunction fast = graph::compile(model);
    optim::AdamW optimizer(model.parameters(), {.lr = 1e-2});
    optim::OneCycleLR schedule(optimizer, {.max_lr = 1e-2, .total_steps = kSteps});
    const Tensor x = empty({6, 3, 9, 9}, {.device = device()});
    const Tensor target = empty({6}, {.dtype = DType::Int64, .device = device()});
    Tensor loss;
    const Runner step = make([&] {
      loss = ops::cross_entropy(compiled ? fast(x) : model(x), target);
      optimizer.zero_grad();
      loss.backward();
    });
    std::vector<Tensor> course;
    for (int i = 0; i < kSteps; ++i) {
      x.copy_(tenon::randn({6, 3, 9, 9}));
      target.copy_(randint(0, 4, {6}));
      step();
      optimizer.step();
      schedule.step();
      course.push_back(loss.detach().clone());
    }
    for (const auto& [name, tensor] : model.state_dict()) course.push_back(tensor.detach().clone());
    for (const Tensor& parameter : model.parameters()) course.push_back(parameter.grad().clone());
    return course;
  }

  Tensor numbers(const Shape& shape, std::uint64_t seed) const {
    return test::normal(shape, DType::Float32, seed).to(device());
  }

  /// Runs work by `step`, which it makes.
  MakeRunner captured(std::optional<CapturedStep>& step) const {
    return [this, &step](const std::function<void()>& work) -> Runner {
      step.emplace(device(), work);
      return [&step] { (*step)(); };
    };
  }

  std::int64_t replays_of(int calls) const {
    return device().is_cuda() ? calls - CapturedStep::kWarmUps : 0;
  }
};

TEST_P(CapturedStepTest, TrainsToTheSameBits) {
  for (const bool compiled : {false, true}) {
    SCOPED_TRACE(compiled ? "compiled" : "eager");
    const std::vector<Tensor> expected = train(run_directly, compiled);
    std::optional<CapturedStep> step;
    const std::vector<Tensor> found = train(captured(step), compiled);
    EXPECT_EQ(step->replays(), replays_of(kSteps));
    EXPECT_EQ(step->node_count() > 10, device().is_cuda());
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      SCOPED_TRACE(i);
      expect_same_bits(found[i], expected[i]);
    }
  }
}

TEST_P(CapturedStepTest, RandomNumbersGoOnWhereTheWorkWouldHaveLeftThem) {
  const auto draw = [&](const MakeRunner& make) {
    manual_seed(11);
    Tensor y;
    const Tensor x = ones({37}, {.device = device()});
    const Runner step =
        make([&] { y = ops::dropout(x, 0.5, true) + tenon::rand({37}, {.device = device()}); });
    std::vector<Tensor> drawn;
    for (int i = 0; i < 8; ++i) {
      if (i == 6) manual_seed(12);
      step();
      drawn.push_back(y.clone());
      drawn.push_back(tenon::rand({5}));
    }
    return drawn;
  };
  std::optional<CapturedStep> step;
  const std::vector<Tensor> expected = draw(run_directly);
  const std::vector<Tensor> found = draw(captured(step));
  for (std::size_t i = 0; i < found.size(); ++i) {
    SCOPED_TRACE(i);
    expect_same_bits(found[i], expected[i]);
  }
}

/// Gradients cleared before some calls, and by the work itself or not.
TEST_P(CapturedStepTest, GradientsAreClearedAndAddedToAsByTheWork) {
  const auto gradients = [&](const MakeRunner& make, bool inside, int period) {
    const Tensor w = numbers({5, 7}, 1);
    w.requires_grad_();
    const Tensor x = numbers({5, 7}, 2);
    const Runner step = make([&] {
      if (inside) w.set_grad({});
      ops::sum(ops::mul(ops::mul(w, w), x)).backward();
    });
    std::vector<Tensor> course;
    for (int i = 0; i < 9; ++i) {
      x.copy_(numbers({5, 7}, static_cast<std::uint64_t>(3 + i)));
      if (period > 0 && i % period == 0) w.set_grad({});
      step();
      course.push_back(w.grad().clone());
    }
    return course;
  };
  for (const bool inside : {false, true}) {
    for (const int period : {0, 1, 2, 3}) {
      SCOPED_TRACE(testing::Message() << "cleared inside: " << inside << ", period " << period);
      std::optional<CapturedStep> step;
      const std::vector<Tensor> expected = gradients(run_directly, inside, period);
      const std::vector<Tensor> found = gradients(captured(step), inside, period);
      for (std::size_t i = 0; i < found.size(); ++i) {
        SCOPED_TRACE(i);
        expect_same_bits(found[i], expected[i]);
      }
      if (inside || period < 2) {
        EXPECT_EQ(step->replays(), replays_of(9));
      }
    }
  }
}

TEST_P(CapturedStepTest, AParameterThatMovedIsSeen) {
  const Tensor w = numbers({4}, 1);
  w.requires_grad_();
  CapturedStep step(device(), [&] {
    w.set_grad({});
    ops::sum(ops::mul(w, w)).backward();
  });
  for (int i = 0; i < 4; ++i) step();
  const std::int64_t replays = step.replays();
  w.set_data(numbers({4}, 2));
  step();
  expect_same_bits(w.grad(), ops::mul(w.detach(), 2));
  EXPECT_EQ(step.replays(), replays);
}

TEST_P(CapturedStepTest, WhatItChangesHasNewVersions) {
  const Tensor source = numbers({8, 4, 3, 3}, 1);
  const Tensor weight = empty_like(source);
  const Tensor x = numbers({2, 4, 9, 9}, 2);
  Tensor twice;
  CapturedStep step(device(), [&] {
    weight.copy_(source);
    twice = ops::mul(source, 2);
  });
  for (int i = 0; i < 6; ++i) {
    source.copy_(numbers({8, 4, 3, 3}, static_cast<std::uint64_t>(10 + i)));
    const std::uint32_t version = weight.version();
    const std::uint32_t before = twice.defined() ? twice.version() : 0;
    step();
    EXPECT_NE(weight.version(), version);
    if (step.replays() > 1) {
      EXPECT_NE(twice.version(), before);
    }
    // A convolution keeps weights in the order that its kernel wants.
    expect_same_bits(ops::conv2d(x, weight), ops::conv2d(x, source.clone()));
    expect_same_bits(twice, ops::mul(source, 2));
  }
}

TEST_P(CapturedStepTest, WeightsThatChangeOutsideAreReadAnew) {
  const Tensor weight = numbers({8, 4, 3, 3}, 1);
  const Tensor x = numbers({2, 4, 9, 9}, 2);
  Tensor y;
  CapturedStep step(device(), [&] { y = ops::conv2d(x, weight); });
  for (int i = 0; i < 6; ++i) {
    // Not before the call that records: what was derived from the weights is still good there.
    if (i > CapturedStep::kWarmUps) {
      weight.copy_(numbers({8, 4, 3, 3}, static_cast<std::uint64_t>(10 + i)));
    }
    step();
    expect_same_bits(y, ops::conv2d(x, weight.clone()));
  }
}

TEST_P(CapturedStepTest, RunsOnAnotherStreamAndInsideAnotherStep) {
  const Tensor x = numbers({33}, 1);
  Tensor y;
  Tensor z;
  CapturedStep inner(device(), [&] { y = ops::mul(x, 3); });
  CapturedStep outer(device(), [&] {
    inner();
    z = ops::add(y, x);
  });
  const Stream side = Stream::create(device());
  for (int i = 0; i < 6; ++i) {
    x.copy_(numbers({33}, static_cast<std::uint64_t>(20 + i)));
    synchronize(device());
    const StreamGuard guard(i % 2 == 0 ? side : Stream::current(device()));
    outer();
    synchronize(device());
    expect_same_bits(z, ops::add(ops::mul(x, 3), x));
  }
  EXPECT_EQ(outer.replays(), replays_of(6));
}

TEST_P(CapturedStepTest, ItsMemoryComesBack) {
  const std::int64_t before = memory_stats(device()).in_use;
  {
    Tensor y;
    {
      const Tensor x = numbers({1000, 1000}, 1);
      CapturedStep step(device(), [&] { y = ops::mul(ops::add(x, 1), 2); });
      for (int i = 0; i < 5; ++i) step();
      expect_same_bits(y, ops::mul(ops::add(x, 1), 2));
    }
    // The result outlives the step.
    EXPECT_EQ(y.size(0), 1000);
    EXPECT_GE(memory_stats(device()).in_use, before + 4'000'000);
    EXPECT_EQ(y.clone().shape(), y.shape());
  }
  synchronize(device());
  EXPECT_EQ(memory_stats(device()).in_use, before);
}

TEST_P(CapturedStepTest, MemoryFreedInsideServesAgain) {
  const Tensor x = numbers({512, 1024}, 1);  // 2 MB
  Tensor y;
  CapturedStep step(device(), [&] {
    y = x;
    for (int i = 0; i < 20; ++i) y = ops::mul(y, 1.5);
  });
  const std::int64_t before = memory_stats(device()).in_use;
  for (int i = 0; i < 4; ++i) step();
  EXPECT_LE(memory_stats(device()).in_use, before + 4 * x.numel() * 4);
  Tensor expected = x;
  for (int i = 0; i < 20; ++i) expected = ops::mul(expected, 1.5);
  expect_same_bits(y, expected);
}

TEST_P(CapturedStepTest, WorkThatThrowsDoesNotEndIt) {
  const Tensor x = numbers({3}, 1);
  Tensor y;
  bool fails = true;
  CapturedStep step(device(), [&] {
    y = ops::mul(x, 2);
    TENON_CHECK(!fails, "the work failed");
  });
  for (int i = 0; i < 5; ++i) {
    fails = i == 1 || i == 3;  // while warming up, and where it would be recorded
    if (fails) {
      expect_error([&] { step(); }, {"the work failed"});
    } else {
      step();
      expect_same_bits(y, ops::mul(x, 2));
    }
  }
  EXPECT_EQ(step.replays(), device().is_cuda() ? 1 : 0);
}

TEST(CapturedStep, NeedsWork) {
  expect_error([] { CapturedStep(Device::cpu(), nullptr); }, {"CapturedStep", "empty"});
}

// ---- what only a GPU can refuse -----------------------------------------------------------------

class CapturedStepOnGpu : public testing::Test {
 protected:
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }

  /// `work` runs, but cannot be recorded, for a reason that has these words; then other work can.
  void expect_refused(const std::function<void()>& work, const std::vector<std::string>& words) {
    bool other = false;
    Tensor y;
    CapturedStep step(gpu, [&] {
      y = ops::mul(x, 2);
      if (!other) work();
    });
    for (int i = 0; i < CapturedStep::kWarmUps; ++i) step();
    expect_error([&] { step(); }, words);
    EXPECT_EQ(step.node_count(), 0);
    other = true;
    step();
    EXPECT_EQ(step.replays(), 1);
    expect_same_bits(y, ops::mul(x, 2));
  }

  const Device gpu = cuda_device_count() > 0 ? Device::cuda() : Device::cpu();
  const Tensor x = cuda_device_count() > 0 ? ones({7}, {.device = gpu}) : Tensor();
};

TEST_F(CapturedStepOnGpu, RefusesWhatAReplayCannotDo) {
  expect_refused([&] { (void)ops::sum(x).item(); }, {"copy between devices", "after the step"});
  expect_refused([&] { (void)x.to(Device::cpu()); }, {"copy between devices", "CapturedStep"});
  expect_refused([&] { x.copy_(ones({7})); }, {"copy between devices", "before or after"});
  expect_refused([&] { synchronize(gpu); }, {"waiting for the device"});
  expect_refused([&] { (void)ops::add(ones({2}), 1); }, {"add", "cpu", "move it out"});
  expect_refused([&] { Event(gpu).record(); }, {"Event::record"});
  Generator own(3);
  expect_refused([&] { uniform_(x, 1, 1, own); }, {"random numbers", "default generator"});
  expect_refused([&] { uniform_(empty({3}), 0, 1); }, {"random numbers", "own device"});
  expect_refused([&] { manual_seed(3); }, {"manual_seed", "outside"});
  const Tensor w = zeros({7}, {.device = gpu});
  w.requires_grad_();
  w.set_grad(zeros_like(x));
  optim::AdamW adam({w}, {});
  optim::SGD sgd({w}, {});
  expect_refused([&] { adam.step(); }, {"adam_step", "outside"});
  expect_refused([&] { sgd.step(); }, {"sgd_step", "outside"});
}

TEST_F(CapturedStepOnGpu, ReadsTheTensorsThatItRecorded) {
  Tensor input = ones({7}, {.device = gpu});
  Tensor y;
  CapturedStep step(gpu, [&] { y = ops::mul(input, 2); });
  for (int i = 0; i < 4; ++i) step();
  input = zeros({7}, {.device = gpu});  // the handle; the ones are kept
  const Tensor others = full({7}, 5, {.device = gpu});
  step();
  expect_same_bits(y, full({7}, 2, {.device = gpu}));
}

TEST_F(CapturedStepOnGpu, ReplaysNeitherWaitNorAllocate) {
  Classifier model;
  model.to(gpu);
  optim::SGD optimizer(model.parameters(), {.lr = 0.1, .momentum = 0.9});
  const Tensor images = empty({6, 3, 9, 9}, {.device = gpu});
  Tensor loss;
  CapturedStep step(gpu, [&] {
    loss = ops::mse_loss(model(images), zeros({6, 4}, {.device = gpu}));
    optimizer.zero_grad();
    loss.backward();
  });
  MemoryStats memory;
  std::int64_t waits = 0;
  for (int i = 0; i < 10; ++i) {
    if (i == 4) {
      synchronize(gpu);
      waits = wait_count(gpu);
      memory = memory_stats(gpu);
    }
    images.copy_(tenon::rand({6, 3, 9, 9}));
    step();
    optimizer.step();
  }
  EXPECT_EQ(wait_count(gpu), waits);
  EXPECT_EQ(memory_stats(gpu).reserved, memory.reserved);
  EXPECT_EQ(memory_stats(gpu).in_use, memory.in_use);
}

TENON_DEVICE_TESTS(CapturedStepTest);

}  // namespace
}  // namespace tenon
