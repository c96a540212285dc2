#include "tenon/ops/binary.h"

#include <limits>

#include "tenon/core/parallel.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

using TensorTensor = Tensor (*)(const Tensor&, const Tensor&);

OpCase make(const std::string& name, TensorTensor function,
            const std::function<double(double, double)>& reference, double low = -3,
            double high = 3, bool integers = true) {
  OpCase result{.name = name,
                .function = [function](Inputs x) { return function(x[0], x[1]); },
                .reference = elementwise([reference](Values v) { return reference(v[0], v[1]); }),
                .shapes = broadcast_shapes_of_two(),
                .low = low,
                .high = high};
  // Gradients of the smaller operand are sums of up to a thousand elements.
  result.slack = 4;
  if (integers) result.dtypes.push_back(DType::Int64);
  return result;
}

std::vector<OpCase> tensor_cases() {
  return {
      make("add", ops::add, [](double a, double b) { return a + b; }),
      make("sub", ops::sub, [](double a, double b) { return a - b; }),
      make("mul", ops::mul, [](double a, double b) { return a * b; }),
      make(
          "div", ops::div, [](double a, double b) { return a / b; }, 0.5, 3, false),
      make(
          "pow", ops::pow, [](double a, double b) { return std::pow(a, b); }, 0.5, 3),
      make("maximum", ops::maximum, [](double a, double b) { return std::max(a, b); }),
      make("minimum", ops::minimum, [](double a, double b) { return std::min(a, b); }),
  };
}

TENON_OP_TESTS(Binary, tensor_cases());

OpCase make_scalar(const std::string& name, const std::function<Tensor(const Tensor&)>& function,
                   const std::function<double(double)>& reference, double low = -3,
                   double high = 3) {
  return {.name = name,
          .function = [function](Inputs x) { return function(x[0]); },
          .reference = elementwise([reference](Values v) { return reference(v[0]); }),
          .shapes = unary_shapes(),
          .low = low,
          .high = high};
}

std::vector<OpCase> scalar_cases() {
  return {
      make_scalar(
          "add", [](const Tensor& x) { return x + 0.5F; }, [](double x) { return x + 0.5; }),
      make_scalar(
          "add_left", [](const Tensor& x) { return 2 + x; }, [](double x) { return 2 + x; }),
      make_scalar(
          "sub", [](const Tensor& x) { return x - 0.75; }, [](double x) { return x - 0.75; }),
      make_scalar(
          "sub_left", [](const Tensor& x) { return 1 - x; }, [](double x) { return 1 - x; }),
      make_scalar(
          "mul", [](const Tensor& x) { return x * -1.5; }, [](double x) { return x * -1.5; }),
      make_scalar(
          "mul_left", [](const Tensor& x) { return 2.0F * x; }, [](double x) { return 2 * x; }),
      make_scalar(
          "div", [](const Tensor& x) { return x / 3; }, [](double x) { return x / 3; }),
      make_scalar(
          "div_left", [](const Tensor& x) { return 2 / x; }, [](double x) { return 2 / x; }, 0.5,
          3),
      make_scalar(
          "pow_0", [](const Tensor& x) { return ops::pow(x, 0); }, [](double) { return 1; }),
      make_scalar(
          "pow_1", [](const Tensor& x) { return ops::pow(x, 1); }, [](double x) { return x; }),
      make_scalar(
          "pow_2", [](const Tensor& x) { return ops::pow(x, 2); }, [](double x) { return x * x; }),
      make_scalar(
          "pow_3", [](const Tensor& x) { return ops::pow(x, 3); },
          [](double x) { return x * x * x; }),
      make_scalar(
          "pow_minus_1", [](const Tensor& x) { return ops::pow(x, -1); },
          [](double x) { return 1 / x; }, 0.5, 3),
      make_scalar(
          "pow_half", [](const Tensor& x) { return ops::pow(x, 0.5); },
          [](double x) { return std::sqrt(x); }, 0.5, 3),
      make_scalar(
          "pow_2_5", [](const Tensor& x) { return ops::pow(x, 2.5); },
          [](double x) { return std::pow(x, 2.5); }, 0.5, 3),
      make_scalar(
          "pow_left", [](const Tensor& x) { return ops::pow(1.5, x); },
          [](double x) { return std::pow(1.5, x); }),
  };
}

TENON_OP_TESTS(BinaryScalar, scalar_cases());

// ---- what reaches the graph ---------------------------------------------------------------------

TEST(BinaryScalarOp, ShowsTheNumberAsAnAttribute) {
  const ops::BinaryScalarOp plus(ops::BinaryKind::Add, 0.5F);
  EXPECT_EQ(plus.name(), "add");
  EXPECT_EQ(plus.attributes(), (Attributes{{"scalar", 0.5}}));
  const ops::BinaryScalarOp from_one(ops::BinaryKind::Sub, 1, true);
  EXPECT_EQ(from_one.attributes(), (Attributes{{"scalar", std::int64_t{1}}, {"reversed", true}}));
  EXPECT_FALSE(same_op(plus, ops::BinaryOp(ops::BinaryKind::Add)));
}

// ---- dtypes -------------------------------------------------------------------------------------

TEST(Promotion, DimensionedTensorsWiden) {
  const Tensor f32 = ones({2});
  const Tensor f64 = ones({2}, {.dtype = DType::Float64});
  const Tensor f16 = ones({2}, {.dtype = DType::Float16});
  const Tensor bf16 = ones({2}, {.dtype = DType::BFloat16});
  const Tensor i64 = ones({2}, {.dtype = DType::Int64});
  const Tensor u8 = ones({2}, {.dtype = DType::UInt8});
  const Tensor flag = ones({2}, {.dtype = DType::Bool});
  EXPECT_EQ((f32 + f64).dtype(), DType::Float64);
  EXPECT_EQ((f16 + bf16).dtype(), DType::Float32);
  EXPECT_EQ((i64 + f16).dtype(), DType::Float16);
  EXPECT_EQ((u8 + i64).dtype(), DType::Int64);
  EXPECT_EQ((flag + u8).dtype(), DType::UInt8);
  EXPECT_EQ((flag + flag).dtype(), DType::Bool);
}

TEST(Promotion, ZeroDimensionalTensorsWidenOnlyAcrossCategories) {
  const Tensor f32 = ones({2});
  const Tensor i64 = ones({2}, {.dtype = DType::Int64});
  const Tensor u8 = ones({2}, {.dtype = DType::UInt8});
  const Tensor flag = ones({2}, {.dtype = DType::Bool});
  const auto zero_dim = [](DType dtype) { return ones({}, {.dtype = dtype}); };
  EXPECT_EQ((f32 + zero_dim(DType::Float64)).dtype(), DType::Float32);
  EXPECT_EQ((zero_dim(DType::Float64) + f32).dtype(), DType::Float32);
  EXPECT_EQ((u8 + zero_dim(DType::Int64)).dtype(), DType::UInt8);
  EXPECT_EQ((i64 + zero_dim(DType::Float64)).dtype(), DType::Float64);
  EXPECT_EQ((i64 + zero_dim(DType::Float16)).dtype(), DType::Float16);
  EXPECT_EQ((flag + zero_dim(DType::UInt8)).dtype(), DType::UInt8);
  EXPECT_EQ((zero_dim(DType::Float32) + zero_dim(DType::Float64)).dtype(), DType::Float64);
}

TEST(Promotion, NumbersWidenOnlyAcrossCategories) {
  const Tensor f16 = ones({2}, {.dtype = DType::Float16});
  const Tensor u8 = ones({2}, {.dtype = DType::UInt8});
  const Tensor flag = ones({2}, {.dtype = DType::Bool});
  EXPECT_EQ((f16 + 1e-3).dtype(), DType::Float16);
  EXPECT_EQ((u8 + 300).dtype(), DType::UInt8);
  EXPECT_EQ((u8 * 0.5).dtype(), DType::Float32);
  EXPECT_EQ((flag + 1).dtype(), DType::Int64);
  EXPECT_EQ((flag + true).dtype(), DType::Bool);
}

TEST(Promotion, DivisionOfIntegersIsTrueDivision) {
  const Tensor a = tensor<std::int64_t>({7, -7});
  EXPECT_EQ((a / 2).dtype(), DType::Float32);
  expect_values(a / 2, {2}, {3.5, -3.5});
  expect_values(a / tensor<std::int64_t>({2, 2}), {2}, {3.5, -3.5});
  expect_values(14 / a, {2}, {2, -2});
}

TEST(Promotion, GradientsComeBackInTheDtypeOfTheOperand) {
  const Tensor narrow = ones({2}, {.dtype = DType::Float16});
  const Tensor wide = ones({2}, {.dtype = DType::Float64});
  narrow.requires_grad_();
  wide.requires_grad_();
  const Tensor product = narrow * wide * 3;
  product.backward(ones_like(product));
  EXPECT_EQ(narrow.grad().dtype(), DType::Float16);
  expect_values(narrow.grad(), {2}, {3, 3});
  EXPECT_EQ(wide.grad().dtype(), DType::Float64);
}

// ---- edges --------------------------------------------------------------------------------------

TEST(BinaryEdges, IntegersWrapAndBoolsSaturate) {
  const Tensor u8 = full({1}, 250, {.dtype = DType::UInt8});
  EXPECT_EQ((u8 + 10).item<int>(), 4);
  EXPECT_EQ((u8 - 251).item<int>(), 255);
  const Tensor flag = ones({1}, {.dtype = DType::Bool});
  EXPECT_EQ((flag + flag).item<int>(), 1);
}

TEST(BinaryEdges, LargeIntegersStayExact) {
  const std::int64_t big = (std::int64_t{1} << 53) + 1;
  const Tensor x = tensor<std::int64_t>({big});
  EXPECT_EQ((x + 2).to_vector<std::int64_t>()[0], big + 2);
  EXPECT_EQ(ops::maximum(x, x - 1).to_vector<std::int64_t>()[0], big);
  EXPECT_FALSE(ops::eq(x, x - 1).item<bool>());
}

TEST(BinaryEdges, MaximumAndMinimumPropagateNan) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor a = tensor<double>({nan, 1, nan});
  const Tensor b = tensor<double>({1, nan, nan});
  for (const double value : ops::maximum(a, b).to_vector<double>()) EXPECT_TRUE(std::isnan(value));
  for (const double value : ops::minimum(a, b).to_vector<double>()) EXPECT_TRUE(std::isnan(value));
}

TEST(BinaryEdges, EqualElementsShareTheGradientOfMaximum) {
  const Tensor a = tensor<double>({1, 2, 5});
  const Tensor b = tensor<double>({1, 3, 4});
  a.requires_grad_();
  b.requires_grad_();
  ops::maximum(a, b).backward(ones({3}, {.dtype = DType::Float64}));
  expect_values(a.grad(), {3}, {0.5, 0, 1});
  expect_values(b.grad(), {3}, {0.5, 1, 0});
}

TEST(BinaryEdges, PowAtZeroHasPyTorchsGradients) {
  const Tensor base = tensor<double>({0, 0, 0, 2});
  const Tensor exponent = tensor<double>({0, 1, 2, 0});
  base.requires_grad_();
  exponent.requires_grad_();
  const Tensor y = ops::pow(base, exponent);
  expect_values(y, {4}, {1, 0, 0, 1});
  y.backward(ones_like(y));
  expect_values(base.grad(), {4}, {0, 1, 0, 0});
  expect_close(exponent.grad(), tensor<double>({0, 0, 0, std::log(2.0)}));
}

TEST(BinaryEdges, IntegerPowers) {
  const Tensor base = tensor<std::int64_t>({-3, -1, 0, 1, 2});
  expect_values(ops::pow(base, 3), {5}, {-27, -1, 0, 1, 8});
  expect_values(ops::pow(base, tensor<std::int64_t>({2, -3, 0, -2, -1})), {5}, {9, -1, 1, 1, 0});
  expect_error([&] { ops::pow(base, -1); }, {"pow", "-1"});
}

TEST(BinaryErrors, NameTheOpAndTheShapes) {
  expect_error([] { ones({2, 3}) + ones({2, 4}); }, {"add", "[2, 3]", "[2, 4]"});
  expect_error([] { ones({2}) * ones({3}); }, {"mul", "[2]", "[3]"});
  const Tensor flag = ones({1}, {.dtype = DType::Bool});
  expect_error([&] { flag - flag; }, {"sub", "bool"});
  expect_error([] { Tensor() + ones({1}); }, {"undefined"});
}

TEST(BinaryThreads, ResultsDoNotDependOnTheNumberOfThreads) {
  Generator generator(3);
  const Tensor a = randn({307, 409}, {}, generator);
  const Tensor b = randn({409}, {}, generator);
  const auto compute = [&] { return (ops::mish(a * b) + ops::sum(a, {0})).to_vector<float>(); };
  const int before = num_threads();
  set_num_threads(1);
  const std::vector<float> alone = compute();
  set_num_threads(4);
  const std::vector<float> together = compute();
  set_num_threads(before);
  EXPECT_EQ(alone, together);
}

}  // namespace
}  // namespace tenon::test
