// Training on a GPU beside training on the CPU: the same weights at first, the same losses.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "tenon/core/factories.h"
#include "tenon/core/precision.h"
#include "tenon/core/random.h"
#include "tenon/graph/graph.h"
#include "tenon/nn/nn.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/devices.h"

namespace tenon {
namespace {

/// [N, 1, 8, 8] -> 6 numbers -> [N, 1, 8, 8], with the block that compiling fuses.
struct Autoencoder : nn::Module {
  nn::Conv2d down{1, 4, {.kernel = 3, .stride = 2, .padding = 1}};
  nn::Linear code{4 * 4 * 4, 6};
  nn::Linear grow{6, 8 * 2 * 2};
  nn::ConvTranspose2d up1{8, 4, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}};
  nn::ConvTranspose2d up2{4, 1, {.kernel = 4, .stride = 2, .padding = 1}};

  Autoencoder() {
    add("down", down);
    add("code", code);
    add("grow", grow);
    add("up1", up1);
    add("up2", up2);
  }

  Tensor forward(const Tensor& x) override {
    const Tensor z = code(ops::mish(down(x)).flatten(1));
    const Tensor h = grow(z).reshape({-1, 8, 2, 2});
    return ops::sigmoid(up2(ops::hardtanh(ops::mish(up1(h)) + 0.5) * 2.0));
  }
};

constexpr int kSteps = 10;

/// Weights before training, and the loss of every step.
struct Course {
  std::vector<double> initial;
  std::vector<double> losses;
};

Course train(Device device, Float32Precision precision) {
  const Float32PrecisionGuard guard(precision);
  manual_seed(17);
  Autoencoder model;
  model.to(device);
  Course course;
  for (const Tensor& parameter : model.parameters()) {
    for (const double value : parameter.to_vector<double>()) course.initial.push_back(value);
  }
  const graph::CompiledFunction fast = graph::compile(model);
  optim::AdamW optimizer(model.parameters(), {.lr = 5e-3});
  for (int step = 0; step < kSteps; ++step) {
    // Drawn on the device: the numbers are the same everywhere.
    const Tensor x = tenon::rand({16, 1, 8, 8}, {.device = device});
    optimizer.zero_grad();
    const Tensor loss = ops::mse_loss(fast(x), x);
    loss.backward();
    optimizer.step();
    course.losses.push_back(loss.item());
  }
  EXPECT_NE(fast.report().find("1 of 2 blocks fused"), std::string::npos) << fast.report();
  return course;
}

void expect_same_course(const Course& a, const Course& b, double tolerance) {
  EXPECT_EQ(a.initial, b.initial);
  ASSERT_EQ(a.losses.size(), b.losses.size());
  for (std::size_t i = 0; i < a.losses.size(); ++i) {
    EXPECT_NEAR(a.losses[i], b.losses[i], tolerance * b.losses[i]) << "step " << i;
  }
}

class CudaTraining : public testing::Test {
 protected:
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }
};

TEST_F(CudaTraining, StrictLossesAreTheCpusWithinRounding) {
  // Ten steps of AdamW, which divides by the gradient's size, raise the rounding of 6e-8 somewhat.
  expect_same_course(train(Device::cuda(), Float32Precision::Float32),
                     train(Device::cpu(), Float32Precision::Float32), 2e-5);
}

TEST_F(CudaTraining, Tf32LossesStayClose) {
  expect_same_course(train(Device::cuda(), Float32Precision::Tf32),
                     train(Device::cpu(), Float32Precision::Float32), 5e-3);
}

TEST_F(CudaTraining, TwoRunsGiveTheSameBits) {
  for (const Float32Precision precision : {Float32Precision::Float32, Float32Precision::Tf32}) {
    expect_same_course(train(Device::cuda(), precision), train(Device::cuda(), precision), 0);
  }
}

/// [N, 1, 8, 8] -> scores of 3 classes, with the layers that the autoencoder has not.
struct Classifier : nn::Module {
  nn::Conv2d conv{1, 4, {.kernel = 3, .padding = 1}};
  nn::BatchNorm2d norm{4};
  nn::MaxPool2d pool{2};
  nn::Dropout dropout{0.25};
  nn::Linear scores{4 * 4 * 4, 3};

  Classifier() {
    add("conv", conv);
    add("norm", norm);
    add("pool", pool);
    add("dropout", dropout);
    add("scores", scores);
  }

  Tensor forward(const Tensor& x) override {
    return scores(dropout(pool(ops::relu(norm(conv(x)))).flatten(1)));
  }
};

/// Runs `step` on batches that lie on the host, and expects of steps after the first few that the
/// host waits for nothing and that the pool needs no more memory of the driver.
void expect_steps_that_do_not_wait(const std::function<void(const Tensor&)>& step) {
  constexpr int kWarmUp = 3;  // loads kernels, compiles, chooses plans, fills the pool
  const Device gpu = Device::cuda();
  std::int64_t waits = 0;
  std::int64_t reserved = 0;
  for (int i = 0; i < kWarmUp + kSteps; ++i) {
    if (i == kWarmUp) {
      synchronize(gpu);
      waits = wait_count(gpu);
      reserved = memory_stats(gpu).reserved;
    }
    step(tenon::rand({16, 1, 8, 8}));
  }
  EXPECT_EQ(wait_count(gpu), waits);
  EXPECT_EQ(memory_stats(gpu).reserved, reserved);
}

TEST_F(CudaTraining, AStepNeitherWaitsNorAllocatesFusedAndUnfused) {
  for (const bool fuse : {true, false}) {
    SCOPED_TRACE(fuse ? "fused" : "unfused");
    Autoencoder model;
    model.to(Device::cuda());
    const graph::CompiledFunction reconstruct = graph::compile(model, {.fuse = fuse});
    optim::AdamW optimizer(model.parameters(), {.lr = 5e-3});
    optim::OneCycleLR schedule(optimizer, {.max_lr = 5e-3, .total_steps = 100});
    expect_steps_that_do_not_wait([&](const Tensor& batch) {
      const Tensor x = batch.to(Device::cuda());
      const Tensor loss = ops::mse_loss(reconstruct(x), x);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
      schedule.step();
    });
  }
}

TEST_F(CudaTraining, AStepOfAClassifierNeitherWaitsNorAllocates) {
  Classifier model;
  model.to(Device::cuda());
  optim::SGD optimizer(model.parameters(), {.lr = 0.1, .momentum = 0.9});
  expect_steps_that_do_not_wait([&](const Tensor& batch) {
    const Tensor target = randint(0, 3, {batch.size(0)}).to(Device::cuda());
    const Tensor loss = ops::cross_entropy(model(batch.to(Device::cuda())), target);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
  });
}

TEST(Training, TheLossFalls) {
  for (const Device device : test::test_devices()) {
    const Course course = train(device, Float32Precision::Float32);
    EXPECT_LT(course.losses.back(), course.losses.front()) << device;
  }
}

}  // namespace
}  // namespace tenon
