// The gradients of a convolution's weight and bias, added up over groups of images.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {

/// Sums of chunks of neighbouring groups, each in memory of its own until all are added in order:
/// no thread waits for another, and the result does not depend on their number.
class GradientSums {
 public:
  /// Of `groups` groups and `size` elements.
  GradientSums(std::int64_t groups, std::int64_t size)
      : groups_(groups),
        grain_((groups + kMostChunks - 1) / kMostChunks),
        size_(size),
        sums_(chunks() * size) {}

  /// Calls `body(first group, end, sums)` for every chunk, which sets its sums.
  template <class Body>
  void for_each_chunk(const Body& body) const {
    parallel_for_shares(0, groups_, grain_, [&](std::int64_t begin, std::int64_t end) {
      body(begin, end, sums_.data() + begin / grain_ * size_);
    });
  }

  /// target[i] = the sum of elements `first` + i, for i < count.
  void add_up(std::int64_t first, std::int64_t count, float* target) const {
    std::copy_n(sums_.data() + first, count, target);
    for (std::int64_t chunk = 1; chunk < chunks(); ++chunk) {
      const float* part = sums_.data() + chunk * size_ + first;
      for (std::int64_t i = 0; i < count; ++i) target[i] += part[i];
    }
  }

 private:
  static constexpr std::int64_t kMostChunks = 64;

  std::int64_t chunks() const { return (groups_ + grain_ - 1) / grain_; }

  std::int64_t groups_;
  std::int64_t grain_;
  std::int64_t size_;
  Scratch<float> sums_;  // [chunk][element]
};

}  // namespace tenon::ops::cpu
