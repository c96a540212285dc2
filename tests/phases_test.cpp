// The phase geometry of a transposed convolution, against its definition.
#include "tenon/ops/fused/phases.h"

#include <gtest/gtest.h>

#include <vector>

namespace tenon {
namespace {

using ops::PhaseAxis;

/// All axes with small numbers, among them those where the stride and the dilation share a factor.
std::vector<PhaseAxis> all_axes() {
  std::vector<PhaseAxis> axes;
  for (std::int64_t stride = 1; stride <= 4; ++stride) {
    for (std::int64_t dilation = 1; dilation <= 4; ++dilation) {
      for (std::int64_t kernel = 1; kernel <= 7; ++kernel) {
        for (std::int64_t padding = 0; padding <= 4; ++padding) {
          for (std::int64_t extra = 0; extra < std::max(stride, dilation); ++extra) {
            for (const std::int64_t input : {1, 2, 5}) {
              const std::int64_t output =
                  (input - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1;
              if (output > 0) axes.push_back({input, output, kernel, stride, padding, dilation});
            }
          }
        }
      }
    }
  }
  return axes;
}

std::string describe(const PhaseAxis& a) {
  return testing::PrintToString(
      std::vector<std::int64_t>{a.input, a.output, a.kernel, a.stride, a.padding, a.dilation});
}

TEST(PhaseAxis, EveryOutputBelongsToOnePhaseAndPosition) {
  for (const PhaseAxis& axis : all_axes()) {
    std::vector<int> visits(static_cast<std::size_t>(axis.output));
    for (std::int64_t phase = 0; phase < axis.stride; ++phase) {
      for (std::int64_t q = 0; q < axis.output_count(phase); ++q) {
        ++visits.at(static_cast<std::size_t>(phase + axis.stride * q));
      }
    }
    for (const int count : visits) ASSERT_EQ(count, 1) << describe(axis);
  }
}

TEST(PhaseAxis, EveryTapBelongsToOnePhase) {
  for (const PhaseAxis& axis : all_axes()) {
    std::vector<int> visits(static_cast<std::size_t>(axis.kernel));
    for (std::int64_t phase = 0; phase < axis.stride; ++phase) {
      for (std::int64_t t = 0; t < axis.tap_count(phase); ++t) {
        ++visits.at(static_cast<std::size_t>(axis.first_tap(phase) + t * axis.tap_step()));
      }
    }
    for (const int count : visits) ASSERT_EQ(count, 1) << describe(axis);
  }
}

TEST(PhaseAxis, TapsReadWhatTheDefinitionSays) {
  for (const PhaseAxis& axis : all_axes()) {
    std::int64_t products = 0;
    for (std::int64_t phase = 0; phase < axis.stride; ++phase) {
      for (std::int64_t t = 0; t < axis.tap_count(phase); ++t) {
        const std::int64_t k = axis.first_tap(phase) + t * axis.tap_step();
        for (std::int64_t q = 0; q < axis.output_count(phase); ++q) {
          const std::int64_t o = phase + axis.stride * q;
          const std::int64_t i = q + axis.tap_shift(phase, k);
          ASSERT_EQ(o + axis.padding, i * axis.stride + k * axis.dilation) << describe(axis);
          products += i >= 0 && i < axis.input ? 1 : 0;
        }
      }
    }
    std::int64_t expected = 0;  // of the definition, counted from the inputs
    for (std::int64_t i = 0; i < axis.input; ++i) {
      for (std::int64_t k = 0; k < axis.kernel; ++k) {
        const std::int64_t o = i * axis.stride + k * axis.dilation - axis.padding;
        expected += o >= 0 && o < axis.output ? 1 : 0;
      }
    }
    ASSERT_EQ(products, expected) << describe(axis);
  }
}

TEST(PhaseAxis, StrideTwoKernelThreeHasOneAndTwoTaps) {
  constexpr PhaseAxis axis{128, 256, 3, 2, 1, 1};
  static_assert(axis.tap_count(0) == 1 && axis.tap_count(1) == 2);
  static_assert(axis.output_count(0) == 128 && axis.output_count(1) == 128);
  EXPECT_EQ(axis.first_tap(0), 1);
  EXPECT_EQ(axis.first_tap(1), 0);
}

TEST(PhaseAxis, PhaseWithoutTapsWhenKernelIsShorterThanStride) {
  constexpr PhaseAxis axis{3, 12, 2, 4, 0, 1};
  EXPECT_EQ(axis.tap_count(0), 1);
  EXPECT_EQ(axis.tap_count(1), 1);
  EXPECT_EQ(axis.tap_count(2), 0);
  EXPECT_EQ(axis.tap_count(3), 0);
}

TEST(PhaseAxis, StrideAndDilationWithCommonFactorLeavePhasesEmpty) {
  constexpr PhaseAxis axis{4, 11, 3, 2, 0, 2};
  EXPECT_EQ(axis.tap_step(), 1);
  EXPECT_EQ(axis.tap_count(0), 3);
  EXPECT_EQ(axis.tap_count(1), 0);
}

}  // namespace
}  // namespace tenon
