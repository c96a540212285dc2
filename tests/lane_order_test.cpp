// Results that stay side by side in vectors between kernels: the same bits as when every op sees
// them in the order of the tensor, whoever reads or writes them in between.
#include "tenon/ops/cpu/batched/lane_order.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "compare.h"
#include "support/threads.h"
#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/structural.h"
#include "tenon/ops/activation.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/batched/convolution.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon {
namespace {

using ops::cpu::in_lanes;
using test::normal;

constexpr std::int64_t kBatch = 32;  // whole vectors of 4, 8 or 16
const ops::ConvTranspose2dOptions kUp{.stride = 2, .padding = 1, .output_padding = 1};

struct Weights {
  Tensor down = normal({5, 3, 3, 3}, DType::Float32, 2);
  Tensor up = normal({5, 8, 3, 3}, DType::Float32, 3);
  Tensor last = normal({2, 8, 3, 3}, DType::Float32, 4);
};

Tensor convolved(const Tensor& x, const Weights& w) {
  return ops::conv2d(x, w.down, {}, {.stride = 2, .padding = 1});
}

/// x as it is, or with elements that somebody has asked for.
Tensor seen(const Tensor& x, bool looks) {
  if (looks) static_cast<void>(x.raw_data());
  return x;
}

TEST(LaneOrder, IsThatOfConvolutionsAndOfElementwiseOpsBetweenThem) {
  const Weights w;
  const Tensor y = convolved(normal({kBatch, 3, 6, 7}, DType::Float32, 1), w);
  EXPECT_TRUE(in_lanes(y));
  const Tensor activated = ops::mish(y);
  EXPECT_TRUE(in_lanes(activated));
  EXPECT_TRUE(in_lanes(y)) << "still";
  EXPECT_TRUE(in_lanes(activated + y));
  EXPECT_TRUE(in_lanes(ops::conv_transpose2d_epilogue(activated, w.up, {}, kUp, {})));
  EXPECT_TRUE(y.is_contiguous());

  static_cast<void>(y.raw_data());
  EXPECT_FALSE(in_lanes(y));
  EXPECT_FALSE(in_lanes(ops::mish(y)));
  EXPECT_FALSE(in_lanes(activated + y)) << "one of two";
  EXPECT_FALSE(in_lanes(activated.reshape({kBatch, -1})));
  EXPECT_FALSE(in_lanes(convolved(normal({kBatch - 1, 3, 6, 7}, DType::Float32, 1), w)))
      << "vectors that are not full";
}

TEST(LaneOrder, ReadersAndWritersSeeTheElements) {
  const Weights w;
  const Tensor x = normal({kBatch, 3, 6, 7}, DType::Float32, 1);
  const Tensor expected = convolved(x, w).clone();
  Tensor y = convolved(x, w);
  ASSERT_TRUE(in_lanes(y));
  test::expect_same_bits(y.narrow(0, 3, 9), expected.narrow(0, 3, 9));
  y = convolved(x, w);
  y.fill_(2);
  EXPECT_FALSE(in_lanes(y));
  test::expect_same_bits(ops::mish(y), ops::mish(full_like(y, 2)));
  y = convolved(x, w);
  y.narrow(1, 1, 2).fill_(0);
  test::expect_same_bits(y.narrow(1, 0, 1), expected.narrow(1, 0, 1));
  test::expect_same_bits(y.narrow(1, 1, 2), zeros({kBatch, 2, 3, 4}));
}

TEST(LaneOrder, SeveralThreadsMayAskAtOnce) {
  const Weights w;
  const Tensor x = normal({kBatch, 3, 6, 7}, DType::Float32, 1);
  const Tensor expected = ops::mish(convolved(x, w)).clone();
  for (int round = 0; round < 20; ++round) {
    const Tensor y = convolved(x, w);
    std::atomic<int> begun{0};
    std::vector<std::thread> threads;
    std::vector<Tensor> found(4);
    for (std::size_t t = 0; t < found.size(); ++t) {
      threads.emplace_back([&, t] {
        ++begun;
        while (begun < 4) std::this_thread::yield();
        found[t] = t % 2 == 0 ? ops::mish(y) : ops::mish(seen(y, true));
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Tensor& one : found) test::expect_same_bits(one, expected);
  }
}

/// A network whose intermediates are in the order of lanes, or of which all have been seen.
std::vector<Tensor> train(bool looks) {
  const Weights w;
  const auto leaf = [](const Tensor& x) { return test::leaf(x, DType::Float32); };
  const Tensor x = leaf(normal({kBatch, 3, 6, 7}, DType::Float32, 1));
  const Weights weights{leaf(w.down), leaf(w.up), leaf(w.last)};
  const Tensor y = seen(convolved(x, weights), looks);
  const Tensor h = seen(ops::mish(y), looks);
  const Tensor z = seen(ops::conv_transpose2d_epilogue(h, weights.up, {}, kUp, {}), looks);
  const Tensor out = seen(ops::conv2d(z, weights.last, {}, {.padding = 1}), looks);
  EXPECT_EQ(in_lanes(z), !looks);
  out.backward(normal(out.shape(), DType::Float32, 5));
  return {out.detach(), x.grad(), weights.down.grad(), weights.up.grad(), weights.last.grad()};
}

TEST(LaneOrder, ChangesNoBitOfATrainingStep) {
  const std::vector<Tensor> expected = train(true);
  const std::vector<Tensor> found = test::for_all_threads([] { return train(false); });
  for (std::size_t i = 0; i < found.size(); ++i) test::expect_same_bits(found[i], expected[i]);
}

TEST(LaneOrder, GradientsLieAsTheirTensorsDo) {
  const Weights w;
  const test::ThreadsGuard threads(1);
  for (const bool looks : {false, true}) {
    const Tensor x = seen(convolved(normal({kBatch, 3, 6, 7}, DType::Float32, 1), w), looks);
    const Tensor weight = normal({2, 5, 3, 3}, DType::Float32, 6);
    const Tensor grad = normal({kBatch, 2, 3, 4}, DType::Float32, 7);
    const Tensor grad_x = empty_like(x);
    ASSERT_TRUE(ops::cpu::batched_conv2d_backward(x, weight, grad, {.padding = 1}, grad_x,
                                                  empty_like(weight), {}));
    EXPECT_EQ(in_lanes(grad_x), !looks);
    const Tensor z = empty({kBatch, 8, 6, 8});
    const Tensor block_grad_x = empty_like(x);
    ASSERT_TRUE(ops::cpu::batched_backward(x, w.up, {}, z.fill_(1), kUp, ops::cpu::simd::kMishAlone,
                                           block_grad_x, empty_like(w.up), {}));
    EXPECT_EQ(in_lanes(block_grad_x), !looks);
  }
}

}  // namespace
}  // namespace tenon
