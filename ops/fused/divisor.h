// Division by a number that many divisions share. Processors without an instruction for it (GPUs)
// take some hundred cycles for one; a product and a shift take ten.
#pragma once

#include <cstdint>

#include "tenon/ops/fused/phases.h"

namespace tenon::ops {

/// Divides numbers from 0 to 2^31 - 1 by one number from 1 to 2^31 - 1.
class Divisor {
 public:
  constexpr Divisor() = default;
  explicit constexpr Divisor(int by) : by_(by) {
    while ((std::int64_t{1} << (shift_ - kBits)) < by) ++shift_;
    // 2^shift / by, rounded up, which 32 bits hold: the error of a quotient stays below 1 / by.
    factor_ = static_cast<std::uint32_t>(((std::uint64_t{1} << shift_) + by_ - 1) / by_);
  }

  TENON_HOST_DEVICE constexpr int quotient(int number) const {
    return static_cast<int>((static_cast<std::uint64_t>(number) * factor_) >> shift_);
  }
  TENON_HOST_DEVICE constexpr int rest(int number) const {
    return number - quotient(number) * static_cast<int>(by_);
  }

 private:
  static constexpr int kBits = 31;

  std::uint32_t by_ = 1;
  std::uint32_t factor_ = std::uint32_t{1} << kBits;
  int shift_ = kBits;
};

}  // namespace tenon::ops
