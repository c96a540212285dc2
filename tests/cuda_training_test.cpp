// Training on a GPU beside training on the CPU: the same weights at first, the same losses.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "tenon/core/factories.h"
#include "tenon/core/precision.h"
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

TEST(Training, TheLossFalls) {
  for (const Device device : test::test_devices()) {
    const Course course = train(device, Float32Precision::Float32);
    EXPECT_LT(course.losses.back(), course.losses.front()) << device;
  }
}

}  // namespace
}  // namespace tenon
