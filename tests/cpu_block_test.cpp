// The fused block and the plain transposed convolution on the CPU: against float64 on shapes of
// several tiles, and the same bits for every number of threads.
#include <gtest/gtest.h>

#include "fused_block_reference.h"
#include "support/threads.h"
#include "tenon/core/random.h"
#include "tenon/ops/binary.h"

namespace tenon {
namespace {

using test::BlockCase;

/// z, and the gradients of x, weight and bias.
std::vector<Tensor> run(const BlockCase& block, DType dtype) {
  const Device cpu = Device::cpu();
  const Tensor x = test::leaf(block.x, dtype, cpu);
  const Tensor weight = test::leaf(block.weight, dtype, cpu);
  const Tensor bias = test::leaf(block.bias, dtype, cpu);
  const Tensor z = ops::conv_transpose2d_epilogue(x, weight, bias, block.options, block.epilogue);
  z.backward(block.grad_out.to(cpu, dtype));
  std::vector<Tensor> results{z.detach(), x.grad(), weight.grad()};
  if (bias.defined()) results.push_back(bias.grad());
  return results;
}

void expect_the_same_for_all_threads(const BlockCase& block) {
  test::for_all_threads([&] { return run(block, DType::Float32); });
}

class DrawnThreads : public testing::TestWithParam<int> {};

TEST_P(DrawnThreads, DoNotShowInTheResult) {
  const BlockCase block = test::draw_block(static_cast<std::uint64_t>(GetParam()));
  SCOPED_TRACE(testing::PrintToString(block));
  expect_the_same_for_all_threads(block);
}

INSTANTIATE_TEST_SUITE_P(Case, DrawnThreads, testing::Range(1000, 1060));

/// N, Cin, H, W, Cout and the options; several tiles each.
struct LargeCase {
  std::int64_t batch, in_channels, height, width, out_channels;
  Pair kernel;
  ops::ConvTranspose2dOptions options;
};

std::ostream& operator<<(std::ostream& out, const LargeCase& c) {
  return out << c.batch << 'x' << c.in_channels << 'x' << c.height << 'x' << c.width << " to "
             << c.out_channels << ", kernel " << c.kernel.h << 'x' << c.kernel.w;
}

class LargeBlock : public testing::TestWithParam<LargeCase> {
 protected:
  static BlockCase block() {
    const LargeCase& c = GetParam();
    BlockCase block;
    block.options = c.options;
    // Without bounds, on whose other side a value in another precision may lie.
    block.epilogue = {.mish = true, .add = 0.5, .scale = 2};
    block.x = test::normal({c.batch, c.in_channels, c.height, c.width}, DType::Float64, 21);
    block.weight =
        test::normal({c.in_channels, c.out_channels / c.options.groups, c.kernel.h, c.kernel.w},
                     DType::Float64, 22) *
        0.1;
    block.bias = test::normal({c.out_channels}, DType::Float64, 23);
    // Values that float32 holds, so that both precisions start from the same.
    for (Tensor* tensor : {&block.x, &block.weight, &block.bias}) {
      *tensor = tensor->to(DType::Float32).to(DType::Float64);
    }
    const Tensor z = ops::conv_transpose2d_epilogue(block.x, block.weight, block.bias,
                                                    block.options, block.epilogue);
    block.grad_out =
        test::normal(z.shape(), DType::Float64, 24).to(DType::Float32).to(DType::Float64);
    return block;
  }
};

TEST_P(LargeBlock, MatchesFloat64) {
  const BlockCase block = LargeBlock::block();
  const std::vector<Tensor> exact = run(block, DType::Float64);
  const std::vector<Tensor> results = run(block, DType::Float32);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_LE(test::relative_error(results[i].to(DType::Float64), exact[i]), 2e-6);
  }
}

TEST_P(LargeBlock, IsTheSameForAllThreads) { expect_the_same_for_all_threads(LargeBlock::block()); }

INSTANTIATE_TEST_SUITE_P(
    Shape, LargeBlock,
    testing::Values(
        LargeCase{2, 40, 33, 130, 19, {3, 3}, {.stride = 2, .padding = 1, .output_padding = 1}},
        LargeCase{1, 16, 64, 64, 10, {3, 3}, {.stride = 2, .padding = 1, .output_padding = 1}},
        LargeCase{1, 300, 8, 8, 40, {4, 4}, {.stride = 2, .padding = 1}},
        LargeCase{33, 32, 7, 7, 17, {3, 3}, {.stride = 2, .padding = 1, .output_padding = 1}},
        LargeCase{3, 24, 20, 200, 9, {2, 2}, {.stride = 2}},
        LargeCase{2, 12, 40, 96, 6, {5, 3}, {.stride = {3, 1}, .padding = {2, 1}, .groups = 2}},
        LargeCase{1, 700, 3, 300, 5, {3, 5}, {.padding = 1, .dilation = {1, 3}}},
        LargeCase{2, 8, 30, 18, 3, {1, 1}, {.stride = {2, 4}, .output_padding = {1, 3}}},
        LargeCase{64, 64, 1, 1, 24, {4, 4}, {}}));

}  // namespace
}  // namespace tenon
