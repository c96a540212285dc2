// compile with the modules of nn: what a user trains.
#include <gtest/gtest.h>

#include "graph_models.h"
#include "tenon/nn/nn.h"
#include "tenon/ops/dropout.h"
#include "tenon/ops/loss.h"

namespace tenon::graph {
namespace {

using namespace tenon::graph::testing;  // NOLINT

struct Decoder : nn::Module {
  nn::Linear project{5, 6 * 3 * 3};
  nn::ConvTranspose2d up1{6, 4, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}};
  nn::ConvTranspose2d up2{4, 1, {.kernel = 4, .stride = 2, .padding = 1}};
  Decoder() {
    add("project", project);
    add("up1", up1);
    add("up2", up2);
    to(DType::Float64);
  }
  Tensor forward(const Tensor& z) override {
    Tensor h = project(z).reshape({-1, 6, 3, 3});
    h = ops::hardtanh(ops::mish(up1(h)) + 0.5) * 2.0;
    return ops::sigmoid(up2(h));
  }
};

class CompiledModule : public test::DeviceTest {};

TENON_DEVICE_TESTS(CompiledModule);

TEST_P(CompiledModule, FusesTheBlocksOfADecoder) {
  Decoder decoder;
  decoder.to(device());
  const CompiledFunction fast = compile(decoder);
  const Tensor z = random({2, 5}, 1).to(device());
  EXPECT_LT(distance(fast(z), decoder.forward(z)), 1e-12);
  const std::string text = to_text(fast.graph_after());
  EXPECT_NE(text.find("conv_transpose2d_epilogue("), std::string::npos) << text;
  EXPECT_NE(text.find("%up1.weight, %up1.bias"), std::string::npos) << text;
  EXPECT_NE(fast.report().find("1 of 2 blocks fused"), std::string::npos) << fast.report();
  EXPECT_NE(fast.report().find("not fused  up2: "), std::string::npos) << fast.report();
}

TEST_P(CompiledModule, TrainsToTheSameWeights) {
  std::vector<std::vector<Tensor>> trained;
  for (const bool compiled : {false, true}) {
    manual_seed(5);
    Decoder decoder;
    decoder.to(device());
    const CompiledFunction fast = compile(decoder);
    optim::AdamW optimizer(decoder.parameters(), {.lr = 1e-2});
    const Tensor z = random({4, 5}, 1).to(device());
    const Tensor target = random({4, 1, 12, 12}, 2).to(device());
    for (int step = 0; step < 5; ++step) {
      const Tensor loss = ops::mse_loss(compiled ? fast(z) : decoder.forward(z), target);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
    }
    trained.push_back(decoder.parameters());
    if (compiled) {
      EXPECT_EQ(fast.compilations(), 1u);
    }
  }
  for (std::size_t i = 0; i < trained[0].size(); ++i) {
    EXPECT_LT(distance(trained[0][i].detach(), trained[1][i].detach()), 1e-9) << i;
  }
}

TEST(CompileModule, TracesAgainAfterAConversion) {
  Decoder decoder;
  const CompiledFunction fast = compile(decoder);
  fast(random({2, 5}, 1));
  decoder.to(DType::Float32);
  const Tensor z = random({2, 5}, 1, DType::Float32);
  EXPECT_LT(distance(fast(z), decoder.forward(z)), 1e-6);
}

TEST_P(CompiledModule, UpdatesRunningStatisticsAtEveryCall) {
  nn::BatchNorm2d eager(3);
  eager.to(device());
  nn::BatchNorm2d compiled(3);
  compiled.to(device());
  const CompiledFunction fast = compile(compiled);
  for (std::uint64_t step = 0; step < 3; ++step) {
    const Tensor x = random({4, 3, 5, 5}, step, DType::Float32).to(device());
    EXPECT_LT(distance(fast(x), eager.forward(x)), 1e-6);
  }
  EXPECT_LT(distance(compiled.running_mean, eager.running_mean), 1e-6);
  EXPECT_LT(distance(compiled.running_var, eager.running_var), 1e-6);
  EXPECT_EQ(compiled.num_batches_tracked.item<std::int64_t>(), 3);
  eager.eval();
  compiled.eval();
  const Tensor x = random({4, 3, 5, 5}, 9, DType::Float32).to(device());
  EXPECT_LT(distance(fast(x), eager.forward(x)), 1e-6);
  EXPECT_EQ(compiled.num_batches_tracked.item<std::int64_t>(), 3);
  EXPECT_EQ(fast.compilations(), 2u);
}

TEST_P(CompiledModule, DrawsANewMaskAtEveryCallAndTheEagerOneForASeed) {
  nn::Dropout dropout(0.5);
  const CompiledFunction fast = compile(dropout);
  const Tensor x = ones({64}, {.device = device()});
  manual_seed(3);
  const Tensor first = fast(x);
  const Tensor second = fast(x);
  EXPECT_GT(distance(first, second), 0);
  manual_seed(3);
  EXPECT_EQ(distance(first, dropout.forward(x)), 0);
  dropout.eval();
  EXPECT_EQ(distance(fast(x), x), 0);
}

TEST(CompileModule, DoesNotMergeTwoDropouts) {
  const CompiledFunction fast = compile([](const Tensor& x) {
    const Tensor a = ops::dropout(x, 0.5);
    const Tensor b = ops::dropout(x, 0.5);
    return a - b;
  });
  EXPECT_GT(distance(fast(ones({64})), zeros({64})), 0);
}

TEST(CompileModule, SeesOneLayerSwitchToEvaluation) {
  nn::Sequential model(nn::Dropout(0.5), nn::Linear(4, 4));
  const CompiledFunction fast = compile(model);
  const Tensor x = random({8, 4}, 1, DType::Float32);
  fast(x);
  model[0].eval();
  EXPECT_LT(distance(fast(x), model.forward(x)), 1e-6);
  EXPECT_EQ(fast.compilations(), 2u);
}

TEST(CompileModule, StoresASequentialGivenAsATemporary) {
  const CompiledFunction fast = compile(nn::Sequential(nn::Linear(4, 3), nn::Tanh()));
  EXPECT_EQ(fast(random({2, 4}, 1, DType::Float32)).shape(), (Shape{2, 3}));
  EXPECT_NE(to_text(fast.graph_after()).find("%0.weight"), std::string::npos);
}

}  // namespace
}  // namespace tenon::graph
