// The sum of a run of neighbours.
#pragma once

#include <Eigen/Core>
#include <cstdint>

namespace tenon::cpu {

/// The sum of `count` neighbours, added up in an order that `count` alone decides. Eigen's own sum
/// of an array begins its vectors at an aligned address, so that its rounding depends on where the
/// array lies.
template <class C>
C sum_neighbours(const C* values, std::int64_t count) {
  constexpr std::int64_t kLanes = 32;  // two vectors or more, so that additions overlap
  using Lanes = Eigen::Array<C, kLanes, 1>;
  std::int64_t i = 0;
  C total(0);
  if (count >= kLanes) {
    Lanes lanes = Eigen::Map<const Lanes>(values);
    for (i = kLanes; i + kLanes <= count; i += kLanes) {
      lanes += Eigen::Map<const Lanes>(values + i);
    }
    total = lanes.sum();
  }
  for (; i < count; ++i) total = static_cast<C>(total + values[i]);
  return total;
}

}  // namespace tenon::cpu
