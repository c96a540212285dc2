// A batch cut into groups of images that share vectors.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tenon/core/tensor.h"
#include "tenon/ops/cpu/batched/lane_window.h"

namespace tenon::ops::cpu {

/// The last group may have fewer images than a vector has lanes.
class LaneGroups {
 public:
  LaneGroups(std::int64_t batch, std::int64_t lanes) : batch_(batch), lanes_(lanes) {}

  std::int64_t count() const { return (batch_ + lanes_ - 1) / lanes_; }
  LaneGroup group(std::int64_t index) const {
    const std::int64_t first = index * lanes_;
    return {first, std::min(lanes_, batch_ - first)};
  }
  /// Whether less than an eighth of the lanes is left empty.
  bool fill_lanes() const { return count() > 0 && batch_ * 8 > count() * lanes_ * 7; }

 private:
  std::int64_t batch_;
  std::int64_t lanes_;
};

/// Whether images of x [N, C, H, W], of one group of channels, nearly fill vectors.
inline bool fills_lanes(const Tensor& x, std::int64_t groups) {
  return groups == 1 && LaneGroups(x.size(0), simd::kernels().lanes).fill_lanes();
}

}  // namespace tenon::ops::cpu
