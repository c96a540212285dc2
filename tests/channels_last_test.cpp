// What convolutions on a GPU do about the memory order that cuDNN wants: weights are converted once
// a version, images by passes of our own.
#include <gtest/gtest.h>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/precision.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/compare.h"

namespace tenon {
namespace {

constexpr ops::ConvTranspose2dOptions kOptions{.stride = 2, .padding = 1, .output_padding = 1};

TEST(ChannelsLastWeights, AreConvertedOnceAVersion) {
  TENON_SKIP_WITHOUT_GPU();
  const Device gpu = Device::cuda();
  const NoGradGuard no_history;
  const Tensor x = randn({2, 8, 6, 6}).to(gpu);
  const Tensor weight = randn({8, 16, 3, 3}).to(gpu);
  const auto allocations = [&](auto&& call) {
    const std::int64_t before = memory_stats(gpu).allocations;
    call();
    return memory_stats(gpu).allocations - before;
  };
  const auto plain = [&] { ops::conv_transpose2d(x, weight, {}, kOptions); };
  const auto fused = [&] { ops::conv_transpose2d_epilogue(x, weight, {}, kOptions, {}); };
  for (int i = 0; i < 2; ++i) {  // plans are made
    plain();
    fused();
  }
  const std::int64_t usual = allocations(plain);
  const std::int64_t usual_fused = allocations(fused);
  weight.fill_(1);
  EXPECT_EQ(allocations(plain), usual + 1);
  EXPECT_EQ(allocations(plain), usual);
  EXPECT_EQ(allocations(fused), usual_fused) << "one conversion serves both";
  weight.copy_(randn({8, 16, 3, 3}));
  EXPECT_EQ(allocations(fused), usual_fused + 1);
  EXPECT_EQ(allocations(fused), usual_fused);
}

TEST(ChannelsLastWeights, OfTheLatestVersionAreUsed) {
  TENON_SKIP_WITHOUT_GPU();
  const Device gpu = Device::cuda();
  const NoGradGuard no_history;
  const Tensor x = randn({2, 8, 6, 6});
  const Tensor weight = randn({8, 16, 3, 3});
  const Tensor x_there = x.to(gpu);
  const Tensor weight_there = weight.to(gpu);
  for (int version = 0; version < 3; ++version) {
    test::expect_close(ops::conv_transpose2d(x_there, weight_there, {}, kOptions),
                       ops::conv_transpose2d(x, weight, {}, kOptions), 1e-2, 1e-2);
    test::expect_close(
        ops::conv2d(x_there, weight_there.slice(0, 0, 4).transpose(0, 1), {}, {.groups = 2}),
        ops::conv2d(x, weight.slice(0, 0, 4).transpose(0, 1), {}, {.groups = 2}), 1e-2, 1e-2);
    weight.copy_(randn({8, 16, 3, 3}));
    weight_there.copy_(weight);
  }
}

}  // namespace
}  // namespace tenon
