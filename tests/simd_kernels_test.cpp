// The inner loops of every instruction set that this processor has, against plain loops.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support/drawn.h"
#include "support/matchers.h"
#include "tenon/core/error.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu::simd {
namespace {

using test::drawn;

class SimdKernels : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels_ = find_kernels(GetParam());
    if (kernels_ == nullptr) GTEST_SKIP() << "this processor has no " << GetParam();
  }
  const Kernels* kernels_ = nullptr;
};

TEST_P(SimdKernels, SumProductsOfAnyNumberOfChannelsAndVectors) {
  constexpr int kDepth = 37;
  const int lanes = kernels_->lanes;
  const std::vector<float> x = drawn(4096, 1);
  for (int channels = 1; channels <= kernels_->channels; ++channels) {
    for (int vectors = 1; vectors <= kernels_->vectors; ++vectors) {
      for (const bool starts : {true, false}) {
        SCOPED_TRACE(testing::Message() << channels << " channels, " << vectors << " vectors");
        const std::vector<float> weights = drawn(kDepth * static_cast<std::size_t>(channels), 2);
        const std::vector<float> start = drawn(static_cast<std::size_t>(channels), 3);
        std::vector<std::int32_t> offsets;
        for (int k = 0; k < kDepth; ++k) offsets.push_back(k * 53 % 1999);
        const int stride = vectors * lanes + 3;
        std::vector<float> sums = drawn(static_cast<std::size_t>(channels * stride), 4);
        const std::vector<float> before = sums;
        Product product{.vectors = {},
                        .vector_count = vectors,
                        .channels = channels,
                        .depth = kDepth,
                        .offsets = offsets.data(),
                        .weights = weights.data(),
                        .start = starts ? start.data() : nullptr,
                        .sums = sums.data(),
                        .sums_stride = stride};
        for (int v = 0; v < vectors; ++v) product.vectors[v] = x.data() + 101 * v;
        kernels_->multiply(product);
        for (int c = 0; c < channels; ++c) {
          for (int j = 0; j < stride; ++j) {
            const auto at = static_cast<std::size_t>(c * stride + j);
            if (j >= vectors * lanes) {
              EXPECT_EQ(sums[at], before[at]) << "beyond the vectors";
              continue;
            }
            double expected = starts ? start[static_cast<std::size_t>(c)] : before[at];
            for (int k = 0; k < kDepth; ++k) {
              expected +=
                  static_cast<double>(weights[static_cast<std::size_t>(k * channels + c)]) *
                  product.vectors[j / lanes][offsets[static_cast<std::size_t>(k)] + j % lanes];
            }
            EXPECT_NEAR(sums[at], expected, 1e-5);
          }
        }
      }
    }
  }
}

TEST_P(SimdKernels, MultiplyMatricesOfAnyNumberOfRowsAndVectors) {
  constexpr int kDepth = 29;
  const int lanes = kernels_->lanes;
  const std::vector<float> a = drawn(4096, 1);
  const std::vector<float> b = drawn(8192, 2);
  for (int rows = 1; rows <= kernels_->channels; ++rows) {
    for (int vectors = 1; vectors <= kernels_->vectors; ++vectors) {
      for (const bool adds : {false, true}) {
        SCOPED_TRACE(testing::Message() << rows << " rows, " << vectors << " vectors");
        const int stride = vectors * lanes + 3;
        std::vector<float> sums = drawn(static_cast<std::size_t>(rows * stride), 4);
        const std::vector<float> before = sums;
        const MatrixProduct product{.a = a.data(),
                                    .a_row = 67,
                                    .a_depth = 2,
                                    .rows = rows,
                                    .b = b.data(),
                                    .b_depth = lanes + 1,
                                    .b_vector = 1009,
                                    .vectors = vectors,
                                    .depth = kDepth,
                                    .adds = adds,
                                    .ahead = a.data(),
                                    .ahead_step = 1,
                                    .sums = sums.data(),
                                    .sums_row = stride};
        kernels_->multiply_matrix(product);
        for (int i = 0; i < rows; ++i) {
          for (int j = 0; j < stride; ++j) {
            const auto at = static_cast<std::size_t>(i * stride + j);
            if (j >= vectors * lanes) {
              EXPECT_EQ(sums[at], before[at]) << "beyond the vectors";
              continue;
            }
            double expected = adds ? before[at] : 0;
            for (int k = 0; k < kDepth; ++k) {
              expected += static_cast<double>(product.a[i * product.a_row + k * product.a_depth]) *
                          product.b[k * product.b_depth + j / lanes * product.b_vector + j % lanes];
            }
            EXPECT_NEAR(sums[at], expected, 1e-5);
          }
        }
      }
    }
  }
}

TEST_P(SimdKernels, AddWeightedRows) {
  const int lanes = kernels_->lanes;
  const std::vector<float> values = drawn(4096, 1);
  for (const int count : {1, 2, 3, 4}) {
    for (const bool adds : {false, true}) {
      SCOPED_TRACE(testing::Message() << count << " rows, adds " << adds);
      std::vector<float> target = drawn(1024, 2);
      const std::vector<float> before = target;
      const WeightedRows rows{
          .rows = {values.data(), values.data() + 501, values.data() + 7, values.data() + 64},
          .weights = {-0.5f, 1, -1, 1.25f},
          .count = count,
          .width = 2 * lanes,
          .repeats = 3,
          .row_step = 100,
          .target = target.data(),
          .target_step = lanes,
          .target_vector = 300,
          .adds = adds};
      kernels_->add_rows(rows);
      std::vector<float> expected = before;
      for (int n = 0; n < 3; ++n) {
        for (int i = 0; i < 2 * lanes; ++i) {
          double sum = 0;
          for (int r = 0; r < count; ++r) {
            sum += static_cast<double>(rows.weights[r]) * rows.rows[r][n * 100 + i];
          }
          float& place =
              expected[static_cast<std::size_t>(n * lanes + i / lanes * 300 + i % lanes)];
          place = static_cast<float>(adds ? place + sum : sum);
        }
      }
      for (std::size_t i = 0; i < target.size(); ++i) EXPECT_NEAR(target[i], expected[i], 1e-6);
    }
  }
}

TEST_P(SimdKernels, AddDotProductsOfRows) {
  const std::vector<float> a = drawn(9 * 100, 9);
  const std::vector<float> b = drawn(11 * 120, 10);
  for (const int count : {1, 15, 16, 37, 99}) {
    for (const int rows : {1, 4, 9}) {
      for (const int columns : {1, 3, 11}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << columns << ", " << count << " terms");
        std::vector<float> sums(9 * 13, 0.5f);
        kernels_->dot(a.data(), 100, rows, b.data(), 120, columns, count, sums.data(), 13);
        for (int i = 0; i < 9; ++i) {
          for (int j = 0; j < 13; ++j) {
            double expected = 0.5;
            for (int k = 0; i < rows && j < columns && k < count; ++k) {
              expected += static_cast<double>(a[static_cast<std::size_t>(i * 100 + k)]) *
                          b[static_cast<std::size_t>(j * 120 + k)];
            }
            EXPECT_NEAR(sums[static_cast<std::size_t>(i * 13 + j)], expected, 1e-5);
          }
        }
      }
    }
  }
}

TEST_P(SimdKernels, ComputeExponentialsToTheLastDigits) {
  std::vector<float> x;
  for (double value = -87.3; value < 88.7; value += 0.00137) x.push_back(static_cast<float>(value));
  std::vector<float> y = x;
  kernels_->exponential(y.data(), static_cast<std::int64_t>(y.size()));
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    worst = std::max(worst, std::abs(y[i] - exact) / exact);
  }
  EXPECT_LE(worst, 2e-7);
}

TEST_P(SimdKernels, ComputeExponentialsAtTheEndsOfTheRange) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> x{-kInfinity, -1e30f, -110,      -104, -100, -88,
                       88.8f,      1e30f,  kInfinity, 0,    -0.0f};
  x.push_back(std::numeric_limits<float>::quiet_NaN());
  std::vector<float> y = x;
  kernels_->exponential(y.data(), static_cast<std::int64_t>(y.size()));
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    if (exact > 3.5e38) {
      EXPECT_EQ(y[i], kInfinity) << x[i];
    } else {
      // Denormal numbers are right to their last digit.
      EXPECT_NEAR(y[i], exact, std::max(1.5e-45, 2e-7 * exact)) << x[i];
    }
  }
  EXPECT_TRUE(std::isnan(y.back()));
}

TEST_P(SimdKernels, ChainDoesNotDependOnAnElementsPlace) {
  const Chain chain{true, true, 0.5f, -1, 1, 2, -1, 1};
  constexpr std::int64_t kCount = 200;
  std::vector<float> whole = drawn(kCount + 16, 5);  // 16: what may be read behind the values
  for (float& value : whole) value *= 8;
  const std::vector<float> y = whole;
  std::vector<float> gradients = drawn(kCount, 6);
  const std::vector<float> g = gradients;
  kernels_->apply(chain, whole.data(), kCount);
  kernels_->gradient(chain, y.data(), gradients.data(), kCount);
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    float value = y[i];
    float slope = g[i];
    kernels_->apply(chain, &value, 1);
    std::vector<float> room(static_cast<std::size_t>(kernels_->lanes), y[i]);
    kernels_->gradient(chain, room.data(), &slope, 1);
    EXPECT_EQ(value, whole[i]);
    EXPECT_EQ(slope, gradients[i]);
  }
}

TEST_P(SimdKernels, CorrelateAnyNumberOfRowsAndVectors) {
  const int lanes = kernels_->lanes;
  constexpr int kRows = 3;
  constexpr int kColumns = 5;
  const std::vector<float> a = drawn(4096, 11);
  const std::vector<float> b = drawn(4096, 12);
  const int a_stride = kColumns * lanes + 3;
  const int a_row = kernels_->channels * a_stride;
  const int b_row = (kColumns + 2) * lanes;
  for (int a_count = 1; a_count <= kernels_->channels; ++a_count) {
    for (int b_count = 1; b_count <= kernels_->vectors; ++b_count) {
      for (const bool adds : {false, true}) {
        SCOPED_TRACE(testing::Message() << a_count << " rows, " << b_count << " vectors");
        const int stride = a_count + 1;
        std::vector<float> sums = drawn(static_cast<std::size_t>(b_count * stride * lanes), 13);
        const std::vector<float> before = sums;
        Correlation correlation{.a = a.data(),
                                .a_stride = a_stride,
                                .a_count = a_count,
                                .b = {},
                                .b_count = b_count,
                                .rows = kRows,
                                .columns = kColumns,
                                .a_row = a_row,
                                .b_row = b_row,
                                .adds = adds,
                                .sums = sums.data(),
                                .sums_stride = stride};
        for (int j = 0; j < b_count; ++j) correlation.b[j] = b.data() + 101 * j;
        kernels_->correlate(correlation);
        for (int at = 0; at < b_count * stride * lanes; ++at) {
          const int lane = at % lanes;
          const int i = at / lanes % stride;
          double expected = adds || i >= a_count ? before[static_cast<std::size_t>(at)] : 0;
          for (int k = 0; i < a_count && k < kRows * kColumns; ++k) {
            const int offset = k % kColumns * lanes + lane;
            expected +=
                static_cast<double>(
                    a[static_cast<std::size_t>(i * a_stride + k / kColumns * a_row + offset)]) *
                correlation.b[at / lanes / stride][k / kColumns * b_row + offset];
          }
          EXPECT_NEAR(sums[static_cast<std::size_t>(at)], expected, 1e-5);
        }
      }
    }
  }
}

TEST_P(SimdKernels, PackAndUnpackLanesOfAnyNumberOfImagesAndColumns) {
  const int lanes = kernels_->lanes;
  constexpr int kStride = 61;
  const std::vector<float> source = drawn(static_cast<std::size_t>(lanes * kStride), 14);
  for (const int parts : {1, 2, 3}) {
    for (int count = 1; count < 50; count += count < 20 ? 1 : 7) {
      for (const int images : {1, lanes - 1, lanes}) {
        SCOPED_TRACE(testing::Message()
                     << parts << " parts, " << count << " columns, " << images << " images");
        constexpr int kFirst = 2;
        const int part = (kFirst + count) * lanes;
        std::vector<float> row(static_cast<std::size_t>(parts * part), 7.0f);
        kernels_->pack_lanes(source.data(), kStride, images, count,
                             {row.data(), kFirst, parts, part});
        int written = 0;
        for (const float value : row) written += value != 7.0f ? 1 : 0;
        EXPECT_EQ(written, count * lanes);
        std::vector<float> back(static_cast<std::size_t>(lanes * kStride), 7.0f);
        kernels_->unpack_lanes({row.data(), kFirst, parts, part}, count, back.data(), kStride,
                               images);
        for (int i = 0; i < lanes * kStride; ++i) {
          const int image = i / kStride;
          const int column = i % kStride;
          const auto at = static_cast<std::size_t>(i);
          EXPECT_EQ(back[at], image < images && column < count ? source[at] : 7.0f);
          if (column >= count) continue;
          const int place = (kFirst + column) % parts * part + (kFirst + column) / parts * lanes;
          EXPECT_EQ(row[static_cast<std::size_t>(place + image)],
                    image < images ? source[at] : 0.0f);
        }
      }
    }
  }
}

TEST_P(SimdKernels, InterleaveAndSplitAnyNumberOfParts) {
  for (const int parts : {1, 2, 3, 4}) {
    for (int count = 1; count < 100; ++count) {
      SCOPED_TRACE(testing::Message() << parts << " parts, " << count << " elements");
      const int stride = 130;
      const std::vector<float> source = drawn(static_cast<std::size_t>(parts * stride), 7);
      std::vector<float> joined(128, 7.0f);
      kernels_->interleave(source.data(), stride, parts, count, joined.data());
      std::vector<float> back(static_cast<std::size_t>(parts * stride), 7.0f);
      kernels_->split(joined.data(), parts, count, back.data(), stride);
      for (int i = 0; i < 128; ++i) {
        const auto at = static_cast<std::size_t>(i % parts * stride + i / parts);
        EXPECT_EQ(joined[static_cast<std::size_t>(i)], i < count ? source[at] : 7.0f);
        if (i < count) {
          EXPECT_EQ(back[at], source[at]);
        }
      }
    }
  }
}

TEST_P(SimdKernels, JoinRunsAndTransposeMatrices) {
  const std::vector<float> source = drawn(80 * 80, 8);
  for (const int rows : {1, 3, 16, 21, 40}) {
    for (const int columns : {1, 7, 16, 33}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << columns);
      const auto slack = static_cast<std::size_t>(kernels_->lanes);
      std::vector<float> joined(static_cast<std::size_t>(rows * columns) + slack);
      kernels_->join(source.data(), 80, rows, columns, joined.data());
      std::vector<float> turned(static_cast<std::size_t>(columns * 50));
      kernels_->transpose(source.data(), 80, rows, columns, turned.data(), 50);
      for (int i = 0; i < rows; ++i) {
        for (int j = 0; j < columns; ++j) {
          const float value = source[static_cast<std::size_t>(i * 80 + j)];
          EXPECT_EQ(joined[static_cast<std::size_t>(i * columns + j)], value);
          EXPECT_EQ(turned[static_cast<std::size_t>(j * 50 + i)], value);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSet, SimdKernels, testing::Values("portable", "avx2", "avx512"),
                         [](const auto& info) { return std::string(info.param); });

TEST(SimdKernelChoice, TakesTheOneThatIsNamed) {
  EXPECT_EQ(std::string(choose_kernels("portable").name), "portable");
  for (const char* name : {"avx2", "avx512"}) {
    if (find_kernels(name) != nullptr) {
      EXPECT_EQ(std::string(choose_kernels(name).name), name);
    } else {
      test::expect_error([&] { choose_kernels(name); }, {"has no", name});
    }
  }
}

TEST(SimdKernelChoice, TakesTheBestWhereNoneIsNamed) {
  const char* best = find_kernels("avx512") != nullptr ? "avx512"
                     : find_kernels("avx2") != nullptr ? "avx2"
                                                       : "portable";
  EXPECT_EQ(std::string(choose_kernels("").name), best);
}

TEST(SimdKernelChoice, RefusesOtherWords) {
  test::expect_error([] { choose_kernels("sse9"); },
                     {"TENON_CPU_ISA: \"sse9\" is not one of portable, avx2, avx512"});
  test::expect_error([] { choose_kernels("AVX2"); }, {"is not one of"});
}

}  // namespace
}  // namespace tenon::ops::cpu::simd
