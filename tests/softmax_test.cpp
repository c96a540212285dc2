#include "tenon/ops/softmax.h"

#include <algorithm>
#include <limits>

#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

const double kInfinity = std::numeric_limits<double>::infinity();

/// Softmax along `dim`, element by element from the definition.
Tensor reference_softmax(const Tensor& x, std::int64_t dim, bool logarithm) {
  if (x.dim() == 0) return full({}, logarithm ? 0 : 1, {.dtype = DType::Float64});
  const std::size_t d = normalize_dim(dim, x.dim(), "reference");
  const std::int64_t length = x.shape()[d];
  const std::int64_t step = contiguous_strides(x.shape())[d];
  const std::vector<double> in = x.to_vector<double>();
  std::vector<double> out(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    const std::int64_t position = static_cast<std::int64_t>(i) / step % length;
    const std::size_t first = i - static_cast<std::size_t>(position * step);
    double total = 0;
    for (std::int64_t k = 0; k < length; ++k) {
      total += std::exp(in[first + static_cast<std::size_t>(k * step)] - in[i]);
    }
    out[i] = logarithm ? -std::log(total) : 1 / total;
  }
  return tensor(out, x.shape());
}

std::vector<OpCase> softmax_cases() {
  std::vector<OpCase> cases;
  for (const bool logarithm : {false, true}) {
    for (const std::int64_t dim : {0, 1, -1}) {
      OpCase op_case{.name = std::string(logarithm ? "log_softmax_" : "softmax_") +
                             (dim < 0 ? "last" : std::to_string(dim)),
                     .function =
                         [=](Inputs x) {
                           return logarithm ? ops::log_softmax(x[0], dim) : ops::softmax(x[0], dim);
                         },
                     .reference = [=](Inputs x) { return reference_softmax(x[0], dim, logarithm); },
                     .shapes = {{{3, 5}},
                                {{2, 3, 5}},
                                {{1, 7}},
                                {{7, 1}},
                                {{1, 1031}},
                                {{2, 11, 131}},
                                {{0, 3}},
                                {{3, 0}}},
                     .low = -4,
                     .high = 4,
                     .slack = 4};
      if (dim != 1) op_case.shapes.insert(op_case.shapes.end(), {{{}}, {{7}}, {{1}}});
      cases.push_back(std::move(op_case));
    }
  }
  return cases;
}

TENON_OP_TESTS(Softmax, softmax_cases());

TEST(SoftmaxRange, LargeScoresDoNotOverflow) {
  const Tensor x = tensor<float>({1000, 1001, -1000});
  expect_close(ops::softmax(x, 0),
               tensor<double>({1 / (1 + std::exp(1.0)), 1 / (1 + std::exp(-1.0)), 0}));
  const double top = -std::log1p(std::exp(-1.0));
  expect_close(ops::log_softmax(x, 0), tensor<double>({top - 1, top, top - 2001}));
}

TEST(SoftmaxRange, MaskedScoresGetExactlyZero) {
  for (const bool columns : {false, true}) {
    Tensor x = tensor<float>({1, -static_cast<float>(kInfinity), 1});
    if (columns) x = x.unsqueeze(1).expand({3, 2});
    const std::vector<double> y = ops::softmax(x, 0).select(0, 1).to_vector<double>();
    for (const double value : y) EXPECT_EQ(value, 0);
  }
}

TEST(SoftmaxRange, NothingButMinusInfinityGivesNan) {
  const Tensor x = full({2}, -kInfinity);
  for (const double value : ops::softmax(x, 0).to_vector<double>()) EXPECT_TRUE(std::isnan(value));
}

TEST(SoftmaxRange, NanFillsItsRowAndNoOther) {
  const Tensor x = tensor(std::vector<double>{0, std::nan(""), 0, 0}, {2, 2});
  for (const std::int64_t dim : {0, 1}) {
    const Tensor y = ops::softmax(x, dim);
    EXPECT_TRUE(std::isnan(y.select(dim, 0).to_vector<double>()[dim == 0 ? 1 : 0]));
    EXPECT_EQ(y.select(1 - dim, dim == 0 ? 0 : 1).to_vector<double>(),
              (std::vector<double>{0.5, 0.5}));
  }
}

TEST(SoftmaxErrors, NameTheOpAndTheDimension) {
  expect_error([] { ops::softmax(ones({2, 3}), 2); }, {"softmax", "2"});
  expect_error([] { ops::log_softmax(ones({2, 3}), -3); }, {"log_softmax", "-3"});
}

}  // namespace
}  // namespace tenon::test
