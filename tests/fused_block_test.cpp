// The fused block beyond its values: memory, threads, derivatives, dtypes, bad input.
#include <gtest/gtest.h>

#include "fused_block_reference.h"
#include "tenon/core/autograd.h"
#include "tenon/core/gradcheck.h"
#include "tenon/core/parallel.h"
#include "tenon/core/precision.h"
#include "tenon/ops/ops.h"

namespace tenon {
namespace {

using test::expect_close;
using test::expect_error;
using test::normal;
using test::scattered;

constexpr auto kFloat64 = DType::Float64;
const ops::ConvTranspose2dOptions kUpsample{.stride = 2, .padding = 1, .output_padding = 1};
const ops::Epilogue kBlock{.add = 0.5, .min = -1, .max = 1, .scale = 2};

/// Restores the number of threads at the end of a test.
class ThreadsGuard {
 public:
  ThreadsGuard() : threads_(num_threads()) {}
  ~ThreadsGuard() { set_num_threads(threads_); }

 private:
  int threads_;
};

std::vector<Tensor> fused_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                   const Tensor& grad_out,
                                   const ops::ConvTranspose2dOptions& options) {
  const std::vector<Tensor> inputs{x, weight, bias, grad_out};
  return call(std::make_shared<const ops::ConvTranspose2dEpilogueBackwardOp>(
                  options, kBlock, ops::EpilogueGradients{true, true, true}),
              inputs);
}

/// Most memory that the fused backward holds beyond its inputs and outputs, in bytes.
std::int64_t backward_scratch(std::int64_t batch, std::int64_t size, int threads) {
  set_num_threads(threads);
  const Tensor x = normal({batch, 16, size, size}, DType::Float32, 1);
  const Tensor weight = normal({16, 8, 3, 3}, DType::Float32, 2);
  const Tensor bias = zeros({8});
  const Tensor grad = normal({batch, 8, 2 * size, 2 * size}, DType::Float32, 3);
  const std::int64_t before = memory_stats(Device::cpu()).in_use;
  reset_peak_memory(Device::cpu());
  const std::vector<Tensor> gradients = fused_backward(x, weight, bias, grad, kUpsample);
  const std::int64_t outputs = memory_stats(Device::cpu()).in_use - before;
  return memory_stats(Device::cpu()).peak - before - outputs;
}

/// What a thread may hold at once, one tile and its sums of the weight and bias gradients: 8 MB, of
/// which this case needs little more than half.
std::int64_t allowed_scratch(int threads) { return 5 * threads * (std::int64_t{1} << 20); }

TEST(FusedBlockMemory, BackwardHoldsAtMostOneTileAThread) {
  const ThreadsGuard guard;
  for (const int threads : {1, 2, 4}) {
    for (const std::int64_t size : {32, 96}) {
      SCOPED_TRACE(testing::Message() << threads << " threads, size " << size);
      const std::int64_t scratch = backward_scratch(8, size, threads);
      EXPECT_LE(scratch, allowed_scratch(threads));
      EXPECT_GT(scratch, 0);
    }
  }
}

TEST(FusedBlockMemory, TileDoesNotGrowWithTheImage) {
  const ThreadsGuard guard;
  const std::int64_t small = backward_scratch(2, 96, 1);
  // Within a quarter, as a tile is a whole number of rows.
  EXPECT_LE(backward_scratch(2, 192, 1), small + small / 4);
  EXPECT_LE(backward_scratch(16, 96, 1), small);
  // y itself is several times larger.
  EXPECT_LT(3 * small, 4 * 16 * 8 * 192 * 192);
}

TEST(FusedBlockMemory, ForwardKeepsItsResultAndThePackedWeight) {
  const Tensor x = test::leaf(normal({2, 4, 16, 16}, DType::Float32, 4), DType::Float32);
  const Tensor weight = test::leaf(normal({4, 3, 3, 3}, DType::Float32, 5), DType::Float32);
  const std::int64_t before = memory_stats(Device::cpu()).in_use;
  const Tensor z = ops::conv_transpose2d_epilogue(x, weight, {}, kUpsample, kBlock);
  EXPECT_EQ(memory_stats(Device::cpu()).in_use - before, 4 * (z.numel() + weight.numel()));
  const Tensor again = ops::conv_transpose2d_epilogue(x, weight, {}, kUpsample, kBlock);
  EXPECT_EQ(memory_stats(Device::cpu()).in_use - before, 4 * (2 * z.numel() + weight.numel()));
}

TEST(FusedBlockThreads, SameBitsForAnyNumberOfThreads) {
  const ThreadsGuard guard;
  const ops::ConvTranspose2dOptions options{.stride = {2, 3}, .padding = 1, .groups = 2};
  const Tensor x = normal({70, 6, 9, 20}, DType::Float32, 6);
  const Tensor weight = normal({6, 4, 3, 4}, DType::Float32, 7);
  const Tensor bias = normal({8}, DType::Float32, 8);
  set_num_threads(1);
  const Tensor z = ops::conv_transpose2d_epilogue(x, weight, bias, options, kBlock);
  const Tensor grad = normal(z.shape(), DType::Float32, 9);
  const std::vector<Tensor> gradients = fused_backward(x, weight, bias, grad, options);
  for (const int count : {2, 7}) {
    set_num_threads(count);
    test::expect_same_bits(ops::conv_transpose2d_epilogue(x, weight, bias, options, kBlock), z);
    const std::vector<Tensor> again = fused_backward(x, weight, bias, grad, options);
    for (std::size_t i = 0; i < 3; ++i) test::expect_same_bits(again[i], gradients[i]);
  }
}

class FusedBlockGradient : public testing::TestWithParam<int> {};

TEST_P(FusedBlockGradient, PassesGradcheckAndGradgradcheck) {
  std::uint64_t index = static_cast<std::uint64_t>(GetParam());
  test::BlockCase block = test::draw_block(index);
  while (block.grad_out.numel() > 120 || block.epilogue.scale == 0) {
    block = test::draw_block(index += 100);
  }
  SCOPED_TRACE(testing::PrintToString(block));
  std::vector<Tensor> inputs{scattered(block.x).requires_grad_(),
                             scattered(block.weight).requires_grad_()};
  if (block.bias.defined()) inputs.push_back(block.bias.clone().requires_grad_());
  const auto function = [&](std::span<const Tensor> in) {
    return ops::conv_transpose2d_epilogue(in[0], in[1], in.size() > 2 ? in[2] : Tensor(),
                                          block.options, block.epilogue);
  };
  // Well-posed cases stay farther from every bound than a step reaches.
  for (const Device device : test::test_devices()) {
    EXPECT_TRUE(gradcheck(test::on_device(device, function), inputs)) << device;
    EXPECT_TRUE(gradgradcheck(test::on_device(device, function), inputs)) << device;
  }
}

INSTANTIATE_TEST_SUITE_P(Case, FusedBlockGradient, testing::Range(0, 8));

class FusedBlockOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(FusedBlockOnDevice);

TEST_P(FusedBlockOnDevice, RecordedBackwardEqualsFusedBackward) {
  const test::BlockCase block = test::draw_block(3);
  const Tensor x = test::leaf(block.x, kFloat64, device());
  const Tensor weight = test::leaf(block.weight, kFloat64, device());
  const Tensor bias = block.bias.defined() ? block.bias.to(device()) : Tensor();
  const Tensor grad_out = block.grad_out.to(device());
  const auto gradients = [&](bool create_graph) {
    const std::vector<Tensor> z{
        ops::conv_transpose2d_epilogue(x, weight, bias, block.options, block.epilogue)};
    return grad(z, std::vector<Tensor>{x, weight}, std::vector<Tensor>{grad_out},
                {.create_graph = create_graph});
  };
  const std::vector<Tensor> fused = gradients(false);
  const std::vector<Tensor> recorded = gradients(true);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_LE(test::relative_error(recorded[i].detach(), fused[i]), 1e-13);
  }
}

TEST_P(FusedBlockOnDevice, ComputesOnlyTheGradientsAskedFor) {
  const Tensor x = normal({2, 3, 4, 5}, kFloat64, 10, device());
  const Tensor weight = normal({3, 2, 3, 3}, kFloat64, 11, device());
  const Tensor bias = normal({2}, kFloat64, 12, device());
  const auto gradients = [&](bool of_x, bool of_weight, bool of_bias) {
    const Tensor a = x.clone().requires_grad_(of_x);
    const Tensor b = weight.clone().requires_grad_(of_weight);
    const Tensor c = bias.clone().requires_grad_(of_bias);
    const Tensor z = ops::conv_transpose2d_epilogue(a, b, c, kUpsample, kBlock);
    z.backward(ones(z.shape(), {.dtype = kFloat64, .device = device()}));
    return std::vector<Tensor>{a.grad(), b.grad(), c.grad()};
  };
  const std::vector<Tensor> all = gradients(true, true, true);
  for (int mask = 1; mask < 7; ++mask) {
    const std::vector<Tensor> some = gradients(mask & 1, mask & 2, mask & 4);
    for (int i = 0; i < 3; ++i) {
      const auto at = static_cast<std::size_t>(i);
      ASSERT_EQ(some[at].defined(), (mask >> i & 1) != 0);
      if (some[at].defined()) test::expect_same_bits(some[at], all[at]);
    }
  }
}

TEST_P(FusedBlockOnDevice, HalfPrecisionComputesInFloat32) {
  for (const DType dtype : {DType::Float16, DType::BFloat16}) {
    const double tolerance = dtype == DType::Float16 ? 5e-4 : 4e-3;
    const Tensor x = test::leaf(normal({2, 6, 5, 4}, dtype, 13, device()), dtype);
    const Tensor weight = test::leaf(normal({6, 2, 3, 3}, dtype, 14, device()), dtype);
    const Tensor bias = test::leaf(normal({4}, dtype, 15, device()), dtype);
    const ops::ConvTranspose2dOptions options{.stride = 2, .groups = 2};
    const ops::Epilogue epilogue{.add = 0.25, .min = -2, .max = 3, .scale = 0.5};
    const Tensor x32 = test::leaf(x, DType::Float32);
    const Tensor weight32 = test::leaf(weight, DType::Float32);
    const Tensor bias32 = test::leaf(bias, DType::Float32);
    const Tensor z = ops::conv_transpose2d_epilogue(x, weight, bias, options, epilogue);
    const Tensor z32 = ops::conv_transpose2d_epilogue(x32, weight32, bias32, options, epilogue);
    EXPECT_EQ(z.dtype(), dtype);
    EXPECT_LE(test::relative_error(z, z32), tolerance);
    const Tensor grad = normal(z.shape(), dtype, 16, device());
    z.backward(grad);
    z32.backward(grad.to(DType::Float32));
    EXPECT_LE(test::relative_error(x.grad(), x32.grad()), tolerance);
    EXPECT_LE(test::relative_error(weight.grad(), weight32.grad()), tolerance);
    EXPECT_LE(test::relative_error(bias.grad(), bias32.grad()), tolerance);
  }
}

TEST_P(FusedBlockOnDevice, StridedInputsAndGradient) {
  const Tensor x = normal({2, 3, 4, 5}, kFloat64, 17, device());
  const Tensor weight = normal({3, 2, 3, 3}, kFloat64, 18, device());
  const Tensor grad = normal({2, 2, 8, 10}, kFloat64, 19, device());
  const auto run = [&](const Tensor& a, const Tensor& b, const Tensor& g) {
    a.requires_grad_();
    const Tensor z = ops::conv_transpose2d_epilogue(a, b, {}, kUpsample, kBlock);
    z.backward(g);
    return std::vector<Tensor>{z.detach(), a.grad()};
  };
  const std::vector<Tensor> expected = run(x.clone(), weight, grad);
  const std::vector<Tensor> gaps = run(scattered(x), scattered(weight), scattered(grad));
  expect_close(gaps[0], expected[0], 0);
  expect_close(gaps[1], expected[1], 0);
}

TEST_P(FusedBlockOnDevice, OneImageWithoutBatchAndEmptyBatch) {
  const Tensor x = normal({3, 4, 5}, kFloat64, 20, device());
  const Tensor weight = normal({3, 2, 3, 3}, kFloat64, 21, device());
  const Tensor z = ops::conv_transpose2d_epilogue(x, weight, {}, kUpsample, kBlock);
  EXPECT_EQ(z.shape(), Shape({2, 8, 10}));
  const Tensor none =
      zeros({0, 3, 4, 5}, {.dtype = kFloat64, .device = device(), .requires_grad = true});
  const Tensor leaf = weight.clone().requires_grad_();
  const Tensor nothing = ops::conv_transpose2d_epilogue(none, leaf, {}, kUpsample, kBlock);
  EXPECT_EQ(nothing.shape(), Shape({0, 2, 8, 10}));
  nothing.backward(zeros(nothing.shape(), {.dtype = kFloat64, .device = device()}));
  EXPECT_EQ(none.grad().shape(), none.shape());
  expect_close(leaf.grad(), zeros(weight.shape(), {.device = device()}), 0);
}

TEST_P(FusedBlockOnDevice, ChangedInputIsNoticedInBackward) {
  const Tensor x = normal({1, 1, 3, 3}, kFloat64, 22, device());
  const Tensor weight = normal({1, 1, 3, 3}, kFloat64, 23, device()).requires_grad_();
  const Tensor z = ops::conv_transpose2d_epilogue(x, weight, {}, kUpsample, kBlock);
  x.fill_(0);
  EXPECT_THROW(z.backward(ones(z.shape(), {.dtype = kFloat64, .device = device()})), Error);
}

TEST_P(FusedBlockOnDevice, ExtremeValuesStayFinite) {
  // y runs over the whole range of float32 through a kernel of one 1.
  const std::vector<float> values{-3e38F, -1e10F, -1000, -104, -88, -87,  -20,   -1e-30F,
                                  0,      1e-30F, 20,    88,   104, 1000, 1e10F, 3e38F};
  const Tensor x = tensor(values, {1, 1, 4, 4}).to(device()).requires_grad_();
  const Tensor z = ops::conv_transpose2d_epilogue(x, ones({1, 1, 1, 1}, {.device = device()}), {},
                                                  {}, ops::Epilogue{});
  z.backward(ones(z.shape(), {.device = device()}));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double y = values[i];
    // CUDA's __expf, in which mish(y) = y·e^y where y is very negative, is off by 1.16·|y| units in
    // the last place (CUDA C++ Programming Guide, "Intrinsic Functions").
    const double relative = 1e-6 + (device().is_cuda() && y < 0 ? 1.16 * 0x1p-23 * -y : 0);
    EXPECT_NEAR(z.to_vector<double>()[i], test::mish(y),
                1e-36 + relative * std::abs(test::mish(y)));
    const double slope = y < -700 ? 0 : y > 700 ? 1 : test::mish_slope(y);
    EXPECT_NEAR(x.grad().to_vector<double>()[i], slope, 1e-35 + relative * std::abs(slope));
  }
}

TEST_P(FusedBlockOnDevice, InfinitiesAndNanHaveTheGradientsOfTheUnfusedOps) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> values{-inf, inf, nan, -1, 1, 0.5, -1.5, 3};
  const Tensor one = ones({1, 1, 1, 1}, {.device = device()});
  for (const Float32Precision precision : {Float32Precision::Float32, Float32Precision::Tf32}) {
    const Float32PrecisionGuard guard(precision);
    for (const bool mish : {false, true}) {
      for (const double far : {1.0, inf}) {  // without bounds there is no clamp at all
        for (const bool at_bounds : {false, true}) {
          const ops::Epilogue epilogue{.mish = mish,
                                       .add = 0.5,
                                       .min = -far,
                                       .max = far,
                                       .scale = 2,
                                       .gradient_at_bounds = at_bounds};
          const Tensor fused = tensor(values, {1, 1, 2, 4}).to(device(), DType::Float32);
          const Tensor chain = fused.clone();
          fused.requires_grad_();
          chain.requires_grad_();
          const Tensor z = ops::conv_transpose2d_epilogue(fused, one, {}, {}, epilogue);
          Tensor expected = mish ? ops::mish(chain) : chain;
          expected = expected + 0.5;
          if (epilogue.clamps()) {
            expected =
                at_bounds ? ops::clamp(expected, -far, far) : ops::hardtanh(expected, -far, far);
          }
          expected = expected * 2;
          test::expect_close(z, expected, 1e-5);
          z.backward(ones(z.shape(), {.device = device()}));
          expected.backward(ones(z.shape(), {.device = device()}));
          test::expect_close(fused.grad(), chain.grad(), 1e-5);
        }
      }
    }
  }
}

// ---- bad input ----------------------------------------------------------------------------------

Tensor call_with(const ops::Epilogue& epilogue) {
  return ops::conv_transpose2d_epilogue(zeros({1, 1, 4, 4}), zeros({1, 1, 3, 3}), {}, {}, epilogue);
}

TEST(FusedBlockErrors, BoundsInTheWrongOrder) {
  expect_error([] { call_with({.min = 1, .max = -1}); },
               {"conv_transpose2d_epilogue: min must be below max", "min=1", "max=-1"});
  expect_error([] { call_with({.min = 0.5, .max = 0.5}); }, {"min=0.5", "max=0.5"});
}

TEST(FusedBlockErrors, NotANumber) {
  expect_error([] { call_with({.min = NAN}); }, {"min must be below max", "nan"});
  expect_error([] { call_with({.add = NAN}); }, {"must not be NaN"});
  expect_error([] { call_with({.scale = NAN}); }, {"must not be NaN"});
}

TEST(FusedBlockErrors, ShapesAsOfTheConvolutionUnderItsOwnName) {
  expect_error(
      [] {
        ops::conv_transpose2d_epilogue(zeros({1, 3, 4, 4}), zeros({2, 1, 3, 3}), {}, {}, {});
      },
      {"conv_transpose2d_epilogue: x", "3 channels", "needs 2"});
  expect_error(
      [] {
        ops::conv_transpose2d_epilogue(zeros({1, 1, 4, 4}), zeros({1, 1, 3, 3}), {},
                                       {.output_padding = 2}, {});
      },
      {"conv_transpose2d_epilogue: output_padding", "(2, 2)"});
}

TEST(FusedBlockErrors, GradientOfTheWrongShape) {
  expect_error(
      [] {
        fused_backward(zeros({1, 1, 4, 4}), zeros({1, 1, 3, 3}), zeros({1}), zeros({1, 1, 4, 4}),
                       kUpsample);
      },
      {"conv_transpose2d_epilogue_backward: grad_out must be", "[1, 1, 8, 8]", "[1, 1, 4, 4]"});
}

}  // namespace
}  // namespace tenon
