#include "tenon/core/shape.h"

#include <gtest/gtest.h>

#include <sstream>

#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::expect_error;

TEST(Shape, HoldsInsertsAndErases) {
  Shape shape{2, 3};
  shape.push_back(5);
  shape.insert(0, 7);
  EXPECT_EQ(shape, (Shape{7, 2, 3, 5}));
  shape.erase(1);
  EXPECT_EQ(shape, (Shape{7, 3, 5}));
  shape.insert(3, 1);
  EXPECT_EQ(shape.to_vector(), (std::vector<std::int64_t>{7, 3, 5, 1}));
  EXPECT_EQ(shape.back(), 1);
  EXPECT_NE(shape, (Shape{7, 3, 5}));
  EXPECT_EQ(Shape::filled(3, 4), (Shape{4, 4, 4}));
  EXPECT_TRUE(Shape{}.empty());
}

TEST(Shape, PrintsInBrackets) {
  std::ostringstream out;
  out << Shape{2, -1, 3} << Shape{};
  EXPECT_EQ(out.str(), "[2, -1, 3][]");
  EXPECT_EQ((Shape{4}).to_string(), "[4]");
}

TEST(Shape, RejectsMoreThanEightDimensions) {
  EXPECT_EQ((Shape{1, 1, 1, 1, 1, 1, 1, 1}).size(), kMaxDims);
  expect_error([] { Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}; }, {"shape", "at most 8 dimensions"});
  expect_error([] { Shape(std::vector<std::int64_t>(20, 1)); }, {"at most 8"});
}

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{3, 5, 7}).numel(), 105);
  EXPECT_EQ((Shape{3, 0, 7}).numel(), 0);
  const std::int64_t big = std::int64_t{1} << 62;
  EXPECT_EQ((Shape{big, big, 0}).numel(), 0);
  EXPECT_EQ((Shape{big}).numel(), big);
  expect_error([&] { (Shape{big, 2}).numel(); }, {"shape", "[4611686018427387904, 2]", "2^63"});
}

TEST(Shape, ContiguousStridesAreRowMajor) {
  EXPECT_EQ(contiguous_strides({}), Strides{});
  EXPECT_EQ(contiguous_strides({2, 3, 5}), (Strides{15, 5, 1}));
  EXPECT_EQ(contiguous_strides({2, 1, 5}), (Strides{5, 5, 1}));
  EXPECT_EQ(contiguous_strides({2, 0, 5}), (Strides{5, 5, 1}));
}

TEST(Shape, ContiguousStridesOfAnEmptyShapeWithHugeSizesDoNotOverflow) {
  const std::int64_t big = std::int64_t{1} << 62;
  EXPECT_EQ(zeros({0, big, big}).numel(), 0);
}

TEST(Shape, BroadcastsByNumPysRule) {
  EXPECT_EQ(broadcast_shapes({}, {}, "op"), Shape{});
  EXPECT_EQ(broadcast_shapes({3}, {}, "op"), Shape{3});
  EXPECT_EQ(broadcast_shapes({2, 3}, {3}, "op"), (Shape{2, 3}));
  EXPECT_EQ(broadcast_shapes({3}, {2, 3}, "op"), (Shape{2, 3}));
  EXPECT_EQ(broadcast_shapes({2, 1, 5}, {3, 1}, "op"), (Shape{2, 3, 5}));
  EXPECT_EQ(broadcast_shapes({1}, {0}, "op"), Shape{0});
  EXPECT_EQ(broadcast_shapes({4, 0}, {1, 1}, "op"), (Shape{4, 0}));
}

TEST(Shape, BroadcastOfAllSmallPairsAgreesWithTheRule) {
  const std::vector<std::int64_t> sizes{0, 1, 2, 3};
  for (std::int64_t a0 : sizes) {
    for (std::int64_t a1 : sizes) {
      for (std::int64_t b0 : sizes) {
        for (std::int64_t b1 : sizes) {
          const auto fits = [](std::int64_t x, std::int64_t y) {
            return x == y || x == 1 || y == 1;
          };
          const auto joined = [](std::int64_t x, std::int64_t y) { return x == 1 ? y : x; };
          const Shape a{a0, a1};
          const Shape b{b0, b1};
          if (fits(a0, b0) && fits(a1, b1)) {
            EXPECT_EQ(broadcast_shapes(a, b, "op"), (Shape{joined(a0, b0), joined(a1, b1)}));
          } else {
            expect_error([&] { broadcast_shapes(a, b, "op"); },
                         {"op", a.to_string(), b.to_string()});
          }
        }
      }
    }
  }
}

TEST(Shape, BroadcastErrorNamesTheOpBothShapesAndTheDimension) {
  expect_error(
      [] {
        broadcast_shapes({2, 3, 4}, {5, 4}, "add");
      },
      {"add", "[2, 3, 4]", "[5, 4]", "dimension 1 is 3 and 5"});
}

TEST(Shape, NormalizeDimCountsFromTheBack) {
  EXPECT_EQ(normalize_dim(0, 3, "op"), 0u);
  EXPECT_EQ(normalize_dim(2, 3, "op"), 2u);
  EXPECT_EQ(normalize_dim(-1, 3, "op"), 2u);
  EXPECT_EQ(normalize_dim(-3, 3, "op"), 0u);
  EXPECT_EQ(normalize_dim(0, 0, "op"), 0u);
  EXPECT_EQ(normalize_dim(-1, 0, "op"), 0u);
  expect_error([] { normalize_dim(3, 3, "sum"); }, {"sum", "dimension 3", "[-3, 2]"});
  expect_error([] { normalize_dim(-4, 3, "sum"); }, {"sum", "dimension -4", "3 dimensions"});
  expect_error([] { normalize_dim(1, 0, "sum"); }, {"sum", "dimension 1", "0 dimensions"});
  expect_error([] { normalize_dim(INT64_MIN, 3, "sum"); }, {"sum", "-9223372036854775808"});
}

}  // namespace
}  // namespace tenon
