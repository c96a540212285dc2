#include <algorithm>
#include <limits>

#include "tenon/ops/ops.h"
#include "tenon/ops/reduce.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

const double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

using Fold = std::function<double(const std::vector<double>&)>;

/// Which dimensions `dims` names, all of them if it is empty.
std::vector<bool> reduced_dims(std::size_t rank, const Shape& dims) {
  std::vector<bool> reduced(rank, dims.empty());
  for (const std::int64_t dim : dims) {
    if (rank > 0)
      reduced[static_cast<std::size_t>(dim < 0 ? dim + std::int64_t(rank) : dim)] = true;
  }
  return reduced;
}

/// Collects the elements that are reduced together, one after another, and folds them.
std::function<Tensor(Inputs)> reduction(const Shape& dims, bool keepdim, const Fold& fold) {
  return [=](Inputs inputs) {
    const Shape& shape = inputs[0].shape();
    const std::vector<bool> reduced = reduced_dims(shape.size(), dims);
    Shape kept;
    Shape result;
    for (std::size_t d = 0; d < shape.size(); ++d) {
      kept.push_back(reduced[d] ? 1 : shape[d]);
      if (!reduced[d] || keepdim) result.push_back(kept.back());
    }
    std::vector<std::vector<double>> groups(static_cast<std::size_t>(kept.numel()));
    const Strides strides = contiguous_strides(kept);
    const std::vector<double> values = inputs[0].to_vector<double>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::int64_t rest = static_cast<std::int64_t>(i);
      std::int64_t group = 0;
      for (std::size_t d = shape.size(); d-- > 0;) {
        if (!reduced[d]) group += rest % shape[d] * strides[d];
        rest /= shape[d];
      }
      groups[static_cast<std::size_t>(group)].push_back(values[i]);
    }
    std::vector<double> folded;
    for (const std::vector<double>& group : groups) folded.push_back(fold(group));
    return tensor(folded, result);
  };
}

double sum_of(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

double mean_of(const std::vector<double>& values) {
  return sum_of(values) / static_cast<double>(values.size());
}

double variance_of(const std::vector<double>& values, double correction) {
  double total = 0;
  for (const double value : values) total += std::pow(value - mean_of(values), 2);
  return total / std::max(0.0, static_cast<double>(values.size()) - correction);
}

double max_of(const std::vector<double>& values) {
  return *std::max_element(values.begin(), values.end());
}

double min_of(const std::vector<double>& values) {
  return *std::min_element(values.begin(), values.end());
}

struct Named {
  std::string name;
  std::function<Tensor(const Tensor&, const Shape&, bool)> function;
  Fold fold;
  bool integers = false;
  bool takes_empty = false;
};

/// Every reduction over every choice of dimensions of odd shapes, with and without keepdim.
std::vector<OpCase> reduction_cases() {
  const std::vector<Named> reductions = {
      {"sum", ops::sum, sum_of, true, true},
      {"mean", ops::mean, mean_of},
      {"var",
       [](const Tensor& x, const Shape& dims, bool keep) { return ops::var(x, dims, 1, keep); },
       [](const std::vector<double>& values) { return variance_of(values, 1); }},
      {"var_population",
       [](const Tensor& x, const Shape& dims, bool keep) { return ops::var(x, dims, 0, keep); },
       [](const std::vector<double>& values) { return variance_of(values, 0); }},
      {"amax", ops::amax, max_of, true},
      {"amin", ops::amin, min_of, true},
  };
  const std::vector<std::pair<std::string, Shape>> choices = {
      {"all", {}},    {"first", {0}},     {"middle", {1}},
      {"last", {-1}}, {"outer", {0, -1}}, {"inner", {-1, 1}}};
  std::vector<OpCase> cases;
  for (const Named& named : reductions) {
    for (const auto& choice : choices) {
      const Shape dims = choice.second;
      const bool keepdim = choice.first == "middle" || choice.first == "outer";
      OpCase op_case{
          .name = named.name + "_" + choice.first,
          .function = [=](Inputs x) { return named.function(x[0], dims, keepdim); },
          .reference = reduction(dims, keepdim, named.fold),
          .shapes = {{{3, 5, 2}}, {{2, 7, 3}}, {{5, 2, 2}}, {{37, 41, 3}}, {{3, 2, 131}}},
          .low = 0.5,
          .high = 2.5,
          .slack = 4};
      if (named.takes_empty) op_case.shapes.push_back({{2, 0, 3}});
      if (named.integers) op_case.dtypes.push_back(DType::Int64);
      cases.push_back(std::move(op_case));
    }
  }
  return cases;
}

TENON_OP_TESTS(Reduction, reduction_cases());

std::vector<OpCase> indexed_cases() {
  std::vector<OpCase> cases;
  for (const std::int64_t dim : {0, 1, -1}) {
    const std::string suffix = dim < 0 ? "last" : std::to_string(dim);
    const OpCase common{.shapes = {{{3, 5, 2}}, {{5, 1, 3}}, {{2, 7, 131}}, {{1, 1, 1}}}};
    OpCase largest = common;
    largest.name = "max_" + suffix;
    largest.function = [dim](Inputs x) { return ops::max(x[0], dim).first; };
    largest.reference = reduction({dim}, false, max_of);
    cases.push_back(largest);
    OpCase smallest = common;
    smallest.name = "min_" + suffix;
    smallest.function = [dim](Inputs x) { return ops::min(x[0], dim, true).first; };
    smallest.reference = reduction({dim}, true, min_of);
    cases.push_back(smallest);
  }
  return cases;
}

TENON_OP_TESTS(IndexedExtremum, indexed_cases());

std::vector<OpCase> position_cases() {
  const auto first_max = [](const std::vector<double>& values) {
    return static_cast<double>(std::max_element(values.begin(), values.end()) - values.begin());
  };
  const auto first_min = [](const std::vector<double>& values) {
    return static_cast<double>(std::min_element(values.begin(), values.end()) - values.begin());
  };
  // Few integers, so that there are many ties.
  const OpCase common{.shapes = {{{3, 5, 2}}, {{5, 1, 3}}, {{2, 33, 131}}, {{2, 3, 97}}},
                      .low = 0,
                      .high = 3,
                      .dtypes = {DType::Int64, DType::UInt8, DType::Bool, DType::Float32}};
  std::vector<OpCase> cases;
  for (const std::int64_t dim : {0, 1, -1}) {
    const std::string suffix = dim < 0 ? "last" : std::to_string(dim);
    OpCase op_case = common;
    op_case.name = "argmax_" + suffix;
    op_case.function = [dim](Inputs x) { return ops::argmax(x[0], dim); };
    op_case.reference = reduction({dim}, false, first_max);
    cases.push_back(op_case);
    op_case.name = "argmin_" + suffix;
    op_case.function = [dim](Inputs x) { return ops::argmin(x[0], dim, true); };
    op_case.reference = reduction({dim}, true, first_min);
    cases.push_back(op_case);
  }
  OpCase op_case = common;
  op_case.name = "argmax_all";
  op_case.function = [](Inputs x) { return ops::argmax(x[0]); };
  op_case.reference = reduction({}, false, first_max);
  cases.push_back(op_case);
  op_case.name = "argmin_all";
  op_case.function = [](Inputs x) { return ops::argmin(x[0]); };
  op_case.reference = reduction({}, false, first_min);
  cases.push_back(op_case);
  return cases;
}

TENON_VALUE_TESTS(Position, position_cases());

// ---- NaN, ties and nothing at all ---------------------------------------------------------------

TEST(ReductionNan, WinsOverEveryNumber) {
  for (const DType dtype : {DType::Float16, DType::BFloat16, DType::Float32, DType::Float64}) {
    SCOPED_TRACE(name(dtype));
    std::vector<double> values(40, 1.0);
    values[17] = kNan;
    values[23] = kInfinity;
    values[31] = kNan;
    const Tensor row = tensor(values, {40}).to(dtype);
    EXPECT_TRUE(std::isnan(ops::max(row).item()));
    EXPECT_TRUE(std::isnan(ops::min(row).item()));
    EXPECT_TRUE(std::isnan(ops::sum(row).item()));
    EXPECT_EQ(ops::argmax(row).item<int>(), 17);
    EXPECT_EQ(ops::argmin(row).item<int>(), 17);
    const Tensor columns = tensor(values, {20, 2}).to(dtype);
    expect_values(ops::argmax(columns, 0), {2}, {0, 8});
    EXPECT_TRUE(std::isnan(ops::max(columns, 0).first.to_vector<double>()[1]));
  }
}

TEST(ReductionTies, ShareTheGradientOfAmaxAndGoFirstInIndexedMax) {
  const Tensor x = tensor<double>({1, 3, 3, 2});
  x.requires_grad_();
  ops::max(x).backward();
  expect_values(x.grad(), {4}, {0, 0.5, 0.5, 0});
  x.set_grad({});
  const auto [values, indices] = ops::max(x, 0);
  EXPECT_EQ(indices.item<int>(), 1);
  values.backward();
  expect_values(x.grad(), {4}, {0, 1, 0, 0});
}

TEST(ReductionTies, NanSharesTheGradientOfMax) {
  const Tensor x = tensor<double>({1, kNan, kNan});
  x.requires_grad_();
  ops::max(x).backward();
  expect_values(x.grad(), {3}, {0, 0.5, 0.5});
}

// ---- reductions of many elements, which GPUs cut into chunks
// --------------------------------------

class LargeReductions : public DeviceTest {};

TENON_DEVICE_TESTS(LargeReductions);

struct LargeCase {
  Shape shape;
  Shape dims;
};

/// Results in numbers that are no multiple of what a block has, next to each other in memory and
/// not, with elements for several chunks; the bias gradients of convolutions among them.
const std::vector<LargeCase> kLargeCases = {{{64, 16, 14, 14}, {0, 2, 3}},
                                            {{3, 5, 61, 67}, {0, 2, 3}},
                                            {{3001, 5}, {0}},
                                            {{5, 9001}, {1}},
                                            {{100003}, {0}},
                                            {{2, 20011, 3}, {1}},
                                            {{4099, 37}, {0}},
                                            {{1, 33, 8191}, {-1}}};

TEST_P(LargeReductions, FollowTheReferenceInEveryLayout) {
  for (const LargeCase& large : kLargeCases) {
    for (const DType dtype : {DType::Float64, DType::Float32, DType::BFloat16, DType::Int64}) {
      Generator generator(7);
      const Tensor x = draw(large.shape, dtype, -9, 11, generator).to(device());
      const std::vector<Tensor> inputs = {x.to(Device::cpu(), DType::Float64)};
      const Tensor total = reduction(large.dims, false, sum_of)(inputs);
      const Tensor most = reduction(large.dims, false, max_of)(inputs);
      for (const Layout& layout : layouts()) {
        if (layout.name == "expanded") continue;
        const std::string what = tenon::detail::concat(layout.name, " ", x.spec());
        const Tensor laid_out = layout.apply(x);
        // Terms of either sign cancel: sums round by their sizes, in float32 for 16 bits.
        const double absolute = dtype == DType::Float64 ? 1e-8 : dtype == DType::Int64 ? 0 : 0.1;
        const double relative = 4 * tolerance_of(dtype).relative;
        expect_within(ops::sum(laid_out, large.dims), total, {relative, absolute}, what);
        expect_within(ops::amax(laid_out, large.dims), most, {0, 0}, what);
      }
    }
  }
}

TEST_P(LargeReductions, OfImagesInChannelsLast) {
  Generator generator(8);
  const Tensor x = draw({64, 16, 14, 14}, DType::Float64, -1, 1, generator);
  const Tensor expected = reduction({0, 2, 3}, false, sum_of)(std::vector<Tensor>{x});
  const Tensor image = x.to(device()).to(MemoryFormat::ChannelsLast);
  expect_within(ops::sum(image, {0, 2, 3}), expected, {1e-13, 1e-11}, "sum");
}

TEST_P(LargeReductions, TheFirstOfEqualsWinsWhicheverChunkItIsIn) {
  for (const std::int64_t first : {0, 8191, 8192, 30000, 69999}) {
    const Tensor x = zeros({70000});
    x.narrow(0, first, 1).fill_(1);
    x.narrow(0, 69999, 1).fill_(1);
    EXPECT_EQ(ops::max(x.to(device()), 0).second.item<std::int64_t>(), first);
  }
}

TEST_P(LargeReductions, GiveTheSameBitsAgain) {
  Generator generator(9);
  const Tensor x = draw({64, 16, 28, 28}, DType::Float32, -1, 1, generator).to(device());
  const std::vector<double> first = ops::sum(x, {0, 2, 3}).to_vector<double>();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ops::sum(x, {0, 2, 3}).to_vector<double>(), first);
}

TEST(ReductionEmpty, SumIsZeroMeanIsNan) {
  const Tensor nothing = zeros({0});
  EXPECT_EQ(ops::sum(nothing).item(), 0);
  EXPECT_TRUE(std::isnan(ops::mean(nothing).item()));
  EXPECT_TRUE(std::isnan(ops::var(ones({1})).item()));
  EXPECT_EQ(ops::sum(zeros({3, 0}), {1}).shape(), (Shape{3}));
  EXPECT_EQ(ops::amax(zeros({0, 3}), {1}).shape(), (Shape{0}));
}

TEST(ReductionEmpty, ExtremesOfNothingAreErrors) {
  expect_error([] { ops::max(zeros({0})); }, {"amax", "[0]"});
  expect_error([] { ops::amin(zeros({0, 3}), {0}); }, {"amin", "[0, 3]"});
  expect_error([] { ops::max(zeros({3, 0}), 1); }, {"max", "[3, 0]"});
  expect_error([] { ops::argmax(zeros({0})); }, {"[0]"});
}

TEST(ReductionZeroDim, TakesDimensionZero) {
  const Tensor x = full({}, 5);
  EXPECT_EQ(ops::sum(x, {0}).item(), 5);
  EXPECT_EQ(ops::amax(x, {-1}).item(), 5);
  EXPECT_EQ(ops::max(x, 0).second.item<int>(), 0);
  EXPECT_EQ(ops::mean(x).item(), 5);
}

TEST(ReductionDtypes, SumsOfSmallIntegersAreInt64) {
  EXPECT_EQ(ops::sum(ones({300}, {.dtype = DType::UInt8})).item<int>(), 300);
  EXPECT_EQ(ops::sum(ones({3}, {.dtype = DType::Bool})).dtype(), DType::Int64);
  EXPECT_EQ(ops::amax(ones({3}, {.dtype = DType::Bool})).dtype(), DType::Bool);
}

TEST(ReductionDtypes, MeanOfHalfDoesNotOverflow) {
  const Tensor x = full({400}, 1000, {.dtype = DType::Float16});
  EXPECT_EQ(ops::mean(x).item(), 1000);
  EXPECT_EQ(ops::mean(x).dtype(), DType::Float16);
}

TEST(ReductionErrors, NameTheOpAndTheDimension) {
  const Tensor x = ones({2, 3});
  expect_error([&] { ops::sum(x, {2}); }, {"sum", "2"});
  expect_error([&] { ops::sum(x, {0, -2}); }, {"sum", "twice"});
  expect_error([&] { ops::amax(x, {5}); }, {"amax", "5"});
  expect_error([&] { ops::argmax(x, -3); }, {"-3"});
  expect_error([] { ops::mean(ones({2}, {.dtype = DType::Int64})); }, {"mean", "int64"});
  expect_error([] { ops::var(ones({2}, {.dtype = DType::Int64})); }, {"var", "int64"});
}

}  // namespace
}  // namespace tenon::test
