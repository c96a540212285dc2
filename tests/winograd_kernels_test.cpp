// The kernels of minimal filtering of every instruction set that this processor has, against the
// matrices in winograd/form.h, and those against the sums that they stand for.
#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "support/drawn.h"
#include "tenon/ops/cpu/winograd/form.h"

namespace tenon::ops::cpu::winograd {
namespace {

using test::drawn;

using Matrix = std::vector<std::vector<double>>;

const Form& form_of(int tile) { return tile == 2 ? kTwo : kFour; }

/// The factors [e][element] that groups make.
Matrix matrix_of(const Group (&groups)[kGroups], const Form& form) {
  Matrix matrix(static_cast<std::size_t>(form.factors()),
                std::vector<double>(static_cast<std::size_t>(form.tile + 1)));
  for (const Group& group : groups) {
    const double w0 = group.weights[0];
    const double w1 = group.weights[1];
    for (int m = 0; m < group.members; ++m) {
      const double sign = m == 0 ? 1 : -1;
      const std::vector<double> weights = group.count == 4
                                              ? std::vector{1.0, w0, sign * w1, sign * w1 * w0}
                                              : std::vector{1.0, w0, w1};
      for (int r = 0; r < group.count; ++r) {
        matrix[static_cast<std::size_t>(group.first + m)]
              [static_cast<std::size_t>(group.places[r])] = weights[static_cast<std::size_t>(r)];
      }
    }
  }
  return matrix;
}

TEST(WinogradForms, AreTheSumsThatTheyStandFor) {
  for (const int tile : {2, 4}) {
    const Form& form = form_of(tile);
    const Matrix data = matrix_of(form.data, form);
    const Matrix outputs = matrix_of(form.outputs, form);
    // d_k·g_j is part of y_i where k = i + j, and of no other.
    for (std::size_t i = 0; i < static_cast<std::size_t>(tile); ++i) {
      for (std::size_t j = 0; j < 2; ++j) {
        for (std::size_t k = 0; k <= static_cast<std::size_t>(tile); ++k) {
          double sum = 0;
          for (std::size_t e = 0; e < data.size(); ++e) {
            sum += outputs[e][i] * static_cast<double>(form.taps[e][j]) * data[e][k];
          }
          EXPECT_NEAR(sum, k == i + j ? 1 : 0, tile == 2 ? 0 : 3e-7) << tile << i << j << k;
        }
      }
    }
  }
}

TEST(WinogradForms, TakeAtLeastATenthFewerProductsWithLargerTiles) {
  for (const int count : {3, 4, 7, 8, 11, 12, 16, 32, 64}) EXPECT_EQ(best_form(count).tile, 4);
  for (const int count : {1, 2, 5, 6, 9, 10, 13, 14, 17}) EXPECT_EQ(best_form(count).tile, 2);
}

/// An instruction set, and the tiles along the rows and along the columns.
class WinogradKernels : public testing::TestWithParam<std::tuple<const char*, int, int>> {
 protected:
  void SetUp() override {
    kernels_ = simd::find_kernels(std::get<0>(GetParam()));
    if (kernels_ == nullptr) GTEST_SKIP() << "not on this processor";
  }
  const Form& rows() const { return form_of(std::get<1>(GetParam())); }
  const Form& columns() const { return form_of(std::get<2>(GetParam())); }

  /// Factors of the groups along the rows and of `along` the columns, where factor f is that of the
  /// elements from `begins[f]` on.
  template <class Call>
  void expect_factors(const Group (&groups)[kGroups], const Matrix& along,
                      const std::vector<std::size_t>& begins, const Call& call) const {
    const int lanes = kernels_->lanes;
    const std::vector<float> values = drawn(8192, 1);
    const Matrix vertical = matrix_of(groups, rows());
    const std::int64_t factors = static_cast<std::int64_t>(begins.size());
    for (const Group& group : groups) {
      std::vector<float> target(16384, -7.0f);
      simd::FactorRows factor_rows{.element_step = 101,
                                   .width = 2 * lanes,
                                   .repeats = 3,
                                   .row_step = 40,
                                   .target = target.data(),
                                   .target_member = factors * 400,
                                   .target_factor = 400,
                                   .target_step = lanes,
                                   .target_vector = 100};
      set_rows(factor_rows, group, [&](int r) { return values.data() + 1009 * r; });
      call(factor_rows);
      std::vector<float> expected(target.size(), -7.0f);
      for (std::int64_t at = 0; at < group.members * factors * 3 * 2 * lanes; ++at) {
        const std::int64_t i = at % (2 * lanes);
        const std::int64_t n = at / (2 * lanes) % 3;
        const std::int64_t f = at / (6 * lanes) % factors;
        const std::int64_t member = at / (6 * lanes) / factors;
        const auto& weights = vertical[static_cast<std::size_t>(group.first + member)];
        const auto& column = along[static_cast<std::size_t>(f)];
        double sum = 0;
        for (std::size_t r = 0; r < weights.size(); ++r) {
          for (std::size_t j = 0; j < column.size(); ++j) {
            const std::size_t place = 1009 * r + static_cast<std::size_t>(n * 40 + i) +
                                      101 * (begins[static_cast<std::size_t>(f)] + j);
            if (weights[r] * column[j] != 0) {
              sum += weights[r] * column[j] * static_cast<double>(values[place]);
            }
          }
        }
        expected[static_cast<std::size_t>((member * factors + f) * 400 + n * lanes +
                                          i / lanes * 100 + i % lanes)] = static_cast<float>(sum);
      }
      for (std::size_t i = 0; i < target.size(); ++i) ASSERT_NEAR(target[i], expected[i], 2e-6);
    }
  }

  const simd::Kernels* kernels_ = nullptr;
};

TEST_P(WinogradKernels, FactorsOfData) {
  const Matrix one = matrix_of(columns().data, columns());
  for (const int windows : {1, 2}) {
    Matrix along = one;
    std::vector<std::size_t> begins(one.size(), 0);
    // Pairs of windows of tiles of 2 share the factor d1 - d2.
    const std::size_t shared = columns().tile == 2 ? 1 : 0;
    for (std::size_t f = shared; windows == 2 && f < one.size(); ++f) {
      along.push_back(one[f]);
      begins.push_back(1);
    }
    expect_factors(rows().data, along, begins, [&](const simd::FactorRows& factor_rows) {
      kernels_->data_factors(factor_rows, columns().tile, windows);
    });
  }
}

TEST_P(WinogradKernels, FactorsOfOutputs) {
  const Matrix along = matrix_of(columns().outputs, columns());
  expect_factors(rows().outputs, along, std::vector<std::size_t>(along.size(), 0),
                 [&](const simd::FactorRows& factor_rows) {
                   kernels_->output_factors(factor_rows, columns().tile);
                 });
}

TEST_P(WinogradKernels, OutputsOfProducts) {
  const int lanes = kernels_->lanes;
  const std::vector<float> products = drawn(16384, 2);
  const std::vector<float> start = drawn(64, 3);
  const Matrix vertical = matrix_of(rows().outputs, rows());
  const Matrix horizontal = matrix_of(columns().outputs, columns());
  for (const bool starts : {false, true}) {
    std::vector<float> target(8192, -7.0f);
    std::vector<float> expected = target;
    kernels_->outputs({.products = products.data(),
                       .row_factor = 2003,
                       .column_factor = 307,
                       .width = 2 * lanes,
                       .repeats = 3,
                       .start = starts ? start.data() : nullptr,
                       .target = target.data(),
                       .target_row = 2000,
                       .target_column = 64,
                       .target_step = 300},
                      rows().tile, columns().tile);
    for (int r = 0; r < rows().tile; ++r) {
      for (int c = 0; c < columns().tile; ++c) {
        for (int at = 0; at < 6 * lanes; ++at) {
          double sum = starts ? start[static_cast<std::size_t>(at % (2 * lanes))] : 0;
          for (std::size_t e = 0; e < vertical.size(); ++e) {
            for (std::size_t f = 0; f < horizontal.size(); ++f) {
              sum +=
                  vertical[e][static_cast<std::size_t>(r)] *
                  horizontal[f][static_cast<std::size_t>(c)] *
                  static_cast<double>(products[2003 * e + 307 * f + static_cast<std::size_t>(at)]);
            }
          }
          expected[static_cast<std::size_t>(r * 2000 + c * 64 + at / (2 * lanes) * 300 +
                                            at % (2 * lanes))] = static_cast<float>(sum);
        }
      }
    }
    for (std::size_t i = 0; i < target.size(); ++i) ASSERT_NEAR(target[i], expected[i], 2e-5);
  }
}

TEST_P(WinogradKernels, TapsOfProducts) {
  const std::int64_t width = 2 * kernels_->lanes;
  const std::vector<float> products = drawn(2048, 4);
  for (int e = 0; e < rows().factors(); ++e) {
    for (const bool adds : {false, true}) {
      std::vector<float> taps = drawn(4096, 5);
      std::vector<float> expected = taps;
      const float(&weights)[2] = rows().taps[e];
      float* const at = taps.data();
      kernels_->add_taps({.products = products.data(),
                          .factor = 401,
                          .rows = 3,
                          .width = width,
                          .weights = {weights[0], weights[1]},
                          .adds = {adds, adds},
                          .taps = {{at, at + 1000}, {at + 2000, at + 3000}},
                          .tap_row = 50},
                         columns().tile);
      for (std::int64_t i = 0; i < 12 * width; ++i) {
        const std::int64_t tap = i / (3 * width);
        const float weight = weights[tap / 2];
        if (weight == 0) continue;
        double sum = 0;
        for (int f = 0; f < columns().factors(); ++f) {
          sum += static_cast<double>(columns().taps[f][tap % 2]) *
                 static_cast<double>(products[static_cast<std::size_t>(401 * f + i % (3 * width))]);
        }
        float& value = expected[static_cast<std::size_t>(tap * 1000 + i % (3 * width) / width * 50 +
                                                         i % width)];
        value = static_cast<float>((adds ? static_cast<double>(value) : 0) +
                                   static_cast<double>(weight) * sum);
      }
      for (std::size_t i = 0; i < taps.size(); ++i) ASSERT_NEAR(taps[i], expected[i], 2e-6);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, WinogradKernels,
                         testing::Combine(testing::Values("portable", "avx2", "avx512"),
                                          testing::Values(2, 4), testing::Values(2, 4)));

}  // namespace
}  // namespace tenon::ops::cpu::winograd
