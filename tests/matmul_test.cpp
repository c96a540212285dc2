#include "tenon/ops/matmul.h"

#include <gtest/gtest.h>

#include <array>

#include "compare.h"
#include "golden.h"
#include "support/threads.h"
#include "tenon/core/autograd.h"
#include "tenon/core/gradcheck.h"
#include "tenon/core/parallel.h"
#include "tenon/core/precision.h"
#include "tenon/ops/binary.h"

namespace tenon {
namespace {

using test::expect_close;
using test::expect_error;
using test::normal;
using test::scattered;

/// [.., m, k] x [.., k, n] of equal batches, element by element.
Tensor reference(const Tensor& a, const Tensor& b) {
  const std::int64_t m = a.size(-2);
  const std::int64_t k = a.size(-1);
  const std::int64_t n = b.size(-1);
  const std::vector<double> left = a.to_vector<double>();
  const std::vector<double> right = b.to_vector<double>();
  Shape shape = a.shape();
  shape.back() = n;
  std::vector<double> y(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < y.size(); ++i) {
    const auto column = static_cast<std::int64_t>(i) % n;
    const auto row = static_cast<std::int64_t>(i) / n;  // of all matrices
    for (std::int64_t j = 0; j < k; ++j) {
      y[i] += left[static_cast<std::size_t>(row * k + j)] *
              right[static_cast<std::size_t>((row / m * k + j) * n + column)];
    }
  }
  return tensor(y, shape);
}

class MatmulGolden : public testing::TestWithParam<std::string> {};

TEST_P(MatmulGolden, MatchesPyTorchForwardAndBackward) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const test::GoldenCase golden = test::read_golden("matmul.safetensors").at(GetParam());
    for (const DType dtype : {DType::Float64, DType::Float32}) {
      const double tolerance = dtype == DType::Float64 ? 1e-13 : 1e-5;
      const Tensor a = test::leaf(golden.get("a"), dtype, device);
      const Tensor b = test::leaf(golden.get("b"), dtype, device);
      const Tensor y = ops::matmul(a, b);
      expect_close(y, golden.get("y"), tolerance, tolerance);
      y.backward(golden.get("grad_out").to(device, dtype));
      expect_close(a.grad(), golden.get("grad_a"), tolerance, tolerance);
      expect_close(b.grad(), golden.get("grad_b"), tolerance, tolerance);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(PyTorch, MatmulGolden,
                         testing::Values("matrix", "vector_vector", "matrix_vector",
                                         "vector_matrix", "batch_vector", "vector_batch", "batched",
                                         "broadcast", "shared"),
                         [](const auto& test) { return test.param; });

class LinearOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(LinearOnDevice);

TEST_P(LinearOnDevice, MatchesPyTorchForwardAndBackward) {
  const test::GoldenCase golden = test::read_golden("matmul.safetensors").at("linear");
  const Tensor x = test::leaf(golden.get("x"), DType::Float64, device());
  const Tensor weight = test::leaf(golden.get("weight"), DType::Float64, device());
  const Tensor bias = test::leaf(golden.get("bias"), DType::Float64, device());
  const Tensor y = ops::linear(x, weight, bias);
  expect_close(y, golden.get("y"), 1e-13, 1e-13);
  y.backward(golden.get("grad_out").to(device()));
  expect_close(x.grad(), golden.get("grad_x"), 1e-13, 1e-13);
  expect_close(weight.grad(), golden.get("grad_weight"), 1e-13, 1e-13);
  expect_close(bias.grad(), golden.get("grad_bias"), 1e-13, 1e-13);
}

class MatmulDType : public testing::TestWithParam<DType> {};

TEST_P(MatmulDType, MatchesFloat64WithinRounding) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Tensor a = normal({3, 37, 65}, GetParam(), 1, device);
    const Tensor b = normal({3, 65, 29}, GetParam(), 2, device);
    const double tolerance = GetParam() == DType::Float64   ? 1e-14
                             : GetParam() == DType::Float32 ? 1e-6
                             : GetParam() == DType::Float16 ? 5e-4
                                                            : 4e-3;
    const Tensor y = ops::matmul(a, b);
    EXPECT_EQ(y.dtype(), GetParam());
    EXPECT_LE(test::relative_error(y, reference(a, b)), tolerance);
  }
}

TEST_P(MatmulDType, ReadsStridedOperandsAsTheyLie) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Tensor a = normal({2, 33, 18}, GetParam(), 3, device);
    const Tensor b = normal({2, 18, 41}, GetParam(), 4, device);
    const Tensor expected = ops::matmul(a, b);
    const Tensor a_turned = a.transpose(1, 2).contiguous().transpose(1, 2);
    const Tensor b_turned = b.transpose(1, 2).contiguous().transpose(1, 2);
    for (const Tensor& left : {a, a_turned, scattered(a)}) {
      for (const Tensor& right : {b, b_turned, scattered(b)}) {
        EXPECT_LE(test::relative_error(ops::matmul(left, right), expected),
                  GetParam() == DType::Float64 ? 1e-14 : 1e-6);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, MatmulDType,
                         testing::Values(DType::Float64, DType::Float32, DType::Float16,
                                         DType::BFloat16),
                         [](const auto& test) { return std::string(name(test.param)); });

class MatmulOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(MatmulOnDevice);

TEST_P(MatmulOnDevice, CoversSeveralTilesInEveryDirection) {
  const Tensor a = normal({300, 700}, DType::Float64, 5, device());
  const Tensor b = normal({700, 1100}, DType::Float64, 6, device());
  EXPECT_LE(test::relative_error(ops::matmul(a, b), reference(a, b)), 1e-14);
  const Tensor gaps = ops::matmul(scattered(a), scattered(b));
  EXPECT_LE(test::relative_error(gaps, reference(a, b)), 1e-14);
}

TEST_P(MatmulOnDevice, SumsHalfPrecisionInFloat32) {
  // 4096 ones: a float16 sum would stop at 2048.
  const Tensor a = ones({1, 4096}, {.dtype = DType::Float16, .device = device()});
  EXPECT_EQ(ops::matmul(a, a.transpose(0, 1)).item<double>(), 4096);
}

TEST(Matmul, BroadcastOperandIsNotCopied) {
  const Tensor a = normal({4, 1, 5, 3}, DType::Float64, 7);
  const Tensor b = normal({6, 3, 2}, DType::Float64, 8);
  const Tensor expected =
      reference(a.expand({4, 6, 5, 3}).contiguous(), b.expand({4, 6, 3, 2}).contiguous());
  const std::int64_t before = memory_stats(Device::cpu()).in_use;
  reset_peak_memory(Device::cpu());
  const Tensor y = ops::matmul(a, b);
  EXPECT_LE(memory_stats(Device::cpu()).peak - before, 8 * y.numel() + 1024);
  expect_close(y, expected, 1e-14, 1e-14);
}

TEST_P(MatmulOnDevice, ExpandedRowsAndColumns) {
  const Tensor row = normal({1, 6}, DType::Float64, 9, device()).expand({4, 6});
  const Tensor column = normal({6, 1}, DType::Float64, 10, device()).expand({6, 5});
  expect_close(ops::matmul(row, column), reference(row.contiguous(), column.contiguous()), 1e-14,
               1e-14);
}

TEST_P(MatmulOnDevice, OperandsMayBeginAnywhere) {
  for (const DType dtype : {DType::Float64, DType::Float32, DType::Float16}) {
    SCOPED_TRACE(name(dtype));
    // Rows 64 apart would allow vector loads; a first column of 1 does not.
    const Tensor a = normal({64, 64}, dtype, 21, device()).narrow(1, 1, 48);
    const Tensor b = normal({64, 64}, dtype, 22, device()).narrow(1, 3, 32).narrow(0, 5, 48);
    const Tensor bias = normal({33}, dtype, 23, device()).narrow(0, 1, 32);
    const double tolerance = dtype == DType::Float64   ? 1e-14
                             : dtype == DType::Float32 ? 1e-6
                                                       : 5e-4;
    EXPECT_LE(test::relative_error(ops::matmul(a, b), reference(a, b)), tolerance);
    const Tensor sum = ops::linear(a, b.transpose(0, 1), bias);
    const Tensor expected = reference(a, b) + bias.to(Device::cpu(), DType::Float64);
    EXPECT_LE(test::relative_error(sum, expected), tolerance);
  }
}

TEST_P(MatmulOnDevice, TheSameSizesInOtherPlacesOrdersAndPrecisionsInAnyOrder) {
  // What was chosen for one product must not serve another that merely looks alike.
  Generator generator(11);
  const Tensor a_values = randn({24, 33}, {.dtype = DType::Float64}, generator);
  const Tensor b_values = randn({33, 40}, {.dtype = DType::Float64}, generator);
  const Tensor expected = ops::matmul(a_values, b_values);
  for (int repeat = 0; repeat < 2; ++repeat) {
    for (const Float32Precision precision : {Float32Precision::Tf32, Float32Precision::Float32}) {
      const Float32PrecisionGuard guard(precision);
      const double bound = precision == Float32Precision::Tf32 ? 2e-3 : 2e-6;
      for (const std::int64_t shift : {0, 1, 3}) {
        for (const bool turned : {false, true}) {
          const Tensor memory = empty({24 * 33 + shift}, {.device = device()});
          Tensor a = memory.slice(0, shift).reshape(turned ? Shape{33, 24} : Shape{24, 33});
          if (turned) a = a.transpose(0, 1);
          a.copy_(a_values);
          const Tensor b = b_values.to(device(), DType::Float32);
          EXPECT_LE(test::relative_error(ops::matmul(a, b), expected), bound);
        }
      }
    }
  }
}

TEST_P(MatmulOnDevice, EmptySizes) {
  EXPECT_EQ(
      ops::matmul(zeros({0, 3}, {.device = device()}), zeros({3, 4}, {.device = device()})).shape(),
      Shape({0, 4}));
  EXPECT_EQ(ops::matmul(zeros({0, 2, 3}, {.device = device()}), zeros({3, 4}, {.device = device()}))
                .shape(),
            Shape({0, 2, 4}));
  const Tensor y =
      ops::matmul(zeros({2, 0}, {.device = device()}), zeros({0, 3}, {.device = device()}));
  expect_close(y, zeros({2, 3}, {.device = device()}), 0);
  const Tensor a = zeros({2, 0}, {.device = device(), .requires_grad = true});
  const Tensor b = zeros({0, 3}, {.device = device(), .requires_grad = true});
  ops::matmul(a, b).backward(ones({2, 3}, {.device = device()}));
  EXPECT_EQ(a.grad().shape(), Shape({2, 0}));
  EXPECT_EQ(b.grad().shape(), Shape({0, 3}));
}

TEST_P(MatmulOnDevice, PropagatesNaNAndInfinity) {
  const Tensor a = tensor(std::vector<double>{NAN, 1, INFINITY, 1}, {2, 2}).to(device());
  const Tensor b = tensor(std::vector<double>{1, 2}, {2, 1}).to(device());
  expect_close(ops::matmul(a, b), tensor(std::vector<double>{NAN, INFINITY}, {2, 1}).to(device()),
               0);
}

TEST(Matmul, SameBitsForAnyNumberOfThreads) {
  const int threads = num_threads();
  const Tensor a = normal({5, 150, 70}, DType::Float32, 11);
  const Tensor b = normal({5, 70, 600}, DType::Float32, 12);
  set_num_threads(1);
  const Tensor expected = ops::matmul(a, b);
  for (const int count : {2, 7}) {
    set_num_threads(count);
    test::expect_same_bits(ops::matmul(a, b), expected);
  }
  set_num_threads(threads);
}

TEST(Matmul, PartsOfSumsAndNarrowTilesAreRightAndTheSameForAnyNumberOfThreads) {
  for (const DType dtype : {DType::Float32, DType::Float64, DType::BFloat16}) {
    // A result of one tile; one of a row of tiles.
    for (const auto& [m, k, n] : {std::array{64, 1568, 32}, std::array{30, 1000, 47},
                                  std::array{64, 32, 1568}, std::array{7, 1500, 333}}) {
      const Tensor a = normal({m, k}, DType::Float64, 13).to(dtype);
      const Tensor b = normal({n, k}, DType::Float64, 14).to(dtype);
      const Tensor bias = normal({n}, DType::Float64, 15).to(dtype);
      const std::vector<Tensor> results =
          test::for_all_threads([&] { return std::vector<Tensor>{ops::linear(a, b, bias)}; });
      const Tensor exact =
          ops::linear(a.to(DType::Float64), b.to(DType::Float64), bias.to(DType::Float64));
      EXPECT_LE(test::relative_error(results[0], exact), dtype == DType::BFloat16 ? 5e-3 : 1e-6);
    }
  }
}

struct Shapes {
  Shape a, b;
};

class MatmulGradient : public testing::TestWithParam<Shapes> {};

TEST_P(MatmulGradient, PassesGradcheckAndGradgradcheck) {
  const Float32PrecisionGuard strict(Float32Precision::Float32);
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Tensor a = scattered(normal(GetParam().a, DType::Float64, 13)).requires_grad_();
    const Tensor b = scattered(normal(GetParam().b, DType::Float64, 14)).requires_grad_();
    const auto product = [](std::span<const Tensor> in) { return ops::matmul(in[0], in[1]); };
    EXPECT_TRUE(gradcheck(test::on_device(device, product), {a, b}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device, product), {a, b}));
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, MatmulGradient,
                         testing::Values(Shapes{{3, 5}, {5, 7}}, Shapes{{5}, {5}},
                                         Shapes{{3, 5}, {5}}, Shapes{{5}, {5, 3}},
                                         Shapes{{2, 3, 5}, {5}}, Shapes{{5}, {2, 5, 3}},
                                         Shapes{{2, 3, 5}, {2, 5, 1}}, Shapes{{2, 3, 5}, {5, 3}},
                                         Shapes{{3, 5}, {2, 5, 3}},
                                         Shapes{{3, 1, 1, 5}, {2, 5, 3}}));

TEST_P(LinearOnDevice, GradcheckWithAndWithoutBiasForEveryRank) {
  const auto function = [](std::span<const Tensor> in) {
    return ops::linear(in[0], in[1], in.size() > 2 ? in[2] : Tensor());
  };
  const Tensor weight = scattered(normal({3, 5}, DType::Float64, 15)).requires_grad_();
  const Tensor bias = normal({3}, DType::Float64, 16).requires_grad_();
  for (const Shape& shape : {Shape{5}, Shape{7, 5}, Shape{2, 1, 5}}) {
    const Tensor x = scattered(normal(shape, DType::Float64, 17)).requires_grad_();
    EXPECT_TRUE(gradcheck(test::on_device(device(), function), {x, weight}));
    EXPECT_TRUE(gradcheck(test::on_device(device(), function), {x, weight, bias}));
    EXPECT_TRUE(gradgradcheck(test::on_device(device(), function), {x, weight, bias}));
  }
}

TEST_P(LinearOnDevice, AddsBiasInFloat32ForHalfPrecision) {
  const Tensor x = normal({9, 33}, DType::Float16, 18, device());
  const Tensor weight = normal({5, 33}, DType::Float16, 19, device());
  const Tensor bias = normal({5}, DType::Float16, 20, device());
  const Tensor expected =
      ops::linear(x.to(DType::Float64), weight.to(DType::Float64), bias.to(DType::Float64));
  EXPECT_LE(test::relative_error(ops::linear(x, weight, bias), expected), 5e-4);
}

TEST(MatmulErrors, NameTheShapes) {
  expect_error([] { ops::matmul(zeros({2, 3}), zeros({4, 5})); }, {"matmul", "[2, 3]", "[4, 5]"});
  expect_error([] { ops::matmul(zeros({3}), zeros({4})); }, {"matmul", "[3]", "[4]"});
  expect_error([] { ops::matmul(scalar_tensor(1.0), zeros({4})); }, {"matmul", "1 dimension"});
  expect_error([] { ops::matmul(zeros({2, 3, 4}), zeros({3, 4, 5})); }, {"matmul", "broadcast"});
}

TEST(MatmulErrors, NameTheDTypes) {
  expect_error(
      [] {
        ops::matmul(zeros({2, 2}), zeros({2, 2}, {.dtype = DType::Float64}));
      },
      {"matmul", "float32", "float64", "to()"});
  expect_error([] { ops::matmul(arange(0, 4), arange(0, 4)); }, {"matmul", "int64"});
}

TEST(LinearErrors, NameTheShapes) {
  expect_error([] { ops::linear(zeros({2, 3}), zeros({5, 4})); }, {"linear", "[5, 4]", "[2, 3]"});
  expect_error([] { ops::linear(zeros({2, 3}), zeros({3})); }, {"linear", "[out, in]"});
  expect_error([] { ops::linear(zeros({2, 3}), zeros({5, 3}), zeros({4})); }, {"linear", "bias"});
}

}  // namespace
}  // namespace tenon
