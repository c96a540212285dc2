#include "tenon/core/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <thread>

#include "tenon/core/parallel.h"
#include "tenon/tests/support/devices.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::expect_error;
using Words = std::array<std::uint32_t, 4>;

constexpr DType kFloating[] = {DType::Float16, DType::BFloat16, DType::Float32, DType::Float64};

/// Word that element `i` of a fill starting at block `first` is made of, as random.h documents.
std::uint32_t word_of(std::uint64_t seed, std::uint64_t first, std::int64_t i) {
  const std::uint64_t block = first + static_cast<std::uint64_t>(i / 4);
  const Words words =
      philox4x32({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, 0},
                 {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  return words[static_cast<std::size_t>(i % 4)];
}

/// Bits of the significand with the hidden one.
int significand_bits(DType dtype) {
  switch (dtype) {
    case DType::Float16:
      return 11;
    case DType::BFloat16:
      return 8;
    case DType::Float32:
      return 24;
    default:
      return 32;  // a word has no more
  }
}

Tensor uniform(const Shape& shape, DType dtype, double low, double high, std::uint64_t seed = 1) {
  Generator generator(seed);
  const Tensor result = empty(shape, {.dtype = dtype});
  uniform_(result, low, high, generator);
  return result;
}

// ---- Philox -------------------------------------------------------------------------------------

TEST(Philox, GivesTheKnownAnswersOfRandom123) {
  // The philox4x32 lines with 10 rounds of Random123's kat_vectors.
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Generator, CountsTheBlocksItHandedOut) {
  Generator generator(42);
  EXPECT_EQ(generator.seed(), 42u);
  EXPECT_EQ(generator.offset(), 0u);
  uniform_(empty({9}), 0, 1, generator);  // 9 words: 3 blocks
  EXPECT_EQ(generator.offset(), 3u);
  normal_(empty({4}), 0, 1, generator);
  EXPECT_EQ(generator.offset(), 4u);
  bernoulli_(empty({0, 3}), 0.5, generator);
  EXPECT_EQ(generator.offset(), 4u);
  EXPECT_EQ(generator.next(), word_of(42, 4, 0));
  EXPECT_EQ(generator.offset(), 5u);
}

TEST(Generator, ACopyAndARestoredStateContinueAlike) {
  Generator generator(7);
  uniform_(empty({5}), 0, 1, generator);
  Generator copy = generator;
  Generator restored;
  restored.set_state(generator.seed(), generator.offset());
  const Tensor expected = rand({11}, {}, generator);
  EXPECT_EQ(rand({11}, {}, copy).to_vector<float>(), expected.to_vector<float>());
  EXPECT_EQ(rand({11}, {}, restored).to_vector<float>(), expected.to_vector<float>());
}

TEST(Generator, CarriesIntoTheUpperHalfOfTheCounter) {
  Generator generator;
  generator.set_state(0x123456789abcdef0, 0xffffffff);
  const Tensor values = empty({8}, {.dtype = DType::Float64});
  uniform_(values, 0, 1, generator);
  for (std::int64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(values.data<double>()[i], word_of(0x123456789abcdef0, 0xffffffff, i) * 0x1p-32);
  }
  EXPECT_EQ(generator.offset(), 0x100000001u);
}

TEST(Generator, ManualSeedRestartsTheDefaultGeneratorOfThisThreadOnly) {
  manual_seed(5);
  const std::vector<float> first = rand({6}).to_vector<float>();
  std::vector<float> elsewhere;
  std::thread([&] {
    manual_seed(5);
    elsewhere = rand({6}).to_vector<float>();
  }).join();
  EXPECT_EQ(elsewhere, first);
  EXPECT_NE(rand({6}).to_vector<float>(), first) << "the stream goes on";
  manual_seed(5);
  EXPECT_EQ(rand({6}).to_vector<float>(), first);
  manual_seed(6);
  EXPECT_NE(rand({6}).to_vector<float>(), first);
}

// ---- uniform ------------------------------------------------------------------------------------

TEST(Uniform, ElementUsesItsWordOfItsBlockInEveryDtype) {
  for (DType dtype : kFloating) {
    const std::vector<double> values = uniform({3, 7}, dtype, 0, 1, 99).to_vector<double>();
    const int bits = significand_bits(dtype);
    for (std::int64_t i = 0; i < 21; ++i) {
      EXPECT_EQ(values[static_cast<std::size_t>(i)],
                std::ldexp(word_of(99, 0, i) >> (32 - bits), -bits))
          << dtype << " element " << i;
    }
  }
}

TEST(Uniform, ScalesToTheInterval) {
  const std::vector<double> unit = uniform({13}, DType::Float64, 0, 1).to_vector<double>();
  const std::vector<double> scaled = uniform({13}, DType::Float64, -3, 5).to_vector<double>();
  for (std::size_t i = 0; i < unit.size(); ++i) EXPECT_DOUBLE_EQ(scaled[i], -3 + 8 * unit[i]);
}

TEST(Uniform, NeverReturnsTheUpperBound) {
  // In all of these the nearest value of the dtype often is the upper bound.
  const std::pair<double, double> intervals[] = {{0, 1},    {1000, 1001}, {-1001, -1000}, {-1, 0},
                                                 {0, 6e-8}, {256, 258},   {-0.3, 0.1}};
  for (DType dtype : kFloating) {
    for (const auto& [low, high] : intervals) {
      const auto rounded = [&](double x) { return full({}, x, {.dtype = dtype}).item<double>(); };
      if (rounded(low) == rounded(high)) continue;
      const std::vector<double> values = uniform({4000}, dtype, low, high).to_vector<double>();
      const auto [least, greatest] = std::minmax_element(values.begin(), values.end());
      EXPECT_GE(*least, rounded(low)) << dtype << " [" << low << ", " << high << ")";
      EXPECT_LT(*greatest, rounded(high)) << dtype << " [" << low << ", " << high << ")";
    }
  }
}

TEST(Uniform, ReachesAllValuesOfACoarseDtype) {
  // float16 has the values 1000 and 1000.5 in [1000, 1001).
  const std::vector<double> values =
      uniform({1000}, DType::Float16, 1000, 1001).to_vector<double>();
  EXPECT_GT(std::count(values.begin(), values.end(), 1000.0), 100);
  EXPECT_GT(std::count(values.begin(), values.end(), 1000.5), 100);
}

TEST(Uniform, OfAnEmptyIntervalIsItsBound) {
  test::expect_values(uniform({3}, DType::Float32, 2.5, 2.5), {3}, {2.5, 2.5, 2.5});
}

TEST(Uniform, HasTheMomentsOfTheUniformDistribution) {
  constexpr int kCount = 400000;
  const std::vector<double> values = uniform({kCount}, DType::Float32, 0, 1).to_vector<double>();
  double mean = 0;
  double square = 0;
  double lag = 0;
  std::array<int, 16> cells{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    mean += values[i] / kCount;
    square += values[i] * values[i] / kCount;
    lag += (values[i] - 0.5) * (values[(i + 1) % values.size()] - 0.5) / kCount;
    ++cells[static_cast<std::size_t>(values[i] * 16)];
  }
  // Five standard errors each.
  EXPECT_NEAR(mean, 0.5, 5 * std::sqrt(1.0 / 12 / kCount));
  EXPECT_NEAR(square, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kCount));
  EXPECT_NEAR(lag, 0, 5.0 / 12 / std::sqrt(kCount));
  double chi_square = 0;
  for (int cell : cells) chi_square += (cell - kCount / 16.0) * (cell - kCount / 16.0);
  chi_square /= kCount / 16.0;
  EXPECT_LT(chi_square, 44.3) << "the 0.9999 quantile at 15 degrees of freedom";
}

// ---- normal -------------------------------------------------------------------------------------

TEST(Normal, IsBoxAndMullerOfPairsOfWords) {
  Generator generator(3);
  const Tensor values = empty({10}, {.dtype = DType::Float64});
  normal_(values, 2, 3, generator);
  for (std::int64_t i = 0; i < 10; ++i) {
    const std::int64_t pair = i / 2 * 2;
    const double radius = std::sqrt(-2 * std::log((word_of(3, 0, pair) + 1.0) * 0x1p-32));
    const double angle = 2 * std::numbers::pi * word_of(3, 0, pair + 1) * 0x1p-32;
    const double standard = radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
    EXPECT_NEAR(values.data<double>()[i], 2 + 3 * standard, 1e-14);
  }
}

TEST(Normal, IsTheSameInEveryDtypeUpToRounding) {
  for (DType dtype : kFloating) {
    Generator generator(11);
    Generator same(11);
    const Tensor values = randn({5, 5}, {.dtype = dtype}, generator);
    const Tensor exact = randn({5, 5}, {.dtype = DType::Float64}, same);
    EXPECT_EQ(values.to_vector<double>(), exact.to(dtype).to_vector<double>()) << dtype;
  }
}

TEST(Normal, HasTheMomentsOfTheNormalDistribution) {
  constexpr int kCount = 400000;
  Generator generator(17);
  const std::vector<double> values = randn({kCount}, {}, generator).to_vector<double>();
  std::array<double, 5> moments{};
  for (double value : values) {
    for (int k = 1; k <= 4; ++k) moments[static_cast<std::size_t>(k)] += std::pow(value, k);
  }
  for (double& moment : moments) moment /= kCount;
  const double error = 5 / std::sqrt(kCount);
  EXPECT_NEAR(moments[1], 0, error);
  EXPECT_NEAR(moments[2], 1, error * std::sqrt(2));
  EXPECT_NEAR(moments[3], 0, error * std::sqrt(15));
  EXPECT_NEAR(moments[4], 3, error * std::sqrt(96));
}

// ---- bernoulli ----------------------------------------------------------------------------------

TEST(Bernoulli, IsOneWhereTheWordIsBelowTheProbability) {
  for (DType dtype : kFloating) {
    Generator generator(23);
    const Tensor values = empty({4, 5}, {.dtype = dtype});
    bernoulli_(values, 0.3, generator);
    const std::vector<double> drawn = values.to_vector<double>();
    for (std::int64_t i = 0; i < 20; ++i) {
      EXPECT_EQ(drawn[static_cast<std::size_t>(i)], word_of(23, 0, i) < 0.3 * 0x1p32 ? 1 : 0);
    }
  }
}

TEST(Bernoulli, OfZeroAndOneIsCertain) {
  Generator generator;
  const Tensor values = empty({1000});
  bernoulli_(values, 0, generator);
  EXPECT_EQ(values.to_vector<float>(), std::vector<float>(1000, 0.0f));
  bernoulli_(values, 1, generator);
  EXPECT_EQ(values.to_vector<float>(), std::vector<float>(1000, 1.0f));
}

// ---- what all share -----------------------------------------------------------------------------

TEST(Random, DoesNotDependOnTheNumberOfThreads) {
  const int threads_before = num_threads();
  std::vector<std::vector<double>> results;
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    Generator generator(31);
    std::vector<double> all;
    for (DType dtype : kFloating) {
      const Tensor values = empty({3, 33331}, {.dtype = dtype});
      uniform_(values, -1, 1, generator);
      for (double value : values.to_vector<double>()) all.push_back(value);
      normal_(values, 0, 1, generator);
      for (double value : values.to_vector<double>()) all.push_back(value);
    }
    results.push_back(std::move(all));
  }
  set_num_threads(threads_before);
  EXPECT_TRUE(results[0] == results[1]);
  EXPECT_TRUE(results[0] == results[2]);
}

TEST(Random, FillsAViewInItsRowMajorOrderAndNothingElse) {
  Generator generator(37);
  Generator same(37);
  const Tensor base = zeros({5, 6});
  const Tensor view = base.slice(0, 1, 5, 2).transpose(0, 1);  // [6, 2]
  ASSERT_FALSE(view.is_contiguous());
  uniform_(view, 1, 2, generator);
  const Tensor expected = empty({6, 2});
  uniform_(expected, 1, 2, same);
  EXPECT_EQ(view.to_vector<float>(), expected.to_vector<float>());
  for (std::int64_t row : {0, 2, 4}) {
    EXPECT_EQ(base.select(0, row).to_vector<float>(), std::vector<float>(6, 0.0f));
  }
}

class RandomOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(RandomOnDevice);

TEST_P(RandomOnDevice, UniformAndBernoulliAreTheCpusBits) {
  for (DType dtype : kFloating) {
    for (const std::int64_t count : {1, 5, 4096, 33331}) {
      SCOPED_TRACE(testing::Message() << dtype << " x " << count);
      Generator here(91);
      Generator there(91);
      const Tensor expected = empty({count}, {.dtype = dtype});
      const Tensor values = empty({count}, {.dtype = dtype, .device = device()});
      uniform_(expected, -0.3, 1.7, here);
      uniform_(values, -0.3, 1.7, there);
      EXPECT_EQ(values.to_vector<double>(), expected.to_vector<double>());
      bernoulli_(expected, 0.3, here);
      bernoulli_(values, 0.3, there);
      EXPECT_EQ(values.to_vector<double>(), expected.to_vector<double>());
      EXPECT_EQ(there.offset(), here.offset());
    }
  }
}

TEST_P(RandomOnDevice, NormalIsTheCpusWithinRounding) {
  for (DType dtype : kFloating) {
    Generator here(93);
    Generator there(93);
    const Tensor expected = randn({333, 7}, {.dtype = dtype}, here);
    const Tensor values = randn({333, 7}, {.dtype = dtype, .device = device()}, there);
    const std::vector<double> a = values.to_vector<double>();
    const std::vector<double> b = expected.to_vector<double>();
    // Logarithm and sine may differ in the last bits of float64, and so the last one of the dtype.
    const double unit =
        dtype == DType::Float64 ? 1e-15 : std::ldexp(1, 1 - significand_bits(dtype));
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_NEAR(a[i], b[i], unit * std::abs(b[i]) + 1e-15) << dtype << " element " << i;
    }
  }
}

TEST(Random, RandintStaysInItsRangeAndReachesAllOfIt) {
  Generator generator(41);
  const std::vector<std::int64_t> values =
      randint(-2, 3, {50, 20}, {.dtype = DType::Int64}, generator).to_vector<std::int64_t>();
  for (std::int64_t wanted = -2; wanted < 3; ++wanted) {
    // 200 expected, standard deviation 12.6.
    EXPECT_NEAR(std::count(values.begin(), values.end(), wanted), 200, 64) << wanted;
  }
  const auto [least, greatest] = std::minmax_element(values.begin(), values.end());
  EXPECT_EQ(*least, -2);
  EXPECT_EQ(*greatest, 2);
}

TEST(Random, RandpermIsAPermutationThatTheSeedDecides) {
  Generator generator(43);
  const std::vector<std::int64_t> order = randperm(101, generator).to_vector<std::int64_t>();
  std::vector<std::int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::int64_t> expected(101);
  std::iota(expected.begin(), expected.end(), std::int64_t{0});
  EXPECT_EQ(sorted, expected);
  EXPECT_NE(order, expected);
  Generator same(43);
  EXPECT_EQ(randperm(101, same).to_vector<std::int64_t>(), order);
  EXPECT_NE(randperm(101, same).to_vector<std::int64_t>(), order);
  EXPECT_EQ(randperm(0, same).shape(), Shape{0});
}

TEST(Random, ChangesTheVersionAndRefusesWhatCannotBeChangedInPlace) {
  const Tensor leaf = zeros({3}, {.requires_grad = true});
  expect_error([&] { uniform_(leaf, 0, 1); }, {"uniform_", "gradient is being recorded"});
  const Tensor expanded = zeros({1, 3}).expand({2, 3});
  expect_error([&] { normal_(expanded, 0, 1); }, {"normal_", "[2, 3] is expanded", "clone()"});
}

TEST(Random, RejectsBadArguments) {
  const Tensor x = zeros({3});
  const Tensor half = zeros({3}, {.dtype = DType::Float16});
  const Tensor integers = zeros({3}, {.dtype = DType::Int64});
  expect_error([&] { uniform_(integers, 0, 1); }, {"uniform_", "floating", "int64"});
  expect_error([&] { normal_(integers, 0, 1); }, {"normal_", "floating", "int64"});
  expect_error([&] { bernoulli_(integers, 0.5); }, {"bernoulli_", "floating", "int64"});
  expect_error([&] { uniform_(x, 2, 1); }, {"uniform_", "low <= high", "[2, 1)"});
  expect_error([&] { uniform_(x, 0, NAN); }, {"uniform_", "nan"});
  expect_error([&] { uniform_(x, -INFINITY, 0); }, {"uniform_", "-inf"});
  expect_error([&] { uniform_(half, 0, 70000); }, {"uniform_", "float16", "70000"});
  expect_error([&] { normal_(x, 0, -1); }, {"normal_", "stddev -1"});
  expect_error([&] { normal_(x, NAN, 1); }, {"normal_", "mean nan"});
  expect_error([&] { bernoulli_(x, 1.5); }, {"bernoulli_", "[0, 1]", "1.5"});
  expect_error([&] { bernoulli_(x, -0.1); }, {"bernoulli_", "-0.1"});
  expect_error([&] { bernoulli_(x, NAN); }, {"bernoulli_", "nan"});
  expect_error([&] { randint(3, 3, {2}); }, {"randint", "[3, 3)"});
  expect_error([&] { randperm(-1); }, {"randperm", "-1"});
}

}  // namespace
}  // namespace tenon
