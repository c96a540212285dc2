#include "tenon/ops/join.h"

#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

/// Concatenation element by element.
Tensor reference_cat(Inputs inputs, std::size_t dim) {
  Shape shape = inputs[0].shape();
  shape[dim] = 0;
  for (const Tensor& input : inputs) shape[dim] += input.shape()[dim];
  std::vector<double> out(static_cast<std::size_t>(shape.numel()));
  const Strides strides = contiguous_strides(shape);
  std::int64_t start = 0;
  for (const Tensor& input : inputs) {
    const std::vector<double> values = input.to_vector<double>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::int64_t rest = static_cast<std::int64_t>(i);
      std::int64_t at = start * strides[dim];
      for (std::size_t d = shape.size(); d-- > 0;) {
        at += rest % input.shape()[d] * strides[d];
        rest /= input.shape()[d];
      }
      out[static_cast<std::size_t>(at)] = values[i];
    }
    start += input.shape()[dim];
  }
  return tensor(out, shape);
}

Tensor reference_gather(const Tensor& x, const std::vector<std::int64_t>& picks) {
  std::vector<double> out;
  const std::vector<double> values = x.to_vector<double>();
  const std::int64_t columns = x.shape()[1];
  for (std::int64_t row = 0; row < x.shape()[0]; ++row) {
    for (const std::int64_t pick : picks) {
      out.push_back(values[static_cast<std::size_t>(row * columns + pick)]);
    }
  }
  return tensor(out, {x.shape()[0], static_cast<std::int64_t>(picks.size())});
}

/// `picks` for every row of `x`.
Tensor repeated_index(const std::vector<std::int64_t>& picks, const Tensor& x) {
  const auto count = static_cast<std::int64_t>(picks.size());
  return tensor(picks, {1, count}).to(x.device()).expand({x.size(0), count});
}

const std::vector<DType> kDtypes = {DType::Float32, DType::Float64, DType::Float16, DType::BFloat16,
                                    DType::Int64};

std::vector<OpCase> join_cases() {
  const std::vector<std::int64_t> picks = {2, 0, 2, 1};
  return {
      {.name = "cat_0",
       .function = [](Inputs x) { return ops::cat(x, 0); },
       .reference = [](Inputs x) { return reference_cat(x, 0); },
       .shapes = {{{3, 5}, {1, 5}, {2, 5}}, {{0, 5}, {2, 5}}, {{3}, {7}}, {{2, 0}, {1, 0}}},
       .dtypes = kDtypes},
      {.name = "cat_last",
       .function = [](Inputs x) { return ops::cat(x, -1); },
       .reference = [](Inputs x) { return reference_cat(x, x[0].dim() - 1); },
       .shapes = {{{3, 5}, {3, 1}, {3, 2}}, {{2, 3, 1}, {2, 3, 4}}, {{7}, {1}}, {{3, 0}, {3, 2}}},
       .dtypes = kDtypes},
      {.name = "stack_1",
       .function = [](Inputs x) { return ops::stack(x, 1); },
       .reference =
           [](Inputs x) {
             const Tensor rows[] = {x[0].unsqueeze(1), x[1].unsqueeze(1)};
             return reference_cat(rows, 1);
           },
       .shapes = {{{3, 5}, {3, 5}}, {{7}, {7}}, {{1, 1, 2}, {1, 1, 2}}, {{0, 2}, {0, 2}}},
       .dtypes = kDtypes},
      {.name = "gather",
       .function = [=](Inputs x) { return ops::gather(x[0], 1, repeated_index(picks, x[0])); },
       .reference = [=](Inputs x) { return reference_gather(x[0], picks); },
       .shapes = {{{3, 5}}, {{1, 3}}, {{0, 3}}},
       .dtypes = kDtypes},
      {.name = "scatter_add",
       .function =
           [](Inputs x) {
             return ops::scatter_add(x[0], 1, repeated_index({2, 0, 2}, x[0]), 4);
           },
       .reference =
           [](Inputs x) {
             const Tensor zero = zeros({x[0].size(0), 1}, {.dtype = DType::Float64});
             const Tensor columns[] = {x[0].narrow(1, 1, 1), zero,
                                       x[0].narrow(1, 0, 1) + x[0].narrow(1, 2, 1), zero};
             return reference_cat(columns, 1);
           },
       .shapes = {{{5, 3}}, {{1, 3}}, {{0, 3}}}},
  };
}

TENON_OP_TESTS(Join, join_cases());

TEST(JoinEdges, ZeroDimensionalTensorsStack) {
  expect_values(ops::stack({full({}, 1), full({}, 2)}), {2}, {1, 2});
}

TEST(JoinEdges, DtypesArePromoted) {
  const Tensor whole = tensor<std::int64_t>({1, 2});
  EXPECT_EQ(ops::cat({whole, tensor<float>({0.5F})}).dtype(), DType::Float32);
  expect_values(ops::cat({whole, tensor<float>({0.5F})}), {3}, {1, 2, 0.5});
}

TEST(JoinEdges, AnEmptyListCollectedSoFarIsIgnored) {
  EXPECT_EQ(ops::cat({zeros({0}), ones({2, 3})}).shape(), (Shape{2, 3}));
  EXPECT_EQ(ops::cat({zeros({0}), zeros({0})}).shape(), (Shape{0}));
}

TEST(JoinErrors, NameTheInputThatDoesNotFit) {
  expect_error([] { ops::cat({ones({2, 3}), ones({2, 4})}, 0); }, {"cat", "input 1", "[2, 4]"});
  expect_error([] { ops::cat({ones({2, 3}), ones({2})}, 0); }, {"cat", "input 1", "[2]"});
  expect_error([] { ops::cat({ones({2}), ones({2})}, 1); }, {"cat", "1"});
  expect_error([] { ops::cat({full({}, 1)}); }, {"cat", "stack"});
  expect_error([] { ops::cat(std::span<const Tensor>()); }, {"cat"});
  expect_error([] { ops::stack({ones({2}), ones({3})}); }, {"stack", "[3]"});
}

TEST(GatherErrors, NameTheIndexOutOfRange) {
  const Tensor x = ones({2, 3});
  const Tensor index = tensor(std::vector<std::int64_t>{0, 3}, {2, 1});
  expect_error([&] { ops::gather(x, 1, index); }, {"gather", "3", "[0, 3)"});
  expect_error([&] { ops::gather(x, 1, index - 1); }, {"gather", "-1"});
  expect_error([&] { ops::gather(x, 1, ones({2, 1})); }, {"gather", "int64"});
  expect_error([&] { ops::scatter_add(ones({2, 1}), 1, index, 3); }, {"scatter_add", "3"});
  expect_error([&] { ops::gather(x, 0, tensor<std::int64_t>({0})); }, {"gather", "rank"});
}

}  // namespace
}  // namespace tenon::test
