#include "tenon/ops/conv.h"

#include <gtest/gtest.h>

#include "compare.h"
#include "conv_reference.h"
#include "tenon/core/gradcheck.h"
#include "tenon/core/parallel.h"

namespace tenon {
namespace {

using test::expect_close;
using test::expect_error;
using test::normal;
using test::scattered;

constexpr auto kFloat64 = DType::Float64;

struct Case {
  Shape x, weight;
  ops::Conv2dOptions options;
};

std::vector<Case> cases() {
  return {{{2, 3, 6, 7}, {4, 3, 3, 3}, {}},
          {{1, 1, 5, 5}, {1, 1, 1, 1}, {}},
          {{1, 2, 7, 5}, {3, 2, 3, 2}, {.stride = {2, 3}, .padding = {1, 2}}},
          {{2, 4, 9, 8}, {6, 2, 3, 3}, {.padding = {2, 1}, .dilation = {2, 1}, .groups = 2}},
          {{1, 3, 6, 6}, {6, 1, 5, 3}, {.stride = {1, 2}, .padding = {2, 1}, .groups = 3}},
          {{3, 2, 8, 8}, {2, 2, 2, 2}, {.stride = 4, .dilation = 3}},
          {{2, 5, 3, 4}, {7, 5, 1, 1}, {}},
          {{1, 2, 3, 3}, {2, 2, 1, 1}, {.stride = 2, .padding = 1}}};
}

class Conv2d : public testing::TestWithParam<int> {
 protected:
  Case sizes() const { return cases()[static_cast<std::size_t>(GetParam())]; }
};

TEST_P(Conv2d, MatchesDefinition) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Case c = sizes();
    const Tensor x = normal(c.x, kFloat64, 1, device);
    const Tensor weight = normal(c.weight, kFloat64, 2, device);
    const Tensor bias = normal({c.weight[0]}, kFloat64, 3, device);
    for (const Tensor& add : {bias, Tensor()}) {
      const Tensor y = ops::conv2d(x, weight, add, c.options);
      const Tensor expected = test::reference_conv2d(x, weight, add, c.options, y.shape()).tensor();
      EXPECT_LE(test::relative_error(y, expected), 1e-14);
      const Tensor single = ops::conv2d(x.to(DType::Float32), weight.to(DType::Float32),
                                        add.defined() ? add.to(DType::Float32) : add, c.options);
      EXPECT_LE(test::relative_error(single, expected), 1e-6);
      const Tensor gaps = ops::conv2d(scattered(x), scattered(weight),
                                      add.defined() ? scattered(add) : add, c.options);
      test::expect_same_bits(gaps, y);
    }
  }
}

TEST_P(Conv2d, PassesGradcheckAndGradgradcheck) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Case c = sizes();
    const Tensor x = scattered(normal(c.x, kFloat64, 4)).requires_grad_();
    const Tensor weight = scattered(normal(c.weight, kFloat64, 5)).requires_grad_();
    const Tensor bias = normal({c.weight[0]}, kFloat64, 6).requires_grad_();
    const auto function = [&](std::span<const Tensor> in) {
      return ops::conv2d(in[0], in[1], in[2], c.options);
    };
    EXPECT_TRUE(gradcheck(test::on_device(device, function), {x, weight, bias}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device, function), {x, weight, bias}));
  }
}

// Gradients are computed together where several are wanted.
TEST_P(Conv2d, AnyGradientsAloneAreThoseOfAll) {
  for (const DType dtype : {DType::Float32, kFloat64}) {
    const Case c = sizes();
    const std::vector<Tensor> operands{normal(c.x, dtype, 21), normal(c.weight, dtype, 22),
                                       normal({c.weight[0]}, dtype, 23)};
    const auto gradients = [&](unsigned wanted) {
      std::vector<Tensor> leaves;
      for (std::size_t i = 0; i < operands.size(); ++i) {
        leaves.push_back(operands[i].clone().requires_grad_((wanted >> i & 1U) != 0));
      }
      const Tensor y = ops::conv2d(leaves[0], leaves[1], leaves[2], c.options);
      y.backward(normal(y.shape(), dtype, 24));
      return leaves;
    };
    const std::vector<Tensor> all = gradients(7);
    for (unsigned wanted = 1; wanted < 7; ++wanted) {
      SCOPED_TRACE(testing::Message() << "gradients " << wanted);
      const std::vector<Tensor> some = gradients(wanted);
      for (std::size_t i = 0; i < operands.size(); ++i) {
        ASSERT_EQ(some[i].grad().defined(), (wanted >> i & 1U) != 0);
        if (some[i].grad().defined()) {
          EXPECT_LE(test::relative_error(some[i].grad(), all[i].grad()), 1e-6);
        }
      }
    }
  }
}

TEST_P(Conv2d, WeightGradPassesGradcheck) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Case c = sizes();
    const Tensor x = normal(c.x, kFloat64, 7);
    const Tensor grad =
        normal(ops::conv2d(x, normal(c.weight, kFloat64, 8), {}, c.options).shape(), kFloat64, 9);
    x.requires_grad_();
    grad.requires_grad_();
    const auto function = [&](std::span<const Tensor> in) {
      return ops::conv2d_weight_grad(in[0], in[1], {c.weight[2], c.weight[3]}, c.options);
    };
    EXPECT_TRUE(gradcheck(test::on_device(device, function), {x, grad}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device, function), {x, grad}));
  }
}

TEST_P(Conv2d, HalfPrecisionIsRightWithinItsRounding) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Case c = sizes();
    for (const DType dtype : {DType::Float16, DType::BFloat16}) {
      const double tolerance = dtype == DType::Float16 ? 6e-4 : 5e-3;
      const Tensor x = test::leaf(normal(c.x, dtype, 10, device), dtype);
      const Tensor weight = test::leaf(normal(c.weight, dtype, 11, device), dtype);
      const Tensor x64 = test::leaf(x, kFloat64);
      const Tensor weight64 = test::leaf(weight, kFloat64);
      const Tensor y = ops::conv2d(x, weight, {}, c.options);
      const Tensor y64 = ops::conv2d(x64, weight64, {}, c.options);
      EXPECT_EQ(y.dtype(), dtype);
      EXPECT_LE(test::relative_error(y, y64), tolerance);
      y.backward(ones(y.shape(), {.dtype = dtype, .device = device}));
      y64.backward(ones(y.shape(), {.dtype = kFloat64, .device = device}));
      EXPECT_LE(test::relative_error(x.grad(), x64.grad()), tolerance);
      EXPECT_LE(test::relative_error(weight.grad(), weight64.grad()), tolerance);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Conv2d, testing::Range(0, 8));

class Conv2dValuesOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(Conv2dValuesOnDevice);

TEST_P(Conv2dValuesOnDevice, OneImageWithoutBatch) {
  const Tensor x = normal({3, 6, 5}, kFloat64, 12, device());
  const Tensor weight = normal({2, 3, 3, 3}, kFloat64, 13, device());
  const Tensor y = ops::conv2d(x, weight);
  EXPECT_EQ(y.shape(), Shape({2, 4, 3}));
  expect_close(y, ops::conv2d(x.unsqueeze(0), weight).squeeze(0), 0);
}

/// The same values in a contiguous tensor that begins one element after aligned memory.
Tensor moved_by_one(const Tensor& x) {
  const Tensor flat = zeros({x.numel() + 1}, {.dtype = x.dtype(), .device = x.device()});
  const Tensor view = flat.narrow(0, 1, x.numel());
  view.copy_(x.reshape({-1}));
  return view.reshape(x.shape());
}

TEST_P(Conv2dValuesOnDevice, OperandsMayBeginAnywhere) {
  const ops::Conv2dOptions options{.padding = 1};
  for (const DType dtype : {DType::Float32, kFloat64, DType::Float16}) {
    SCOPED_TRACE(name(dtype));
    const Tensor x = normal({2, 8, 8, 8}, dtype, 20, device());
    const Tensor weight = normal({4, 8, 3, 3}, dtype, 21, device());
    const Tensor grad = normal({2, 4, 8, 8}, dtype, 22, device());
    const auto results = [&](const Tensor& a, const Tensor& b, const Tensor& g) {
      return std::vector<Tensor>{ops::conv2d(a, b, {}, options),
                                 ops::conv2d_weight_grad(a, g, {3, 3}, options)};
    };
    const std::vector<Tensor> expected = results(x, weight, grad);
    const std::vector<Tensor> moved =
        results(moved_by_one(x), moved_by_one(weight), moved_by_one(grad));
    for (std::size_t i = 0; i < 2; ++i) test::expect_same_bits(moved[i], expected[i]);
  }
}

TEST_P(Conv2dValuesOnDevice, EmptyBatch) {
  const Tensor x = zeros({0, 3, 6, 5}, {.device = device(), .requires_grad = true});
  const Tensor weight = ones({2, 3, 3, 3}, {.device = device(), .requires_grad = true});
  const Tensor bias = ones({2}, {.device = device(), .requires_grad = true});
  const Tensor y = ops::conv2d(x, weight, bias);
  EXPECT_EQ(y.shape(), Shape({0, 2, 4, 3}));
  y.backward(zeros(y.shape(), {.device = device()}));
  EXPECT_EQ(x.grad().shape(), x.shape());
  expect_close(weight.grad(), zeros(weight.shape(), {.device = device()}), 0);
  expect_close(bias.grad(), zeros({2}, {.device = device()}), 0);
}

TEST_P(Conv2dValuesOnDevice, ManyBlocksOfPositions) {
  // 64 channels of 3x3 leave 227 positions a block, of 2,500.
  const Tensor x = normal({1, 64, 50, 50}, kFloat64, 14, device());
  const Tensor weight = normal({2, 64, 3, 3}, kFloat64, 15, device());
  const ops::Conv2dOptions options{.padding = 1};
  const Tensor y = ops::conv2d(x, weight, {}, options);
  EXPECT_LE(
      test::relative_error(y, test::reference_conv2d(x, weight, {}, options, y.shape()).tensor()),
      1e-14);
}

TEST(Conv2dValues, ScratchMemoryDoesNotGrowWithTheImage) {
  const auto scratch = [](std::int64_t size) {
    const Tensor x = zeros({2, 16, size, size});
    const Tensor weight = zeros({16, 16, 3, 3});
    const std::int64_t before = memory_stats(Device::cpu()).in_use;
    reset_peak_memory(Device::cpu());
    const Tensor y = ops::conv2d(x, weight, {}, {.padding = 1});
    return memory_stats(Device::cpu()).peak - before - 4 * y.numel();
  };
  const int threads = num_threads();
  set_num_threads(1);
  // A block of columns, the rows of the image that it reads, and a panel of each operand.
  for (const std::int64_t size : {64, 192, 500}) {
    EXPECT_LE(scratch(size), (1 << 19) + (1 << 17)) << size;
  }
  set_num_threads(threads);
}

TEST(Conv2dValues, SameBitsForAnyNumberOfThreads) {
  const int threads = num_threads();
  const Tensor x = normal({9, 6, 20, 20}, DType::Float32, 16);
  const Tensor weight = normal({8, 3, 3, 3}, DType::Float32, 17);
  const ops::Conv2dOptions options{.stride = 2, .padding = 1, .groups = 2};
  set_num_threads(1);
  const Tensor y = ops::conv2d(x, weight, {}, options);
  const Tensor grad = ops::conv2d_weight_grad(x, y, 3, options);
  for (const int count : {2, 7}) {
    set_num_threads(count);
    test::expect_same_bits(ops::conv2d(x, weight, {}, options), y);
    test::expect_same_bits(ops::conv2d_weight_grad(x, y, 3, options), grad);
  }
  set_num_threads(threads);
}

TEST(Conv2dValues, PropagatesNaN) {
  const Tensor x = zeros({1, 1, 3, 3});
  x.select(2, 0).select(2, 0).fill_(NAN);
  const Tensor y = ops::conv2d(x, ones({1, 1, 2, 2}));
  expect_close(y, tensor(std::vector<double>{NAN, 0, 0, 0}, {1, 1, 2, 2}), 0);
}

// ---- bad input ----------------------------------------------------------------------------------

Tensor call(const Shape& x, const Shape& weight, const ops::Conv2dOptions& options = {}) {
  return ops::conv2d(zeros(x), zeros(weight), {}, options);
}

TEST(Conv2dErrors, Rank) {
  expect_error([] { call({8, 8}, {1, 1, 3, 3}); }, {"conv2d: x must be", "[8, 8]", "2 dim"});
  expect_error([] { call({1, 1, 8, 8}, {1, 3, 3}); }, {"conv2d: weight must be", "[1, 3, 3]"});
}

TEST(Conv2dErrors, Channels) {
  expect_error([] { call({1, 3, 8, 8}, {4, 2, 3, 3}); }, {"conv2d", "3 channels", "needs 2"});
  expect_error([] { call({1, 4, 8, 8}, {3, 2, 3, 3}, {.groups = 2}); }, {"groups=2", "3 output"});
  expect_error([] { call({1, 0, 8, 8}, {3, 2, 3, 3}); }, {"conv2d", "empty", "[1, 0, 8, 8]"});
  expect_error(
      [] {
        ops::conv2d(zeros({1, 1, 5, 5}), zeros({2, 1, 3, 3}), zeros({3}));
      },
      {"conv2d: bias must be [2]", "[3]"});
}

TEST(Conv2dErrors, Options) {
  expect_error([] { call({1, 1, 8, 8}, {1, 1, 3, 3}, {.stride = 0}); }, {"stride", "(0, 0)"});
  expect_error(
      [] {
        call({1, 1, 8, 8}, {1, 1, 3, 3}, {.padding = {0, -1}});
      },
      {"padding", "(0, -1)"});
  expect_error(
      [] {
        call({1, 1, 8, 8}, {1, 1, 3, 3}, {.dilation = {0, 1}});
      },
      {"dilation", "(0, 1)"});
  expect_error([] { call({1, 1, 8, 8}, {1, 1, 3, 3}, {.groups = 0}); }, {"groups", "got 0"});
  expect_error([] { call({1, 1, 8, 8}, {1, 1, 3, 3}, {.padding = INT64_MAX / 2}); }, {"padding"});
}

TEST(Conv2dErrors, KernelThatDoesNotFit) {
  expect_error([] { call({1, 1, 4, 8}, {1, 1, 5, 3}); }, {"kernel (5, 3)", "does not fit"});
  expect_error([] { call({1, 1, 4, 4}, {1, 1, 3, 3}, {.dilation = 2}); }, {"does not fit"});
}

TEST(Conv2dErrors, DTypes) {
  expect_error(
      [] {
        ops::conv2d(zeros({1, 1, 5, 5}), zeros({1, 1, 3, 3}, {.dtype = kFloat64}));
      },
      {"conv2d", "float32", "float64"});
  const TensorOptions int64{.dtype = DType::Int64};
  expect_error(
      [&] {
        ops::conv2d(zeros({1, 1, 5, 5}, int64), zeros({1, 1, 3, 3}, int64));
      },
      {"conv2d", "int64"});
}

TEST(Conv2dErrors, WeightGradShapes) {
  expect_error(
      [] {
        ops::conv2d_weight_grad(zeros({1, 1, 5, 5}), zeros({1, 1, 4, 4}), 3);
      },
      {"conv2d_weight_grad", "[1, Cout, 3, 3]", "[1, 1, 4, 4]"});
  expect_error(
      [] {
        ops::conv2d_weight_grad(zeros({1, 1, 5, 5}), zeros({1, 1, 3}), 3);
      },
      {"conv2d_weight_grad", "[1, 1, 3]"});
}

}  // namespace
}  // namespace tenon
