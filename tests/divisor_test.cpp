#include "tenon/ops/fused/divisor.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <limits>

namespace tenon {
namespace {

using ops::Divisor;

TEST(Divisor, DividesAsTheProcessorDoes) {
  constexpr int kMost = std::numeric_limits<int>::max();
  const auto check = [](int by, int number) {
    const Divisor divisor(by);
    ASSERT_EQ(divisor.quotient(number), number / by) << number << " by " << by;
    ASSERT_EQ(divisor.rest(number), number % by) << number << " by " << by;
  };
  // Around the multiples of each divisor, where a factor that is a little wrong shows.
  const auto check_all = [&](int by) {
    for (const int multiple : {0, 1, 2, 3, 1000, kMost / by / 2, kMost / by}) {
      if (multiple > kMost / by) continue;
      const int at = multiple * by;
      check(by, at);
      if (at > 0) check(by, at - 1);
      if (at < kMost) check(by, at + 1);
    }
    check(by, kMost);
  };
  for (int by = 1; by <= 5000; ++by) check_all(by);
  for (int shift = 12; shift < 31; ++shift) {
    for (const int offset : {-1, 0, 1}) check_all((1 << shift) + offset);
  }
  for (const int by : {kMost - 1, kMost, 1431655765, 858993459}) check_all(by);
}

TEST(Divisor, IsMadeByTheCompiler) {
  static_assert(Divisor(18).quotient(324) == 18 && Divisor(18).rest(323) == 17);
  static_assert(Divisor().quotient(7) == 7);
}

}  // namespace
}  // namespace tenon
