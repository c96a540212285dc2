#include "tenon/core/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <numeric>

#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::expect_error;

constexpr DType kBool = DType::Bool;
constexpr DType kUInt8 = DType::UInt8;
constexpr DType kInt64 = DType::Int64;
constexpr DType kHalf = DType::Float16;
constexpr DType kBrain = DType::BFloat16;
constexpr DType kFloat = DType::Float32;
constexpr DType kDouble = DType::Float64;
constexpr DType kAll[] = {kBool, kUInt8, kInt64, kHalf, kBrain, kFloat, kDouble};

/// A floating format: bits of the significand (the hidden one included) and exponent range.
struct FloatFormat {
  int bits;
  int min_exponent;  // of the smallest normal number, 2^min_exponent
  double largest;
};

FloatFormat format_of(DType dtype) {
  if (dtype == kHalf) return {11, -14, 65504.0};
  if (dtype == kBrain) return {8, -126, std::ldexp(255, 120)};
  if (dtype == kFloat) return {24, -126, std::numeric_limits<float>::max()};
  return {53, -1022, std::numeric_limits<double>::max()};
}

/// `value` rounded to nearest, ties to even, by arithmetic on float64 alone.
double rounded(double value, DType dtype) {
  if (value == 0 || !std::isfinite(value) || dtype == kDouble) return value;
  const FloatFormat format = format_of(dtype);
  const int exponent = std::max(std::ilogb(value), format.min_exponent);
  const double unit = std::ldexp(1.0, exponent - format.bits + 1);
  const double result = std::nearbyint(value / unit) * unit;
  return std::abs(result) > format.largest ? std::copysign(INFINITY, value) : result;
}

/// What converting `value` to `dtype` must give.
double converted(double value, DType dtype) {
  if (dtype == kBool) return value != 0 ? 1 : 0;
  if (dtype == kInt64) return std::trunc(value);
  if (dtype == kUInt8) {  // modulo 256, as PyTorch and C++ integers do
    return static_cast<std::uint8_t>(static_cast<std::int64_t>(value));
  }
  return rounded(value, dtype);
}

bool same_number(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

/// The 16-bit patterns 0, 1, 2, … seen as elements of `dtype`.
Tensor all_patterns(DType dtype) {
  auto bits = std::make_shared<std::vector<std::uint16_t>>(65536);
  std::iota(bits->begin(), bits->end(), std::uint16_t{0});
  return from_blob(bits->data(), {65536}, dtype, [bits](void*) {});
}

TEST(DType, NamesAndSizesArePyTorchs) {
  const std::pair<std::string_view, std::size_t> expected[] = {
      {"bool", 1},     {"uint8", 1},   {"int64", 8},  {"float16", 2},
      {"bfloat16", 2}, {"float32", 4}, {"float64", 8}};
  for (std::size_t i = 0; i < std::size(kAll); ++i) {
    EXPECT_EQ(name(kAll[i]), expected[i].first);
    EXPECT_EQ(item_size(kAll[i]), expected[i].second);
    EXPECT_EQ(parse_dtype(expected[i].first), kAll[i]);
    EXPECT_EQ(is_floating(kAll[i]), i >= 3);
  }
}

TEST(DType, ParseOfAnUnknownNameListsTheKnownOnes) {
  expect_error([] { parse_dtype("float8"); }, {"'float8'", "bool", "bfloat16", "float64"});
  expect_error([] { parse_dtype(""); }, {"''"});
}

TEST(DType, VisitFloatingRefusesIntegersNamingTheOp) {
  expect_error([] { visit_floating(kInt64, "sqrt", []<class T>() {}); },
               {"sqrt", "floating", "int64"});
}

TEST(DType, PromotionOfTensorsIsPyTorchsTable) {
  // torch.promote_types, rows and columns in the order of kAll.
  const DType expected[7][7] = {
      {kBool, kUInt8, kInt64, kHalf, kBrain, kFloat, kDouble},
      {kUInt8, kUInt8, kInt64, kHalf, kBrain, kFloat, kDouble},
      {kInt64, kInt64, kInt64, kHalf, kBrain, kFloat, kDouble},
      {kHalf, kHalf, kHalf, kHalf, kFloat, kFloat, kDouble},
      {kBrain, kBrain, kBrain, kFloat, kBrain, kFloat, kDouble},
      {kFloat, kFloat, kFloat, kFloat, kFloat, kFloat, kDouble},
      {kDouble, kDouble, kDouble, kDouble, kDouble, kDouble, kDouble},
  };
  for (std::size_t i = 0; i < 7; ++i) {
    for (std::size_t j = 0; j < 7; ++j) {
      EXPECT_EQ(promote_types(kAll[i], kAll[j]), expected[i][j]) << kAll[i] << ' ' << kAll[j];
    }
  }
}

TEST(DType, PromotionWithAScalarIsPyTorchsTable) {
  // torch.result_type(tensor, scalar) for True, 1 and 1.5.
  const DType expected[7][3] = {
      {kBool, kInt64, kFloat},     {kUInt8, kUInt8, kFloat}, {kInt64, kInt64, kFloat},
      {kHalf, kHalf, kHalf},       {kBrain, kBrain, kBrain}, {kFloat, kFloat, kFloat},
      {kDouble, kDouble, kDouble},
  };
  for (std::size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(promote_with_scalar(kAll[i], Scalar(true).kind()), expected[i][0]) << kAll[i];
    EXPECT_EQ(promote_with_scalar(kAll[i], Scalar(1).kind()), expected[i][1]) << kAll[i];
    EXPECT_EQ(promote_with_scalar(kAll[i], Scalar(1.5).kind()), expected[i][2]) << kAll[i];
  }
}

TEST(DType, ScalarRemembersHowItWasWritten) {
  EXPECT_EQ(Scalar(true).kind(), Scalar::Kind::Bool);
  EXPECT_EQ(Scalar('a').kind(), Scalar::Kind::Int);
  EXPECT_EQ(Scalar(2.0f).kind(), Scalar::Kind::Real);
  const std::int64_t exact = (std::int64_t{1} << 62) + 1;
  EXPECT_EQ(Scalar(exact).to_int64(), exact);
  EXPECT_EQ(Scalar(-2.75).to_int64(), -2);
  EXPECT_EQ(Scalar(7).to_double(), 7.0);
}

TEST(Conversion, OfOrdinaryValuesBetweenAllPairsIsExact) {
  const std::vector<double> values{0,    -0.0,  1,   -1,  0.5, -0.5, 0.999,
                                   2.75, -2.75, 100, 200, 255, 3.1};
  for (DType from : kAll) {
    const Tensor source = tensor(values, {13}).to(from);
    const std::vector<double> read = source.to_vector<double>();
    for (DType to : kAll) {
      const std::vector<double> result = source.to(to).to_vector<double>();
      for (std::size_t i = 0; i < values.size(); ++i) {
        const double expected = converted(read[i], to);
        // Integers have no negative zero.
        EXPECT_EQ(result[i], expected) << from << " -> " << to << " of " << read[i];
        if (is_floating(from) && is_floating(to)) {
          EXPECT_TRUE(same_number(result[i], expected)) << from << " -> " << to << ' ' << read[i];
        }
      }
    }
  }
}

TEST(Conversion, GivesTheSameAtEveryPositionAndStride) {
  // Vectorised main loops, their tails and strided loops must agree, out-of-range values included.
  const std::vector<double> pattern{-1, 300, 2.5, -0.5, 70000, 1e-8, -129, 511.75, 0, 4e9};
  std::vector<double> values;
  for (int i = 0; i < 203; ++i) values.push_back(pattern[static_cast<std::size_t>(i) % 10]);
  for (DType from : {kFloat, kDouble, kBrain, kInt64}) {
    const Tensor source = tensor(values, {203}).to(from);
    const Tensor spread = zeros({203, 3}, {.dtype = from});
    spread.select(1, 1).copy_(source);
    for (DType to : kAll) {
      const std::vector<double> whole = source.to(to).to_vector<double>();
      EXPECT_EQ(spread.select(1, 1).to(to).to_vector<double>(), whole) << from << " -> " << to;
      for (std::size_t i = 0; i < whole.size(); ++i) {
        ASSERT_EQ(whole[i], whole[i % 10]) << from << " -> " << to << " at " << i;
        EXPECT_EQ(whole[i], converted(source.select(0, static_cast<std::int64_t>(i)).item(), to));
      }
    }
  }
}

TEST(Conversion, ToBoolIsTrueForAllButZero) {
  const Tensor values = tensor<double>({0, -0.0, NAN, INFINITY, -INFINITY, -1, 1e-300, 5e-324});
  test::expect_values(values.to(kBool), {8}, {0, 0, 1, 1, 1, 1, 1, 1});
  for (DType dtype : {kHalf, kBrain, kFloat}) {
    const Tensor specials = tensor<double>({0, -0.0, NAN, -INFINITY, -3}).to(dtype);
    test::expect_values(specials.to(kBool), {5}, {0, 0, 1, 1, 1});
  }
}

TEST(Conversion, KeepsNaNAndInfinityBetweenFloatingTypes) {
  const DType floating[] = {kHalf, kBrain, kFloat, kDouble};
  for (DType from : floating) {
    for (DType to : floating) {
      const std::vector<double> result =
          tensor<double>({NAN, INFINITY, -INFINITY}).to(from).to(to).to_vector<double>();
      EXPECT_TRUE(std::isnan(result[0])) << from << " -> " << to;
      EXPECT_EQ(result[1], INFINITY) << from << " -> " << to;
      EXPECT_EQ(result[2], -INFINITY) << from << " -> " << to;
    }
  }
}

TEST(Conversion, OfInt64KeepsAllBits) {
  const std::int64_t odd = (std::int64_t{1} << 53) + 1;
  const Tensor values = tensor<std::int64_t>({odd, -odd, INT64_MAX, INT64_MIN});
  EXPECT_EQ(values.clone().to_vector<std::int64_t>(), values.to_vector<std::int64_t>());
  EXPECT_EQ(values.select(0, 0).item<std::int64_t>(), odd);
  EXPECT_EQ(full({1}, odd, {.dtype = kInt64}).item<std::int64_t>(), odd);
}

TEST(Conversion, HalfRoundsToNearestEven) {
  const double unit = std::ldexp(1, -10);  // of the numbers from 1 to 2
  const std::map<double, double> expected{
      {1 + unit / 2, 1},                 // tie, even below
      {1 + 3 * unit / 2, 1 + 2 * unit},  // tie, even above
      {1 + unit / 2 + 1e-6, 1 + unit},
      {65519, 65504},
      {65520, INFINITY},  // tie with the number that would come next
      {-65520, -INFINITY},
      {std::ldexp(1, -24), std::ldexp(1, -24)},  // smallest subnormal
      {std::ldexp(1, -25), 0},                   // tie, zero is even
      {std::ldexp(1.001, -25), std::ldexp(1, -24)},
      {std::ldexp(3, -25), std::ldexp(2, -24)},
  };
  for (const auto& [value, result] : expected) {
    EXPECT_EQ(full({}, value, {.dtype = kFloat}).to(kHalf).item(), result) << value;
  }
}

TEST(Conversion, BFloat16RoundsToNearestEven) {
  const double unit = std::ldexp(1, -7);
  const std::map<double, double> expected{
      {1 + unit / 2, 1},
      {1 + 3 * unit / 2, 1 + 2 * unit},
      {1 + unit / 2 + 1e-5, 1 + unit},
      {std::numeric_limits<float>::max(), INFINITY},
      {-std::numeric_limits<float>::max(), -INFINITY},
      {std::ldexp(1, -133), std::ldexp(1, -133)},  // smallest subnormal
      {std::ldexp(1, -134), 0},
      {std::ldexp(3, -134), std::ldexp(2, -133)},
  };
  for (const auto& [value, result] : expected) {
    EXPECT_EQ(full({}, value, {.dtype = kFloat}).to(kBrain).item(), result) << value;
  }
}

TEST(Conversion, EveryHalfAndBFloat16SurvivesTheWayThroughFloat32) {
  for (DType dtype : {kHalf, kBrain}) {
    const Tensor all = all_patterns(dtype);
    const Tensor back = all.to(kFloat).to(dtype);
    const auto* before = static_cast<const std::uint16_t*>(all.raw_data());
    const auto* after = static_cast<const std::uint16_t*>(back.raw_data());
    const std::vector<double> values = all.to_vector<double>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(values[i])) {
        ASSERT_TRUE(std::isnan(back.select(0, static_cast<std::int64_t>(i)).item())) << i;
      } else {
        ASSERT_EQ(before[i], after[i]) << dtype << ' ' << values[i];
      }
    }
  }
}

TEST(Conversion, RandomFloat32RoundsToNearestEvenIn16Bits) {
  std::vector<float> values;
  std::uint32_t bits = 12345;
  for (int i = 0; i < 20000; ++i) {
    bits = bits * 1664525u + 1013904223u;
    const float value = std::bit_cast<float>(bits);
    if (std::isfinite(value)) values.push_back(value);
  }
  const Tensor source = tensor(values, {static_cast<std::int64_t>(values.size())});
  for (DType dtype : {kHalf, kBrain}) {
    const std::vector<double> result = source.to(dtype).to_vector<double>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(result[i], rounded(values[i], dtype)) << dtype << " of " << values[i];
    }
  }
}

TEST(Conversion, HasTheGradientInTheDtypeOfItsInput) {
  const Tensor x = tensor<float>({1, 2, 3}).requires_grad_();
  const Tensor y = x.to(kDouble);
  y.backward(tensor<double>({0.5, 1, 2}));
  EXPECT_EQ(x.grad().dtype(), kFloat);
  test::expect_values(x.grad(), {3}, {0.5, 1, 2});
  EXPECT_FALSE(x.to(kInt64).requires_grad());
  EXPECT_FALSE(x.to(kBool).requires_grad());
}

}  // namespace
}  // namespace tenon
