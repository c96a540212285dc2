// The weight gradient of a convolution of images that lie side by side in vectors.
#pragma once

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
  /// Adds a group's part, given its windows.
  void add(const float* still, const float* moving, float* sums) const;
  /// gradient[still·strides.out + moving·strides.in + tap.index] = the sum of the lanes.
  void store(const float* sums, const WeightStrides& strides, float* gradient) const;

 private:
  std::int64_t tap_count() const { return static_cast<std::int64_t>(taps_.size()); }
  void add_rows(const float* still, const float* moving, std::int64_t rows, std::int64_t first,
                int channels, float* sums) const;

  const simd::Kernels& kernels_;
  LaneWindow still_, moving_;
  std::int64_t row_step_;
  std::vector<LaneTap> taps_;
  simd::ChannelBlocks blocks_;  // of still's channels
};

}  // namespace tenon::ops::cpu
