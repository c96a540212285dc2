// float32 convolutions of batches whose images lie side by side in vectors: against float64, odd
// shapes, a last group that is not full, and the same bits for every number of threads.
#include <gtest/gtest.h>

#include "compare.h"
#include "conv_reference.h"
#include "support/threads.h"
#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/batched/convolution.h"
#include "tenon/ops/cpu/batched/lane_groups.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon {
namespace {

using test::for_all_threads;
using test::normal;

constexpr auto kFloat32 = DType::Float32;
constexpr auto kFloat64 = DType::Float64;

/// Fills all vectors but a lane of the last one, whether they have 4, 8 or 16.
constexpr std::int64_t kBatch = 15;
/// Fills all vectors, so that results stay side by side in them until they are read.
constexpr std::int64_t kFullBatch = 32;

void expect_near(const std::vector<Tensor>& results, const std::vector<Tensor>& exact) {
  ASSERT_EQ(results.size(), exact.size());
  for (std::size_t i = 0; i < results.size(); ++i) {
    EXPECT_LE(test::relative_error(results[i], exact[i]), 1e-6) << "result " << i;
  }
}

// ---- conv2d -------------------------------------------------------------------------------------

struct Case {
  Shape x, weight;
  ops::Conv2dOptions options;
};

std::vector<Case> cases() {
  std::vector<Case> cases = {
      {{kBatch, 1, 28, 28}, {16, 1, 3, 3}, {.stride = 2, .padding = 1}},
      {{kBatch, 16, 14, 14}, {32, 16, 3, 3}, {.stride = 2, .padding = 1}},
      {{kBatch, 16, 28, 28}, {1, 16, 3, 3}, {.padding = 1}},
      {{kBatch, 3, 7, 5}, {7, 3, 3, 2}, {.stride = {2, 3}, .padding = {1, 2}}},
      {{kBatch, 2, 9, 8}, {5, 2, 3, 3}, {.padding = {2, 1}, .dilation = {2, 3}}},
      {{kBatch, 5, 6, 9}, {3, 5, 1, 1}, {}},
      {{kBatch, 2, 3, 3}, {2, 2, 1, 1}, {.stride = 2, .padding = 1}},
      {{kBatch, 3, 8, 8}, {9, 3, 2, 2}, {.stride = 4, .dilation = 3}},
      {{kBatch, 1, 1, 1}, {1, 1, 1, 1}, {}},
      {{kBatch, 2, 2, 3}, {3, 2, 5, 5}, {.padding = 4}}};
  for (Case c : std::vector<Case>(cases)) {
    c.x[0] = kFullBatch;
    cases.push_back(c);
  }
  return cases;
}

class BatchedConv2d : public testing::TestWithParam<int> {
 protected:
  Case sizes() const { return cases()[static_cast<std::size_t>(GetParam())]; }
};

TEST_P(BatchedConv2d, MatchesDefinition) {
  const Case c = sizes();
  const Tensor x = normal(c.x, kFloat64, 1);
  const Tensor weight = normal(c.weight, kFloat64, 2);
  const Tensor bias = normal({c.weight[0]}, kFloat64, 3);
  for (const Tensor& add : {bias, Tensor()}) {
    const std::vector<Tensor> results = for_all_threads([&] {
      return std::vector<Tensor>{ops::conv2d(x.to(kFloat32), weight.to(kFloat32),
                                             add.defined() ? add.to(kFloat32) : add, c.options)};
    });
    const Tensor batched = empty_like(results[0]);
    ASSERT_TRUE(ops::cpu::batched_conv2d(x.to(kFloat32), weight.to(kFloat32),
                                         add.defined() ? add.to(kFloat32) : add, c.options,
                                         batched));
    test::expect_same_bits(batched, results[0]);
    expect_near(results,
                {test::reference_conv2d(x, weight, add, c.options, results[0].shape()).tensor()});
  }
}

// The float64 gradients take another path, which gradcheck has checked.
TEST_P(BatchedConv2d, GradientsAreThoseOfFloat64) {
  const Case c = sizes();
  const Tensor x = normal(c.x, kFloat64, 4);
  const Tensor weight = normal(c.weight, kFloat64, 5);
  const Tensor bias = normal({c.weight[0]}, kFloat64, 6);
  const Shape y = ops::conv2d(x, weight, bias, c.options).shape();
  const Tensor grad = normal(y, kFloat64, 7);
  const auto gradients = [&](DType dtype) {
    const Tensor a = test::leaf(x, dtype);
    const Tensor w = test::leaf(weight, dtype);
    const Tensor b = test::leaf(bias, dtype);
    ops::conv2d(a, w, b, c.options).backward(grad.to(dtype));
    return std::vector<Tensor>{a.grad(), w.grad(), b.grad()};
  };
  const std::vector<Tensor> results = for_all_threads([&] { return gradients(kFloat32); });
  expect_near(results, gradients(kFloat64));
  const Tensor batched = empty_like(results[1]);
  ASSERT_TRUE(ops::cpu::batched_conv2d_backward(x.to(kFloat32), {}, grad.to(kFloat32), c.options,
                                                {}, batched, {}));
  test::expect_same_bits(batched, results[1]);
}

INSTANTIATE_TEST_SUITE_P(Shapes, BatchedConv2d,
                         testing::Range(0, static_cast<int>(cases().size())));

// ---- the transposed convolution -----------------------------------------------------------------

struct TransposedCase {
  Shape x, weight;
  ops::ConvTranspose2dOptions options;
};

std::vector<TransposedCase> transposed_cases() {
  std::vector<TransposedCase> cases = {
      {{kBatch, 32, 7, 7}, {32, 16, 3, 3}, {.stride = 2, .padding = 1, .output_padding = 1}},
      {{kBatch, 16, 9, 10}, {16, 13, 3, 3}, {.stride = 2, .padding = 1}},
      {{kBatch, 1, 12, 12}, {1, 16, 3, 3}, {.padding = 1}},
      {{kBatch, 3, 4, 5}, {3, 8, 4, 2}, {.stride = {3, 2}, .padding = {2, 0}}},
      {{kBatch, 3, 4, 5}, {3, 9, 2, 1}, {.stride = 3, .output_padding = {2, 1}}},
      {{kBatch, 2, 5, 4}, {2, 10, 3, 3}, {.stride = 2, .padding = 2, .dilation = {2, 3}}},
      {{kBatch, 2, 1, 1}, {2, 8, 1, 1}, {}},
      {{kBatch, 2, 3, 3}, {2, 8, 3, 3}, {.output_padding = {2, 1}, .dilation = 3}},
      {{kBatch, 2, 2, 2}, {2, 8, 5, 5}, {.stride = 4, .padding = 3, .output_padding = 2}}};
  for (TransposedCase c : std::vector<TransposedCase>(cases)) {
    c.x[0] = kFullBatch;
    cases.push_back(c);
  }
  return cases;
}

class BatchedTransposed : public testing::TestWithParam<int> {
 protected:
  TransposedCase sizes() const { return transposed_cases()[static_cast<std::size_t>(GetParam())]; }
};

TEST_P(BatchedTransposed, MatchesDefinition) {
  const TransposedCase c = sizes();
  const Tensor x = normal(c.x, kFloat64, 1);
  const Tensor weight = normal(c.weight, kFloat64, 2);
  const Tensor bias = normal({c.weight[1]}, kFloat64, 3);
  for (const Tensor& add : {bias, Tensor()}) {
    const std::vector<Tensor> results = for_all_threads([&] {
      return std::vector<Tensor>{ops::conv_transpose2d(
          x.to(kFloat32), weight.to(kFloat32), add.defined() ? add.to(kFloat32) : add, c.options)};
    });
    const Tensor batched = empty_like(results[0]);
    ASSERT_TRUE(ops::cpu::batched_transposed(x.to(kFloat32), weight.to(kFloat32),
                                             add.defined() ? add.to(kFloat32) : add, c.options,
                                             nullptr, batched));
    test::expect_same_bits(batched, results[0]);
    expect_near(results, {test::reference_conv_transpose2d(x, weight, add, c.options).tensor()});
  }
}

/// The block and its gradients in float32 and, of other ops, in float64.
TEST_P(BatchedTransposed, BlockAndGradientsAreThoseOfFloat64) {
  const TransposedCase c = sizes();
  const Tensor x = normal(c.x, kFloat64, 4);
  const Tensor weight = normal(c.weight, kFloat64, 5);
  const Tensor bias = normal({c.weight[1]}, kFloat64, 6);
  const ops::Epilogue epilogue{.mish = true, .add = 0.5, .min = -1e3, .max = 1e3, .scale = 2};
  const Shape z = test::transposed_shape(c.x, c.weight, c.options);
  const Tensor grad = normal(z, kFloat64, 7);
  const auto results = [&](DType dtype) {
    const Tensor a = test::leaf(x, dtype);
    const Tensor w = test::leaf(weight, dtype);
    const Tensor b = test::leaf(bias, dtype);
    const Tensor out = ops::conv_transpose2d_epilogue(a, w, b, c.options, epilogue);
    out.backward(grad.to(dtype));
    return std::vector<Tensor>{out.detach(), a.grad(), w.grad(), b.grad()};
  };
  const std::vector<Tensor> found = for_all_threads([&] { return results(kFloat32); });
  expect_near(found, results(kFloat64));
  const ops::cpu::simd::Chain chain{.mish = true,
                                    .clamps = true,
                                    .add = 0.5F,
                                    .min = -1e3F,
                                    .max = 1e3F,
                                    .scale = 2,
                                    .first_inside = -1e3F,
                                    .last_inside = 1e3F};
  std::vector<Tensor> batched;
  for (std::size_t i = 1; i < found.size(); ++i) batched.push_back(empty_like(found[i]));
  ASSERT_TRUE(ops::cpu::batched_backward(x.to(kFloat32), weight.to(kFloat32), bias.to(kFloat32),
                                         grad.to(kFloat32), c.options, chain, batched[0],
                                         batched[1], batched[2]));
  for (std::size_t i = 0; i < batched.size(); ++i) test::expect_same_bits(batched[i], found[i + 1]);
}

INSTANTIATE_TEST_SUITE_P(Shapes, BatchedTransposed,
                         testing::Range(0, static_cast<int>(transposed_cases().size())));

// ---- when ---------------------------------------------------------------------------------------

TEST(LaneGroups, FillLanesWhereLessThanAnEighthIsEmpty) {
  using ops::cpu::LaneGroups;
  EXPECT_FALSE(LaneGroups(0, 8).fill_lanes());
  EXPECT_FALSE(LaneGroups(7, 8).fill_lanes());
  EXPECT_TRUE(LaneGroups(8, 8).fill_lanes());
  EXPECT_FALSE(LaneGroups(9, 8).fill_lanes());
  EXPECT_FALSE(LaneGroups(14, 8).fill_lanes());
  EXPECT_TRUE(LaneGroups(15, 8).fill_lanes());
  EXPECT_EQ(LaneGroups(15, 8).group(1).first, 8);
  EXPECT_EQ(LaneGroups(15, 8).group(1).count, 7);
}

TEST(BatchedConvolution, LeavesLargeImagesAndGroupsToOthers) {
  using namespace ops::cpu;
  const Tensor wide = zeros({16, 64, 4, 512});
  const Tensor large = zeros({16, 64, 32, 64});
  const Tensor weight = zeros({64, 64, 3, 3});
  EXPECT_FALSE(batched_conv2d(wide, weight, {}, {.padding = 1}, zeros_like(wide)));
  EXPECT_FALSE(batched_transposed(wide, weight, {}, {.padding = 1}, nullptr, zeros_like(wide)));
  EXPECT_FALSE(
      batched_conv2d_backward(large, {}, large, {.padding = 1}, {}, zeros_like(weight), {}));
  EXPECT_FALSE(batched_backward(large, weight, {}, large, {.padding = 1}, {}, zeros_like(large),
                                zeros_like(weight), {}));
  const Tensor small = zeros({16, 4, 8, 8});
  EXPECT_FALSE(batched_conv2d(small, zeros({4, 2, 1, 1}), {}, {.groups = 2}, zeros_like(small)));
}

}  // namespace
}  // namespace tenon
