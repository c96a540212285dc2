#include "tenon/ops/compare.h"

#include <limits>

#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

const std::vector<DType> kEveryDtype = {DType::Bool,    DType::UInt8,    DType::Int64,
                                        DType::Float16, DType::BFloat16, DType::Float32,
                                        DType::Float64};

using TensorTensor = Tensor (*)(const Tensor&, const Tensor&);

/// Operands are rounded to halves, so that equal ones occur.
OpCase make(const std::string& name, TensorTensor function,
            const std::function<bool(double, double)>& reference) {
  const auto rounded = [](const Tensor& x) {
    return is_floating(x.dtype()) ? ops::floor(x * 2) / 2 : x;
  };
  return {.name = name,
          .function = [=](Inputs x) { return function(rounded(x[0]), rounded(x[1])); },
          .reference = elementwise([=](Values v) -> double {
            return reference(std::floor(v[0] * 2) / 2, std::floor(v[1] * 2) / 2);
          }),
          .shapes = broadcast_shapes_of_two(),
          .low = 0,
          .high = 3,
          .dtypes = kEveryDtype};
}

std::vector<OpCase> compare_cases() {
  return {
      make("eq", ops::eq, [](double a, double b) { return a == b; }),
      make("ne", ops::ne, [](double a, double b) { return a != b; }),
      make("lt", ops::lt, [](double a, double b) { return a < b; }),
      make("le", ops::le, [](double a, double b) { return a <= b; }),
      make("gt", ops::gt, [](double a, double b) { return a > b; }),
      make("ge", ops::ge, [](double a, double b) { return a >= b; }),
      make("logical_and", ops::logical_and, [](double a, double b) { return a != 0 && b != 0; }),
      make("logical_or", ops::logical_or, [](double a, double b) { return a != 0 || b != 0; }),
  };
}

TENON_VALUE_TESTS(Compare, compare_cases());

/// cond ? x : y, where the condition is drawn with the other inputs.
std::vector<OpCase> where_cases() {
  OpCase op_case{.name = "where",
                 .function = [](Inputs x) { return ops::where(ops::gt(x[0], 1.5), x[1], x[2]); },
                 .reference = elementwise([](Values v) { return v[0] > 1.5 ? v[1] : v[2]; }),
                 .shapes = {{{3, 5}, {3, 5}, {3, 5}},
                            {{3, 1}, {5}, {}},
                            {{}, {3, 5}, {1, 5}},
                            {{2, 1, 1}, {3, 1}, {1, 5}},
                            {{0, 3}, {3}, {1, 1}},
                            {{1031}, {1031}, {1}}},
                 .low = 0,
                 .high = 3,
                 .slack = 4};
  op_case.dtypes.push_back(DType::Int64);
  op_case.dtypes.push_back(DType::UInt8);
  return {op_case};
}

TENON_OP_TESTS(Where, where_cases());

TEST(CompareResults, AreBoolAndHaveNoHistory) {
  const Tensor x = ones({2}, {.requires_grad = true});
  const Tensor y = x > 0;
  EXPECT_EQ(y.dtype(), DType::Bool);
  EXPECT_FALSE(y.requires_grad());
}

TEST(CompareScalar, AgreesWithTheTensorForm) {
  const Tensor x = tensor<double>({-1, 0, 0.5, 1});
  expect_values(x < 0.5, {4}, {1, 1, 0, 0});
  expect_values(x <= 0.5, {4}, {1, 1, 1, 0});
  expect_values(x > 0.5, {4}, {0, 0, 0, 1});
  expect_values(x >= 0.5, {4}, {0, 0, 1, 1});
  expect_values(ops::eq(x, 0.5), {4}, {0, 0, 1, 0});
  expect_values(ops::ne(x, 0.5), {4}, {1, 1, 0, 1});
  // An integer tensor is not compared with the truncated number.
  expect_values(tensor<std::int64_t>({0, 1}) > 0.5, {2}, {0, 1});
}

TEST(CompareNan, IsUnequalToEverything) {
  const Tensor nan = full({1}, std::numeric_limits<double>::quiet_NaN());
  EXPECT_FALSE(ops::eq(nan, nan).item<bool>());
  EXPECT_TRUE(ops::ne(nan, nan).item<bool>());
  EXPECT_FALSE((nan < 1).item<bool>());
  EXPECT_FALSE((nan >= 1).item<bool>());
}

TEST(Tests, NanFiniteAndNot) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const DType dtype : {DType::Float16, DType::BFloat16, DType::Float32, DType::Float64}) {
    const Tensor x = tensor<double>({0, -2, inf, -inf, std::nan("")}).to(dtype);
    expect_values(ops::isnan(x), {5}, {0, 0, 0, 0, 1});
    expect_values(ops::isfinite(x), {5}, {1, 1, 0, 0, 0});
    expect_values(ops::logical_not(x), {5}, {1, 0, 0, 0, 0});
  }
  expect_values(ops::isfinite(tensor<std::int64_t>({1, 0})), {2}, {1, 1});
}

TEST(WhereEdges, TheElementNotChosenMayBeNan) {
  const Tensor x = tensor<double>({4, -1});
  x.requires_grad_();
  const Tensor y = ops::where(x > 0, ops::sqrt(x), 0);
  y.backward(ones_like(y));
  expect_values(y, {2}, {2, 0});
  EXPECT_EQ(x.grad().to_vector<double>()[0], 0.25);
}

TEST(WhereEdges, NumbersTakePartInPromotionAndMaskedFillKeepsTheDtype) {
  const Tensor mask = tensor<bool>({true, false});
  const Tensor x = tensor<std::int64_t>({3, 4});
  EXPECT_EQ(ops::where(mask, x, 0.5).dtype(), DType::Float32);
  EXPECT_EQ(ops::where(mask, 7, x).dtype(), DType::Int64);
  expect_values(ops::masked_fill(x, mask, 9), {2}, {9, 4});
  EXPECT_EQ(ops::masked_fill(ones({2}), mask, 9).dtype(), DType::Float32);
}

TEST(WhereErrors, TheConditionMustBeBool) {
  expect_error([] { ops::where(ones({2}), ones({2}), ones({2})); }, {"where", "float32"});
  expect_error([] { ops::where(ones({2}, {.dtype = DType::Bool}), ones({3}), ones({3})); },
               {"where", "[2]", "[3]"});
}

}  // namespace
}  // namespace tenon::test
