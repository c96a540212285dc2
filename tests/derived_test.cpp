// Tensors kept beside the one that they were computed from: found again, forgotten in time, freed.
#include "tenon/core/derived.h"

#include <gtest/gtest.h>

#include <thread>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/tensor_body.h"
#include "tenon/graph/graph.h"
#include "tenon/nn/nn.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/devices.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/temporary_directory.h"

namespace tenon {
namespace {

using test::expect_error;

/// Twice a tensor, derived, and how often it was computed.
struct Doubled {
  int made = 0;

  Tensor operator()(const Tensor& source, std::string_view name = "doubled") {
    return derived(source, name, [&] {
      ++made;
      return ops::mul(source, 2);
    });
  }
};

class Derived : public test::DeviceTest {
 protected:
  Tensor source(const Shape& shape = {2, 3}) const { return ones(shape, {.device = device()}); }
  MemoryStats stats() const { return memory_stats(device()); }

  Doubled doubled;
};

TEST_P(Derived, IsComputedOnceAndEqualsWhatMakeGives) {
  const Tensor x = source();
  const Tensor first = doubled(x);
  EXPECT_EQ(first.to_vector<double>(), std::vector<double>(6, 2.0));
  EXPECT_EQ(doubled.made, 1);
  EXPECT_EQ(doubled(x).raw_data(), first.raw_data());
  EXPECT_EQ(doubled(x.detach()).raw_data(), first.raw_data()) << "the same view by another handle";
  EXPECT_EQ(doubled.made, 1);
}

TEST_P(Derived, IsComputedAgainAfterEveryChangeInPlace) {
  const Tensor x = source();
  int expected = 1;
  const auto expect_new = [&](const char* change, double value) {
    EXPECT_EQ(doubled(x).to_vector<double>()[0], value) << change;
    EXPECT_EQ(doubled.made, expected++) << change;
  };
  expect_new("at first", 2);
  x.fill_(2);
  expect_new("fill_", 4);
  x.copy_(full({2, 3}, 3));
  expect_new("copy_", 6);
  x.select(0, 0).fill_(4);
  expect_new("fill_ of a view", 8);
  const float five = 5;
  if (device().is_cpu()) {
    *x.data<float>() = five;
    EXPECT_EQ(doubled(x).to_vector<double>()[0], 8) << "nobody has said so yet";
    x.bump_version();
    expect_new("bump_version", 10);
  }
}

TEST_P(Derived, IsComputedAgainAfterAnOptimizerStep) {
  const Tensor sgd = source().requires_grad_();
  const Tensor momentum = source().requires_grad_();
  const Tensor adam = source().requires_grad_();
  optim::SGD first({sgd}, {.lr = 0.5});
  optim::SGD second({momentum}, {.lr = 0.5, .momentum = 0.9});
  optim::AdamW third({adam}, {.lr = 0.5, .weight_decay = 0});
  for (int step = 0; step < 2; ++step) {
    for (const Tensor& x : {sgd, momentum, adam}) {
      const int made = doubled.made;
      const double before = x.to_vector<double>()[0];
      EXPECT_EQ(doubled(x).to_vector<double>()[0], 2 * before);
      EXPECT_EQ(doubled.made, made + 1);
      x.set_grad(ones({2, 3}, {.device = device()}));
    }
    first.step();
    second.step();
    third.step();
  }
}

TEST_P(Derived, IsComputedAgainAfterInitLoadAndMove) {
  const test::TemporaryDirectory directory;
  const std::string path = directory / "module.safetensors";
  nn::Linear layer(3, 2);
  layer.to(device());
  const Tensor weight = layer.parameters()[0];
  nn::save(layer, path);
  const auto expect_new = [&](const char* change) {
    const int made = doubled.made;
    const double value = weight.to_vector<double>()[0];
    EXPECT_EQ(doubled(weight).to_vector<double>()[0], 2 * value) << change;
    EXPECT_EQ(doubled.made, made + 1) << change;
  };
  expect_new("at first");
  nn::init::constant_(weight, 7);
  expect_new("constant_");
  nn::init::kaiming_uniform_(weight);
  expect_new("kaiming_uniform_");
  nn::init::trunc_normal_(weight);
  expect_new("trunc_normal_");
  nn::load(layer, path);
  expect_new("load");
  layer.to(DType::Float64);
  expect_new("to another dtype");
}

TEST_P(Derived, ViewsNamesAndDtypesDoNotCollide) {
  const Tensor x = tensor(std::vector<double>{1, 2, 3, 4}, {2, 2}).to(DType::Float32).to(device());
  const Tensor row0 = x.select(0, 0);
  const Tensor row1 = x.select(0, 1);
  const Tensor column = x.select(1, 0);
  for (int repeat = 0; repeat < 2; ++repeat) {
    EXPECT_EQ(doubled(row0).to_vector<double>(), (std::vector<double>{2, 4}));
    EXPECT_EQ(doubled(row1).to_vector<double>(), (std::vector<double>{6, 8}));
    EXPECT_EQ(doubled(column).to_vector<double>(), (std::vector<double>{2, 6}));
    EXPECT_EQ(doubled(x.flatten()).to_vector<double>(), (std::vector<double>{2, 4, 6, 8}));
    EXPECT_EQ(derived(row0, "negative", [&] { return ops::neg(row0); }).to_vector<double>(),
              (std::vector<double>{-1, -2}));
  }
  EXPECT_EQ(doubled.made, 4);
}

TEST_P(Derived, IsFreedWithItsSourceAndReplacedWithItsVersion) {
  const MemoryStats before = stats();
  {
    const Tensor x = source({1000});
    doubled(x);
    EXPECT_EQ(stats().in_use, before.in_use + 8000);
    for (int i = 0; i < 5; ++i) {
      x.fill_(i);
      doubled(x);
      EXPECT_EQ(stats().in_use, before.in_use + 8000) << "after change " << i;
    }
  }
  EXPECT_EQ(stats().in_use, before.in_use);
}

TEST_P(Derived, OutlivesItsSourceWhereSomebodyHoldsIt) {
  const MemoryStats before = stats();
  Tensor kept = doubled(source());
  EXPECT_EQ(stats().in_use, before.in_use + 24);
  EXPECT_EQ(kept.to_vector<double>(), std::vector<double>(6, 2.0));
  kept = Tensor();
  EXPECT_EQ(stats().in_use, before.in_use);
}

TEST_P(Derived, KeepsABoundedNumber) {
  const Tensor x = source({100});
  const std::int64_t before = stats().in_use;
  for (int i = 0; i < 100; ++i) doubled(x.select(0, i));
  EXPECT_LE(stats().in_use, before + 8 * 4);
  EXPECT_EQ(doubled(x.select(0, 99)).item<double>(), 2);
  EXPECT_EQ(doubled.made, 100) << "the last one is among those kept";
}

TEST_P(Derived, ResultsInTheSourcesOwnMemoryAreNotKept) {
  const MemoryStats before = stats();
  {
    const Tensor x = source();
    const Tensor view = derived(x, "turned", [&] { return x.transpose(0, 1); });
    EXPECT_EQ(view.raw_data(), x.raw_data());
  }
  EXPECT_EQ(stats().in_use, before.in_use) << "a storage must not own itself";
}

TEST_P(Derived, HasNoHistory) {
  const Tensor x = source().requires_grad_();
  EXPECT_FALSE(doubled(x).requires_grad());
  EXPECT_FALSE(doubled(x).requires_grad());
}

TEST_P(Derived, ThreadsMayAskForTheSame) {
  const Tensor x = source({64});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      Doubled mine;
      for (int i = 0; i < 200; ++i) {
        const Tensor part = x.slice(0, i % 4, 60);
        EXPECT_EQ(mine(part).to_vector<double>(),
                  std::vector<double>(static_cast<std::size_t>(60 - i % 4), 2.0));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TENON_DEVICE_TESTS(Derived);

TEST(DerivedOfOthersMemory, IsComputedEveryTime) {
  std::vector<float> values{1, 2};
  const Tensor x = from_blob(values.data(), {2}, DType::Float32);
  Doubled doubled;
  EXPECT_EQ(doubled(x).to_vector<double>(), (std::vector<double>{2, 4}));
  values[0] = 5;
  EXPECT_EQ(doubled(x).to_vector<double>(), (std::vector<double>{10, 4}));
  EXPECT_EQ(doubled.made, 2);
}

TEST(DerivedOfTracedTensors, IsRecordedAndNotKept) {
  Doubled doubled;
  const auto fast = graph::compile([&](const Tensor& x) { return doubled(x); });
  EXPECT_EQ(fast(ones({2})).to_vector<double>(), (std::vector<double>{2, 2}));
  EXPECT_EQ(fast(full({2}, 3)).to_vector<double>(), (std::vector<double>{6, 6}));
  EXPECT_EQ(doubled.made, 1) << "traced once";
  const Tensor constant = ones({2});
  const auto other = graph::compile([&](const Tensor& x) { return x + doubled(constant); });
  EXPECT_EQ(other(ones({2})).to_vector<double>(), (std::vector<double>{3, 3}));
  constant.fill_(2);
  EXPECT_EQ(other(ones({2})).to_vector<double>(), (std::vector<double>{5, 5}));
}

TEST(Version, CountsChangesAndIsSharedByViews) {
  const Tensor x = zeros({4});
  const std::uint32_t before = x.version();
  x.slice(0, 1, 3).fill_(1);
  EXPECT_EQ(x.version(), before + 1);
  x.bump_version();
  EXPECT_EQ(x.slice(0, 0, 1).version(), before + 2);
  expect_error([] { Tensor().version(); }, {"undefined"});
}

TEST(DerivedCuda, AnotherStreamWaitsForTheOneThatComputes) {
  TENON_SKIP_WITHOUT_GPU();
  const Device gpu = Device::cuda();
  const Tensor x = ones({1 << 24}, {.device = gpu});
  const Stream producer = Stream::create(gpu);
  const Stream consumer = Stream::create(gpu);
  synchronize(gpu);
  const auto slow_half = [&] {
    Tensor y = x;
    for (int i = 0; i < 50; ++i) y = ops::mul(y, -1);
    return ops::mul(y, 0.5);
  };
  {
    const StreamGuard guard(producer);
    derived(x, "half", slow_half);
  }
  const StreamGuard guard(consumer);
  const Tensor half = derived(x, "half", [] { return Tensor(); });
  EXPECT_EQ(ops::sum(half).item<double>(), (1 << 23));
}

}  // namespace
}  // namespace tenon
