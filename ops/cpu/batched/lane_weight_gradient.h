// The weight gradient of a convolution of images that lie side by side in vectors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tenon/ops/cpu/batched/lane_products.h"
#include "tenon/ops/cpu/batched/lane_window.h"

namespace tenon::ops::cpu {

/// Sums over positions of products of a still image, y's gradient in conv2d, and one that each tap
/// shifts, x there. Every lane has a sum of its own until the end.
class LaneWeightGradient {
 public:
  /// `still` has one part and, per position, steps one row where `moving` steps `row_step`; each of
  /// `taps` says where the first position reads `moving`.
  LaneWeightGradient(const simd::Kernels& kernels, const LaneWindow& still,
                     const LaneWindow& moving, std::int64_t row_step, std::vector<LaneTap> taps);

  /// Floats of the sums, [channel of moving][tap][channel of still][lane].
  std::int64_t size() const;
  /// A group's part, given its windows, added to what `sums` hold or in its place.
  void sum(const float* still, const float* moving, bool adds, float* sums) const;
  /// gradient[still·strides.out + moving·strides.in + tap.index] = the sum of the lanes.
  void store(const float* sums, const WeightStrides& strides, float* gradient) const;

 private:
  std::int64_t tap_count() const { return static_cast<std::int64_t>(taps_.size()); }
  void sum_rows(const float* still, const float* moving, std::int64_t rows, std::int64_t first,
                int channels, bool adds, float* sums) const;

  const simd::Kernels& kernels_;
  LaneWindow still_, moving_;
  std::int64_t row_step_;
  std::vector<LaneTap> taps_;
  simd::ChannelBlocks blocks_;  // of still's channels
};

/// Whether the caches hold a group's windows and its sums, of so many floats.
inline bool gradient_fits_caches(std::int64_t windows, std::int64_t sums) {
  constexpr std::int64_t kMostElements = 5 << 16;
  return std::max(windows, sums) <= kMostElements;
}

}  // namespace tenon::ops::cpu
