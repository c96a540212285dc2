// Transposed convolutions by minimal filtering: against float64, odd sizes, and the same bits for
// every number of threads.
#include <gtest/gtest.h>

#include "compare.h"
#include "conv_reference.h"
#include "support/threads.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/winograd/block.h"
#include "tenon/ops/cpu/winograd/plan.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon {
namespace {

using test::for_all_threads;
using test::normal;

constexpr auto kFloat32 = DType::Float32;
constexpr auto kFloat64 = DType::Float64;

struct Case {
  Shape x, weight;
  ops::ConvTranspose2dOptions options;
};

std::vector<Case> cases() {
  return {{{5, 32, 8, 8}, {32, 48, 4, 4}, {.stride = 2, .padding = 1}},
          {{2, 48, 16, 32}, {48, 32, 4, 4}, {.stride = 2, .padding = 1}},
          {{9, 32, 7, 10}, {32, 32, 4, 4}, {.stride = 2, .padding = 1, .output_padding = 1}},
          {{3, 160, 11, 8}, {160, 64, 4, 4}, {.stride = 2}},
          {{3, 32, 12, 9}, {32, 144, 4, 4}, {.stride = 2, .padding = 2}},
          {{2, 32, 10, 10}, {32, 32, 4, 4}, {.stride = 2, .padding = 3}},
          {{4, 64, 9, 9}, {64, 32, 2, 2}, {}},
          {{4, 32, 10, 10}, {32, 32, 2, 2}, {.padding = 1}},
          {{2, 32, 8, 10}, {32, 32, 6, 2}, {.stride = {3, 1}, .padding = {2, 0}}},
          {{1, 32, 8, 8}, {32, 96, 6, 8}, {.stride = {3, 4}, .padding = {1, 2}}},
          {{2, 256, 8, 8}, {256, 128, 4, 4}, {.stride = 2, .padding = 1}},
          {{3, 32, 6, 10}, {32, 48, 4, 4}, {.stride = 2, .padding = 1}},
          {{2, 48, 9, 20}, {48, 32, 4, 4}, {.stride = 2, .padding = 1}},
          {{1, 32, 19, 13}, {32, 32, 4, 4}, {.stride = 2, .padding = 1}}};
}

/// Whether all weights are 1 and -1.
bool all_pairs(const Case& c) {
  const ops::cpu::winograd::Plan plan(c.x, c.weight,
                                      test::transposed_shape(c.x, c.weight, c.options), c.options);
  return plan.rows.form.tile == 2 && plan.columns.form.tile == 2;
}

class Winograd : public testing::TestWithParam<int> {
 protected:
  Case sizes() const { return cases()[static_cast<std::size_t>(GetParam())]; }
};

TEST_P(Winograd, MatchesDefinition) {
  const Case c = sizes();
  const Tensor x = normal(c.x, kFloat64, 1);
  const Tensor weight = normal(c.weight, kFloat64, 2);
  const Tensor bias = normal({c.weight[1]}, kFloat64, 3);
  for (const Tensor& add : {bias, Tensor()}) {
    const Tensor add32 = add.defined() ? add.to(kFloat32) : add;
    const std::vector<Tensor> results = for_all_threads([&] {
      return std::vector<Tensor>{
          ops::conv_transpose2d(x.to(kFloat32), weight.to(kFloat32), add32, c.options)};
    });
    const Tensor direct = empty_like(results[0]);
    ASSERT_TRUE(ops::cpu::winograd_transposed(x.to(kFloat32), weight.to(kFloat32), add32, c.options,
                                              nullptr, direct));
    test::expect_same_bits(direct, results[0]);
    const Tensor exact = test::reference_conv_transpose2d(x, weight, add, c.options).tensor();
    EXPECT_LE(test::relative_error(results[0], exact), 1e-6);
  }
}

/// The block and its gradients in float32 and, of other ops, in float64.
TEST_P(Winograd, BlockAndGradientsAreThoseOfFloat64) {
  const Case c = sizes();
  const Tensor x = normal(c.x, kFloat64, 4);
  const Tensor weight = normal(c.weight, kFloat64, 5) * 0.1;
  const Tensor bias = normal({c.weight[1]}, kFloat64, 6);
  const ops::Epilogue epilogue{.mish = true, .add = 0.5, .min = -1e3, .max = 1e3, .scale = 2};
  const Tensor grad = normal(test::transposed_shape(c.x, c.weight, c.options), kFloat64, 7);
  const auto results = [&](DType dtype) {
    const Tensor a = test::leaf(x, dtype);
    const Tensor w = test::leaf(weight, dtype);
    const Tensor b = test::leaf(bias, dtype);
    const Tensor z = ops::conv_transpose2d_epilogue(a, w, b, c.options, epilogue);
    z.backward(grad.to(dtype));
    return std::vector<Tensor>{z.detach(), a.grad(), w.grad(), b.grad()};
  };
  const std::vector<Tensor> found = for_all_threads([&] { return results(kFloat32); });
  const std::vector<Tensor> exact = results(kFloat64);
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_LE(test::relative_error(found[i], exact[i]), 1e-6) << "result " << i;
  }
  const ops::cpu::simd::Chain chain{.mish = true,
                                    .clamps = true,
                                    .add = 0.5F,
                                    .min = -1e3F,
                                    .max = 1e3F,
                                    .scale = 2,
                                    .first_inside = -1e3F,
                                    .last_inside = 1e3F};
  // One gradient alone, whatever the others.
  for (std::size_t i = 1; i < found.size(); ++i) {
    std::vector<Tensor> wanted(4);
    wanted[i] = empty_like(found[i]);
    ASSERT_TRUE(ops::cpu::winograd_backward(x.to(kFloat32), weight.to(kFloat32), bias.to(kFloat32),
                                            grad.to(kFloat32), c.options, chain, wanted[1],
                                            wanted[2], wanted[3]));
    test::expect_same_bits(wanted[i], found[i]);
  }
}

TEST(WinogradConvolution, KeepsWholeNumbersExactInPairs) {
  const auto whole = [](const Shape& shape, std::uint64_t seed) {
    std::vector<double> values = normal(shape, kFloat64, seed).to_vector<double>();
    for (double& value : values) value = std::nearbyint(3 * value);
    return tensor(values, shape);
  };
  int tested = 0;
  for (const Case& c : cases()) {
    if (!all_pairs(c)) continue;
    ++tested;
    const Tensor x = whole(c.x, 8);
    const Tensor weight = whole(c.weight, 9);
    const Tensor y = ops::conv_transpose2d(x.to(kFloat32), weight.to(kFloat32), {}, c.options);
    test::expect_same_bits(
        y, test::reference_conv_transpose2d(x, weight, {}, c.options).tensor().to(kFloat32));
  }
  EXPECT_GE(tested, 3);
}

INSTANTIATE_TEST_SUITE_P(Shapes, Winograd, testing::Range(0, static_cast<int>(cases().size())));

TEST(WinogradConvolution, LeavesOthersAlone) {
  const auto suits = [](const Shape& x, const Shape& weight,
                        const ops::ConvTranspose2dOptions& options) {
    const Tensor z = zeros(test::transposed_shape(x, weight, options));
    return ops::cpu::winograd_transposed(zeros(x), zeros(weight), {}, options, nullptr, z);
  };
  EXPECT_TRUE(suits({1, 32, 8, 8}, {32, 32, 4, 4}, {.stride = 2, .padding = 1}));
  EXPECT_FALSE(suits({1, 32, 8, 8}, {32, 32, 3, 3}, {.stride = 2, .padding = 1})) << "kernel";
  EXPECT_FALSE(suits({1, 32, 8, 8}, {32, 32, 4, 4}, {.stride = 2, .dilation = 2})) << "dilation";
  EXPECT_FALSE(suits({1, 64, 8, 8}, {64, 32, 4, 4}, {.stride = 2, .groups = 2})) << "groups";
  EXPECT_FALSE(suits({1, 16, 8, 8}, {16, 32, 4, 4}, {.stride = 2, .padding = 1})) << "few channels";
  EXPECT_FALSE(suits({1, 33, 8, 8}, {33, 32, 4, 4}, {.stride = 2, .padding = 1})) << "odd channels";
  EXPECT_FALSE(suits({1, 32, 3, 3}, {32, 32, 4, 4}, {.stride = 2, .padding = 1})) << "odd rows";
  EXPECT_FALSE(suits({1, 32, 512, 64}, {32, 32, 4, 4}, {.stride = 2, .padding = 1})) << "large";
}

}  // namespace
}  // namespace tenon
