// Which convolutions the fused kernel's tables and offsets can hold.
#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

#include "tenon/ops/fused/tiling.h"

namespace tenon {
namespace {

using ops::PhaseAxis;
using ops::TransposedShape;

/// A convolution that fits, for tests to change.
TransposedShape fitting_shape() { return {2, 1, 8, 8, {5, 9, 3, 2, 1, 1}, {5, 9, 3, 2, 1, 1}}; }

/// Whether the convolution fits with `axis` for its rows, and for its columns; which must agree.
bool axis_fits(const PhaseAxis& axis) {
  TransposedShape shape = fitting_shape();
  shape.rows = axis;
  const bool rows = tiling_fits(shape);
  shape = fitting_shape();
  shape.columns = axis;
  EXPECT_EQ(rows, tiling_fits(shape));
  return rows;
}

TEST(TilingFits, KernelsToSevenAndStridesToFour) {
  EXPECT_TRUE(tiling_fits(fitting_shape()));
  EXPECT_TRUE(axis_fits({5, 13, 7, 2, 1, 1}));
  EXPECT_FALSE(axis_fits({5, 14, 8, 2, 1, 1}));
  EXPECT_TRUE(axis_fits({5, 17, 3, 4, 1, 1}));
  EXPECT_FALSE(axis_fits({5, 21, 3, 5, 1, 1}));
}

/// Such a kernel's reach, and the padding that keeps its output small, could pass what an int
/// holds.
TEST(TilingFits, DilationsToTwoToTheTenth) {
  EXPECT_TRUE(axis_fits({5, 5, 3, 1, 1 << 10, 1 << 10}));
  EXPECT_FALSE(axis_fits({5, 5, 3, 1, (1 << 10) + 1, (1 << 10) + 1}));
  constexpr std::int64_t kHuge = std::int64_t{1} << 40;
  EXPECT_FALSE(axis_fits({5, 5, 3, 1, kHuge, kHuge}));
}

TEST(TilingFits, NoEmptyTensor) {
  EXPECT_FALSE(axis_fits({0, 1, 3, 2, 0, 1}));
  EXPECT_FALSE(axis_fits({1, 0, 1, 1, 0, 1}));
  TransposedShape shape = fitting_shape();
  shape.images = 0;
  EXPECT_FALSE(tiling_fits(shape));
  shape = fitting_shape();
  shape.in_channels = 0;
  EXPECT_FALSE(tiling_fits(shape));
  shape = fitting_shape();
  shape.out_channels = 0;
  EXPECT_FALSE(tiling_fits(shape));
}

TEST(TilingFits, PlanesToTwoToTheTwentyThird) {
  constexpr std::int64_t kSide = 1 << 11;
  TransposedShape shape = fitting_shape();
  shape.rows = {kSide, kSide, 1, 1, 0, 1};
  shape.columns = {2 * kSide, 2 * kSide, 1, 1, 0, 1};
  EXPECT_TRUE(tiling_fits(shape));
  shape.columns.input = 2 * kSide + 1;
  EXPECT_FALSE(tiling_fits(shape));
  shape.columns.input = 2 * kSide;
  shape.columns.output = 2 * kSide + 1;
  EXPECT_FALSE(tiling_fits(shape));
}

TEST(TilingFits, PlanesThatThirtyTwoBitsCount) {
  constexpr int kMost = 268435455;  // 2^28 − 1
  TransposedShape shape = fitting_shape();
  shape.in_channels = shape.out_channels = 1;
  shape.images = kMost;
  EXPECT_TRUE(tiling_fits(shape));
  shape.images = kMost + 1;
  EXPECT_FALSE(tiling_fits(shape));
  shape.images = 1 << 14;
  shape.groups = 1 << 7;
  shape.in_channels = 1 << 7;
  EXPECT_FALSE(tiling_fits(shape));
  std::swap(shape.in_channels, shape.out_channels);
  EXPECT_FALSE(tiling_fits(shape));
  shape.out_channels = (1 << 7) - 1;
  EXPECT_TRUE(tiling_fits(shape));
}

TEST(TilingFits, PlanesBeyondThirtyTwoBitsAreNotTakenForFew) {
  constexpr std::int64_t kMany = (std::int64_t{1} << 32) + 1;
  const auto fits = [](const Shape& x, const Shape& weight, const Shape& y, std::int64_t groups) {
    return tiling_fits(TransposedShape::of(x, weight, y, {.groups = groups}));
  };
  EXPECT_TRUE(fits({1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}, 1));
  EXPECT_FALSE(fits({kMany, 1, 1, 1}, {1, 1, 1, 1}, {kMany, 1, 1, 1}, 1));
  EXPECT_FALSE(fits({1, kMany, 1, 1}, {kMany, 1, 1, 1}, {1, 1, 1, 1}, 1));
  EXPECT_FALSE(fits({1, 1, 1, 1}, {1, kMany, 1, 1}, {1, kMany, 1, 1}, 1));
  EXPECT_FALSE(fits({1, kMany, 1, 1}, {kMany, 1, 1, 1}, {1, kMany, 1, 1}, kMany));
}

}  // namespace
}  // namespace tenon
