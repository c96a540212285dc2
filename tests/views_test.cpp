#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <random>

#include "tenon/core/autograd.h"
#include "tenon/core/tensor_body.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/test_ops.h"

namespace tenon {
namespace {

using test::counting;
using test::expect_error;
using test::expect_values;

/// A view kept as the list of base elements it shows, in row-major order: what each view op is
/// checked against. `at` maps an index to a position in that list.
struct Reference {
  Shape shape;
  std::vector<std::int64_t> elements;

  static Reference of_base(const Shape& shape) {
    Reference result{shape, {}};
    for (std::int64_t i = 0; i < shape.numel(); ++i) result.elements.push_back(i);
    return result;
  }

  std::int64_t at(const std::vector<std::int64_t>& index) const {
    std::int64_t position = 0;
    for (std::size_t d = 0; d < shape.size(); ++d) position = position * shape[d] + index[d];
    return elements[static_cast<std::size_t>(position)];
  }

  /// The view of shape `to` whose element at index i is this one's at `source(i)`.
  Reference remap(const Shape& to,
                  const std::function<std::vector<std::int64_t>(const std::vector<std::int64_t>&)>&
                      source) const {
    Reference result{to, {}};
    for (std::int64_t n = 0; n < to.numel(); ++n) {
      std::vector<std::int64_t> index(to.size());
      std::int64_t rest = n;
      for (std::size_t d = to.size(); d-- > 0;) {
        index[d] = rest % to[d];
        rest /= to[d];
      }
      result.elements.push_back(at(source(index)));
    }
    return result;
  }

  Reference permute(const std::vector<std::size_t>& dims) const {
    Shape to;
    for (std::size_t d : dims) to.push_back(shape[d]);
    return remap(to, [&](const std::vector<std::int64_t>& index) {
      std::vector<std::int64_t> source(index.size());
      for (std::size_t i = 0; i < dims.size(); ++i) source[dims[i]] = index[i];
      return source;
    });
  }

  Reference slice(std::size_t dim, std::int64_t start, std::int64_t length,
                  std::int64_t step) const {
    Shape to = shape;
    to[dim] = length;
    return remap(to, [&](std::vector<std::int64_t> index) {
      index[dim] = start + index[dim] * step;
      return index;
    });
  }

  Reference expand(const Shape& to) const {
    const std::size_t lead = to.size() - shape.size();
    return remap(to, [&](const std::vector<std::int64_t>& index) {
      std::vector<std::int64_t> source(index.begin() + static_cast<std::ptrdiff_t>(lead),
                                       index.end());
      for (std::size_t d = 0; d < source.size(); ++d) source[d] = shape[d] == 1 ? 0 : source[d];
      return source;
    });
  }

  Reference reshape(const Shape& to) const { return {to, elements}; }

  /// Whether some strides show these elements, which are offsets in the base, with shape `to`.
  bool has_strides(const Shape& to) const {
    if (elements.empty()) return true;
    std::vector<std::int64_t> strides(to.size(), 0);
    std::int64_t block = 1;
    for (std::size_t d = to.size(); d-- > 0;) {
      if (to[d] > 1) strides[d] = elements[static_cast<std::size_t>(block)] - elements[0];
      block *= to[d];
    }
    for (std::size_t n = 0; n < elements.size(); ++n) {
      auto rest = static_cast<std::int64_t>(n);
      std::int64_t expected = elements[0];
      for (std::size_t d = to.size(); d-- > 0;) {
        expected += rest % to[d] * strides[d];
        rest /= to[d];
      }
      if (elements[n] != expected) return false;
    }
    return true;
  }
};

/// Expects that `view` of `counting(..)` shows the elements of `expected`.
void expect_same(const Tensor& view, const Reference& expected) {
  ASSERT_EQ(view.shape(), expected.shape);
  ASSERT_EQ(view.to_vector<std::int64_t>(), expected.elements);
}

bool shares_memory(const Tensor& a, const Tensor& b) {
  return a.body()->storage == b.body()->storage;
}

// ---- each view against brute force --------------------------------------------------------------

TEST(Views, PermuteOfAllOrders) {
  const Tensor x = counting({2, 3, 5});
  const Reference reference = Reference::of_base({2, 3, 5});
  std::vector<std::size_t> order{0, 1, 2};
  do {
    const Shape dims{static_cast<std::int64_t>(order[0]), static_cast<std::int64_t>(order[1]) - 3,
                     static_cast<std::int64_t>(order[2])};
    const Tensor view = x.permute(dims);
    expect_same(view, reference.permute(order));
    EXPECT_TRUE(shares_memory(view, x));
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(Views, TransposeOfAllPairsWithNegativeDims) {
  const Tensor x = counting({2, 3, 5});
  for (std::int64_t a = -3; a < 3; ++a) {
    for (std::int64_t b = -3; b < 3; ++b) {
      std::vector<std::size_t> order{0, 1, 2};
      std::swap(order[static_cast<std::size_t>((a + 3) % 3)],
                order[static_cast<std::size_t>((b + 3) % 3)]);
      expect_same(x.transpose(a, b), Reference::of_base({2, 3, 5}).permute(order));
    }
  }
}

TEST(Views, SliceClampsAsPythonDoes) {
  const Tensor x = counting({3, 7});
  const Reference reference = Reference::of_base({3, 7});
  for (std::int64_t start : {-100, -8, -7, -3, 0, 2, 6, 7, 50}) {
    for (std::int64_t end : {-100, -7, -1, 0, 1, 5, 7, 8, 100}) {
      for (std::int64_t step : {1, 2, 3, 10}) {
        std::vector<std::int64_t> picked;  // range(7)[start:end:step], element by element
        const std::int64_t first = std::max<std::int64_t>(0, start < 0 ? start + 7 : start);
        const std::int64_t last = std::min<std::int64_t>(7, end < 0 ? end + 7 : end);
        for (std::int64_t i = first; i < last; i += step) picked.push_back(i);
        const auto length = static_cast<std::int64_t>(picked.size());
        expect_same(x.slice(1, start, end, step), reference.slice(1, first, length, step));
        expect_same(x.slice(-1, start, end, step), reference.slice(1, first, length, step));
      }
    }
  }
  expect_same(x.slice(0, 1), reference.slice(0, 1, 2, 1));
}

TEST(Views, SliceTakesExtremeBoundsAndSteps) {
  const Tensor x = counting({5, 3});
  expect_same(x.slice(0, INT64_MIN, INT64_MAX, 1), Reference::of_base({5, 3}));
  expect_same(x.slice(0, 1, INT64_MAX, INT64_MAX), Reference::of_base({5, 3}).slice(0, 1, 1, 1));
  EXPECT_EQ(x.slice(0, INT64_MAX, INT64_MIN).shape(), (Shape{0, 3}));
}

TEST(Views, NarrowAndSelectOfEveryPosition) {
  const Tensor x = counting({3, 5, 2});
  const Reference reference = Reference::of_base({3, 5, 2});
  for (std::int64_t start = 0; start <= 5; ++start) {
    for (std::int64_t length = 0; start + length <= 5; ++length) {
      expect_same(x.narrow(1, start, length), reference.slice(1, start, length, 1));
      if (start < 5)
        expect_same(x.narrow(-2, start - 5, length), reference.slice(1, start, length, 1));
    }
  }
  for (std::int64_t i = 0; i < 5; ++i) {
    const Reference selected = reference.slice(1, i, 1, 1).reshape({3, 2});
    expect_same(x.select(1, i), selected);
    expect_same(x.select(-2, i - 5), selected);
    EXPECT_TRUE(shares_memory(x.select(1, i), x));
  }
}

TEST(Views, ExpandRepeatsWithStrideZero) {
  const Tensor x = counting({3, 1});
  const Reference reference = Reference::of_base({3, 1});
  for (const Shape& to : {Shape{3, 1}, Shape{3, 5}, Shape{2, 3, 5}, Shape{2, 1, 3, 1}}) {
    const Tensor view = x.expand(to);
    expect_same(view, reference.expand(to));
    EXPECT_TRUE(shares_memory(view, x));
  }
  EXPECT_EQ(x.expand({2, -1, 4}).shape(), (Shape{2, 3, 4}));
  EXPECT_EQ(x.expand({2, 3, 4}).strides(), (Strides{0, 1, 0}));
  EXPECT_EQ(x.expand({3, 0}).shape(), (Shape{3, 0}));
  EXPECT_EQ(scalar_tensor(2.5).expand({2, 2}).to_vector<double>(), std::vector<double>(4, 2.5));
}

TEST(Views, SqueezeUnsqueezeAndFlatten) {
  const Tensor x = counting({1, 3, 1, 5});
  EXPECT_EQ(x.squeeze().shape(), (Shape{3, 5}));
  EXPECT_EQ(x.squeeze(0).shape(), (Shape{3, 1, 5}));
  EXPECT_EQ(x.squeeze(-2).shape(), (Shape{1, 3, 5}));
  EXPECT_EQ(x.squeeze(1).shape(), (Shape{1, 3, 1, 5})) << "a size other than 1 stays";
  EXPECT_EQ(x.unsqueeze(0).shape(), (Shape{1, 1, 3, 1, 5}));
  EXPECT_EQ(x.unsqueeze(-1).shape(), (Shape{1, 3, 1, 5, 1}));
  EXPECT_EQ(x.unsqueeze(4).shape(), (Shape{1, 3, 1, 5, 1}));
  EXPECT_EQ(x.unsqueeze(-5).shape(), (Shape{1, 1, 3, 1, 5}));
  EXPECT_EQ(x.flatten().shape(), Shape{15});
  EXPECT_EQ(x.flatten(1).shape(), (Shape{1, 15}));
  EXPECT_EQ(x.flatten(1, 2).shape(), (Shape{1, 3, 5}));
  EXPECT_EQ(x.flatten(-2, -1).shape(), (Shape{1, 3, 5}));
  for (const Tensor& view : {x.squeeze(), x.unsqueeze(2), x.flatten(), x.squeeze(0)}) {
    EXPECT_TRUE(shares_memory(view, x));
    EXPECT_EQ(view.to_vector<double>(), x.to_vector<double>());
  }
}

TEST(Views, OfAZeroDimensionalTensor) {
  const Tensor x = scalar_tensor(4.0);
  EXPECT_EQ(x.reshape({1, 1}).shape(), (Shape{1, 1}));
  EXPECT_EQ(x.reshape({-1}).shape(), Shape{1});
  EXPECT_EQ(x.flatten().shape(), Shape{1});
  EXPECT_EQ(x.unsqueeze(0).shape(), Shape{1});
  EXPECT_EQ(x.unsqueeze(-1).shape(), Shape{1});
  EXPECT_EQ(x.squeeze().shape(), Shape{});
  EXPECT_EQ(x.squeeze(0).shape(), Shape{});
  EXPECT_EQ(x.permute({}).shape(), Shape{});
  EXPECT_EQ(x.transpose(0, -1).shape(), Shape{});
  EXPECT_EQ(x.unsqueeze(0).select(0, 0).item(), 4.0);
}

TEST(Views, OfATensorWithoutElements) {
  const Tensor x = zeros({3, 0, 5});
  EXPECT_EQ(x.permute({2, 1, 0}).shape(), (Shape{5, 0, 3}));
  EXPECT_EQ(x.reshape({0, 7}).shape(), (Shape{0, 7}));
  EXPECT_EQ(x.reshape({3, -1}).shape(), (Shape{3, 0}));
  EXPECT_EQ(x.select(0, 2).shape(), (Shape{0, 5}));
  EXPECT_EQ(x.slice(2, 1, 4, 2).shape(), (Shape{3, 0, 2}));
  EXPECT_EQ(x.flatten().shape(), Shape{0});
  EXPECT_EQ(x.transpose(0, 2).contiguous().shape(), (Shape{5, 0, 3}));
  EXPECT_EQ(zeros({0, 1}).expand({0, 4}).shape(), (Shape{0, 4}));
  EXPECT_TRUE(x.is_contiguous());
}

// ---- reshape: view or copy ----------------------------------------------------------------------

TEST(Reshape, ComputesTheSizeGivenAsMinusOne) {
  const Tensor x = counting({3, 4, 5});
  EXPECT_EQ(x.reshape({-1}).shape(), Shape{60});
  EXPECT_EQ(x.reshape({2, -1, 5}).shape(), (Shape{2, 6, 5}));
  EXPECT_EQ(x.reshape({60, -1}).shape(), (Shape{60, 1}));
}

TEST(Reshape, IsAViewExactlyWhereStridesAllowIt) {
  const Tensor base = counting({2, 3, 4, 5});
  const Reference whole = Reference::of_base({2, 3, 4, 5});
  const std::pair<Tensor, Reference> sources[] = {
      {base, whole},
      {base.permute({1, 0, 2, 3}), whole.permute({1, 0, 2, 3})},
      {base.permute({3, 2, 1, 0}), whole.permute({3, 2, 1, 0})},
      {base.permute({2, 3, 0, 1}), whole.permute({2, 3, 0, 1})},
      {base.slice(0, 1), whole.slice(0, 1, 1, 1)},
      {base.slice(1, 1), whole.slice(1, 1, 2, 1)},
      {base.slice(3, 0, 5, 2), whole.slice(3, 0, 3, 2)},
      {base.slice(3, 4), whole.slice(3, 4, 1, 1)},
      {base.slice(2, 1, 2).slice(3, 0, 4), whole.slice(2, 1, 1, 1).slice(3, 0, 4, 1)},
      {base.slice(1, 0, 1).expand({2, 3, 4, 5}), whole.slice(1, 0, 1, 1).expand({2, 3, 4, 5})},
      {base.slice(3, 0, 1).expand({2, 3, 4, 5}), whole.slice(3, 0, 1, 1).expand({2, 3, 4, 5})},
  };
  int views = 0;
  int copies = 0;
  for (const auto& [source, reference] : sources) {
    // All shapes of up to four dimensions, sizes of 1 between them included.
    const std::int64_t count = source.numel();
    for (std::int64_t a = 1; a <= count; ++a) {
      if (count % a != 0) continue;
      for (std::int64_t b = 1; b <= count / a; ++b) {
        if (count / a % b != 0) continue;
        for (const Shape& to : {Shape{a, b, count / a / b}, Shape{a, 1, b, count / a / b}}) {
          const Tensor result = source.reshape(to);
          expect_same(result, reference.reshape(to));
          const bool is_view = shares_memory(result, source);
          EXPECT_EQ(is_view, reference.has_strides(to)) << source.shape() << " -> " << to;
          ++(is_view ? views : copies);
        }
      }
    }
  }
  EXPECT_GT(views, 100);
  EXPECT_GT(copies, 100);
}

// ---- chains and aliasing ------------------------------------------------------------------------

/// Applies a random view to both.
void random_view(std::mt19937& random, Tensor& view, Reference& reference) {
  const auto below = [&](std::size_t n) {
    return static_cast<std::int64_t>(random() % std::max<std::size_t>(n, 1));
  };
  const std::size_t dims = view.dim();
  switch (random() % 5) {
    case 0: {
      std::vector<std::size_t> order(dims);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::shuffle(order.begin(), order.end(), random);
      Shape permutation;
      for (std::size_t d : order) permutation.push_back(static_cast<std::int64_t>(d));
      view = view.permute(permutation);
      reference = reference.permute(order);
      break;
    }
    case 1: {
      if (dims == 0) break;
      const auto d = static_cast<std::size_t>(below(dims));
      const std::int64_t size = view.shape()[d];
      const std::int64_t start = below(static_cast<std::size_t>(size));
      const std::int64_t step = 1 + below(3);
      const std::int64_t length = (size - start + step - 1) / step;
      view = view.slice(static_cast<std::int64_t>(d), start, size, step);
      reference = reference.slice(d, start, length, step);
      break;
    }
    case 2: {
      if (dims >= 5 || view.numel() > 300) break;
      Shape to = view.shape();
      for (std::int64_t& size : to) size = size == 1 && random() % 2 == 0 ? 3 : size;
      if (random() % 2 == 0) to.insert(0, 2);
      view = view.expand(to);
      reference = reference.expand(to);
      break;
    }
    case 3: {
      if (dims < 2) break;
      const auto d = static_cast<std::size_t>(below(dims - 1));
      Shape to = view.shape();
      to[d] *= to[d + 1];
      to.erase(d + 1);
      view = view.reshape(to);
      reference = reference.reshape(to);
      break;
    }
    default: {
      if (dims >= 5) break;
      const std::int64_t d = below(dims + 1);
      Shape to = view.shape();
      to.insert(static_cast<std::size_t>(d), 1);
      view = view.unsqueeze(d);
      reference = reference.reshape(to);
    }
  }
}

TEST(Views, RandomChainsShowTheElementsThatBruteForceShows) {
  std::mt19937 random(20261123);
  for (int chain = 0; chain < 300; ++chain) {
    Tensor view = counting({3, 5, 2, 3});
    Reference reference = Reference::of_base({3, 5, 2, 3});
    for (int step = 0; step < 6; ++step) {
      random_view(random, view, reference);
      expect_same(view, reference);
      expect_same(view.contiguous(), reference);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(Views, WritingThroughAChainChangesExactlyTheElementsShown) {
  std::mt19937 random(5);
  int written = 0;
  for (int chain = 0; chain < 200; ++chain) {
    const Tensor base = counting({3, 5, 2, 3});
    Tensor view = base;
    Reference reference = Reference::of_base({3, 5, 2, 3});
    for (int step = 0; step < 4; ++step) random_view(random, view, reference);
    bool expanded = false;
    for (std::size_t d = 0; d < view.dim(); ++d) {
      expanded = expanded || (view.strides()[d] == 0 && view.shape()[d] > 1);
    }
    if (expanded || !shares_memory(view, base)) continue;
    ++written;
    std::vector<double> expected = base.to_vector<double>();
    for (std::size_t i = 0; i < reference.elements.size(); ++i) {
      expected[static_cast<std::size_t>(reference.elements[i])] = 1000.0 + static_cast<double>(i);
    }
    std::vector<double> values(reference.elements.size());
    std::iota(values.begin(), values.end(), 1000.0);
    view.copy_(tensor(values, view.shape()));
    EXPECT_EQ(base.to_vector<double>(), expected);
  }
  EXPECT_GT(written, 50);
}

TEST(Views, SeeWritesToTheirBase) {
  const Tensor base = zeros({2, 3});
  const Tensor column = base.select(1, 2);
  const Tensor repeated = column.unsqueeze(0).expand({2, 2});
  base.fill_(4);
  expect_values(column, {2}, {4, 4});
  column.fill_(5);
  expect_values(base, {2, 3}, {4, 4, 5, 4, 4, 5});
  expect_values(repeated, {2, 2}, {5, 5, 5, 5});
}

TEST(Views, ACopyIsIndependent) {
  const Tensor base = counting({2, 3});
  for (const Tensor& copy :
       {base.clone(), base.transpose(0, 1).contiguous(), base.transpose(0, 1).reshape({6})}) {
    const std::vector<double> before = copy.to_vector<double>();
    const NoGradGuard guard;
    base.fill_(9);
    EXPECT_EQ(copy.to_vector<double>(), before);
    base.copy_(counting({2, 3}));
  }
}

// ---- errors -------------------------------------------------------------------------------------

TEST(ViewErrors, NameTheOpAndTheOffendingValue) {
  const Tensor x = zeros({3, 5});
  const Tensor scalar = scalar_tensor(1);
  expect_error([&] { x.reshape({4, 4}); }, {"reshape", "[3, 5] (15 elements)", "[4, 4]"});
  expect_error([&] { x.reshape({-1, 4}); }, {"reshape", "[3, 5]", "[-1, 4]"});
  expect_error([&] { x.reshape({-1, -1}); }, {"reshape", "more than one -1", "[-1, -1]"});
  expect_error([&] { x.reshape({-2, 5}); }, {"reshape", "-2"});
  expect_error([&] { zeros({0}).reshape({0, -1}); }, {"reshape", "[0, -1]"});
  expect_error([&] { x.reshape({INT64_MAX, INT64_MAX}); }, {"reshape", "2^63"});
  expect_error([&] { x.permute({0}); }, {"permute", "[0]", "[3, 5]"});
  expect_error([&] { x.permute({0, 2}); }, {"permute", "dimension 2"});
  expect_error([&] { x.permute({1, -1}); }, {"permute", "dimension -1", "twice"});
  expect_error([&] { x.transpose(0, 2); }, {"transpose", "dimension 2"});
  expect_error([&] { x.slice(2, 0); }, {"slice", "dimension 2"});
  expect_error([&] { x.slice(0, 0, 3, 0); }, {"slice", "step", "got 0"});
  expect_error([&] { x.slice(0, 0, 3, -1); }, {"slice", "step", "got -1"});
  expect_error([&] { scalar.slice(0, 0); }, {"slice", "0-dimensional"});
  expect_error([&] { x.narrow(0, 2, 2); }, {"narrow", "2 elements from 2", "[3, 5]"});
  expect_error([&] { x.narrow(0, -4, 1); }, {"narrow", "-4"});
  expect_error([&] { x.narrow(1, 0, -1); }, {"narrow", "-1 elements"});
  expect_error([&] { x.narrow(1, INT64_MAX, INT64_MAX); }, {"narrow", "9223372036854775807"});
  expect_error([&] { scalar.narrow(0, 0, 1); }, {"narrow", "0-dimensional"});
  expect_error([&] { x.select(0, 3); }, {"select", "index 3", "[3, 5]"});
  expect_error([&] { x.select(1, -6); }, {"select", "index -6"});
  expect_error([&] { x.select(-3, 0); }, {"select", "dimension -3"});
  expect_error([&] { scalar.select(0, 0); }, {"select", "0-dimensional"});
  expect_error([&] { x.expand({3, 6}); }, {"expand", "[3, 5]", "[3, 6]"});
  expect_error([&] { x.expand({5}); }, {"expand", "more dimensions", "[5]"});
  expect_error([&] { x.expand({-1, 3, 5}); }, {"expand", "[-1, 3, 5]"});
  expect_error([&] { x.expand({3, -2}); }, {"expand", "[3, -2]"});
  expect_error([&] { x.squeeze(2); }, {"squeeze", "dimension 2"});
  expect_error([&] { x.unsqueeze(3); }, {"unsqueeze", "dimension 3"});
  expect_error([&] { zeros({1, 1, 1, 1, 1, 1, 1, 1}).unsqueeze(0); }, {"at most 8"});
  expect_error([&] { x.flatten(1, 0); }, {"flatten", "1", "0"});
  expect_error([&] { x.flatten(0, 2); }, {"flatten", "dimension 2"});
  expect_error([&] { sum_to(x, {2}); }, {"sum_to", "[2]", "[3, 5]"});
  expect_error([&] { sum_to(x, {2, 3, 5}); }, {"sum_to", "[2, 3, 5]"});
  expect_error([&] { embed(x, {3, 6}, 1, 2, 1); }, {"embed", "[3, 5]", "[3, 6]"});
  expect_error([&] { accumulate(x, zeros({5, 3})); }, {"accumulate", "[3, 5]", "[5, 3]"});
}

}  // namespace
}  // namespace tenon
