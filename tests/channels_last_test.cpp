// What convolutions on a GPU do about the memory order that cuDNN wants: weights are converted once
// a version, images by passes of our own.
#include <gtest/gtest.h>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/precision.h"
#ifdef TENON_WITH_CUDA
#include "tenon/ops/cuda/channels_last.h"
#include "tenon/ops/cuda/fused/epilogue_pass.h"
#endif
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
  // Without mish the block is cuDNN's convolution and one pass.
  const ops::Epilogue chain{.mish = false, .scale = 2};
  const auto fused = [&] { ops::conv_transpose2d_epilogue(x, weight, {}, kOptions, chain); };
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

#ifdef TENON_WITH_CUDA

/// Shapes that end a tile everywhere: planes of odd, even and whole-pack sizes, several images in a
/// tile and several tiles in an image, channels of less and more than a line, one of a kind.
const std::vector<Shape> kShapes = {
    {3, 5, 1, 7},    {2, 64, 8, 8},  {1, 72, 16, 8},   {5, 8, 3, 3},
    {3, 32, 5, 8},   {2, 1, 11, 3},  {7, 130, 1, 1},   {4, 24, 2, 4},
    {2, 64, 33, 33}, {1, 3, 64, 48}, {2, 256, 16, 16}, {130, 16, 2, 2},
};
const std::vector<DType> kDTypes = {DType::Float32, DType::Float64, DType::Float16,
                                    DType::BFloat16};

/// Values of `shape` that every dtype holds exactly, the same for the same seed.
Tensor whole_numbers(const Shape& shape, std::uint64_t seed) {
  Generator generator(seed);
  return randint(-100, 100, shape, {.dtype = DType::Float64}, generator);
}

/// `x` on the GPU in channels-last memory, by an ordinary copy.
Tensor copied_channels_last(const Tensor& x) {
  const Tensor last = ops::cuda::empty_channels_last(x.spec());
  last.copy_(x);
  return last;
}

TEST(ChannelsLastPasses, ConvertThereAndBack) {
  TENON_SKIP_WITHOUT_GPU();
  for (const Shape& shape : kShapes) {
    const Tensor values = whole_numbers(shape, 1);
    for (const DType dtype : kDTypes) {
      const Tensor x = values.to(Device::cuda(), dtype);
      const Tensor last = ops::cuda::to_channels_last(x);
      EXPECT_EQ(last.strides(), ops::cuda::empty_channels_last(x.spec()).strides());
      EXPECT_EQ(last.to_vector<double>(), values.to_vector<double>()) << x.spec();
      const Tensor back = empty(shape, {.dtype = dtype, .device = Device::cuda()});
      ops::cuda::from_channels_last(last, {}, back);
      EXPECT_EQ(back.to_vector<double>(), values.to_vector<double>()) << x.spec();
      EXPECT_EQ(last.to_vector<double>(), values.to_vector<double>()) << "kept: " << x.spec();
    }
  }
}

TEST(ChannelsLastPasses, AddABiasOnTheWayBack) {
  TENON_SKIP_WITHOUT_GPU();
  for (const Shape& shape : kShapes) {
    const Tensor values = whole_numbers(shape, 1);
    // One number more, so that the bias of the second half begins at an odd place.
    const Tensor shifts = whole_numbers({shape[1] + 1}, 2);
    for (const DType dtype : kDTypes) {
      const Tensor last = copied_channels_last(values.to(Device::cuda(), dtype));
      for (const std::int64_t first : {0, 1}) {
        const Tensor bias = shifts.slice(0, first, first + shape[1]);
        const Tensor back = empty(shape, {.dtype = dtype, .device = Device::cuda()});
        ops::cuda::from_channels_last(
            last, shifts.to(Device::cuda(), dtype).slice(0, first, first + shape[1]), back);
        EXPECT_EQ(back.to_vector<double>(),
                  (values + bias.reshape({shape[1], 1, 1})).to_vector<double>())
            << last.spec() << " from " << first;
      }
    }
  }
}

TEST(ChannelsLastPasses, AcceptMemoryThatBeginsAnywhere) {
  TENON_SKIP_WITHOUT_GPU();
  const Tensor values = whole_numbers({2 * 32 * 8 * 8 + 1}, 2).to(DType::BFloat16);
  const Tensor x = values.to(Device::cuda()).slice(0, 1).reshape({2, 32, 8, 8});
  ASSERT_NE(reinterpret_cast<std::uintptr_t>(x.raw_data()) % 16, 0u);
  EXPECT_EQ(ops::cuda::to_channels_last(x).to_vector<double>(), x.to_vector<double>());
}

/// How far two kernels may be apart that round the same chain: one place in the last digit, near
/// zero relative to the operands.
double tolerance(DType dtype) {
  switch (dtype) {
    case DType::Float16:
      return 2e-3;
    case DType::BFloat16:
      return 1e-2;
    case DType::Float32:
      return 1e-5;
    default:
      return 1e-12;
  }
}

TEST(ChannelsLastPasses, OfTheChainEqualThePassInPlace) {
  TENON_SKIP_WITHOUT_GPU();
  const Device gpu = Device::cuda();
  const ops::Epilogue epilogue{.mish = true, .add = 0.25, .min = -2, .max = 3, .scale = 1.5};
  for (const Shape& shape : kShapes) {
    for (const DType dtype : kDTypes) {
      const Tensor y = (whole_numbers(shape, 3) * 0.03125).to(gpu, dtype);
      const Tensor grad_out = (whole_numbers(shape, 4) * 0.03125).to(gpu, dtype);
      const Tensor bias = (whole_numbers({shape[1]}, 5) * 0.015625).to(gpu, dtype);
      for (const Tensor& shift : {bias, Tensor()}) {
        const Tensor expected = y.clone();
        ops::cuda::epilogue_pass(expected, shift, epilogue);
        const Tensor z = full(shape, NAN, {.dtype = dtype, .device = gpu});
        ops::cuda::epilogue_pass_from_channels_last(copied_channels_last(y), shift, epilogue, z);
        test::expect_close(z, expected, tolerance(dtype), tolerance(dtype));

        const Tensor expected_grad = y.clone();
        const Tensor expected_bias = empty({shape[1]}, {.dtype = dtype, .device = gpu});
        ops::cuda::epilogue_gradient_pass(expected_grad, shift, grad_out, epilogue, expected_bias);
        const Tensor grad = copied_channels_last(y);
        const Tensor grad_bias = empty({shape[1]}, {.dtype = dtype, .device = gpu});
        ops::cuda::epilogue_gradient_pass_channels_last(grad, shift, grad_out, epilogue, grad_bias);
        test::expect_close(grad, expected_grad, tolerance(dtype), tolerance(dtype));
        EXPECT_LE(test::relative_error(grad_bias, expected_bias), tolerance(dtype)) << grad.spec();
      }
    }
  }
}

#endif

}  // namespace
}  // namespace tenon
