#include "tenon/ops/cpu/batched/lane_weight_gradient.h"

#include <algorithm>
#include <utility>

#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {
namespace {

/// Floats of a block of the still image: what half of a usual first-level cache holds, so that it
/// stays there while all channels of the moving one pass.
constexpr std::int64_t kBlockElements = 1 << 12;

}  // namespace

LaneWeightGradient::LaneWeightGradient(const simd::Kernels& kernels, const LaneWindow& still,
                                       const LaneWindow& moving, std::int64_t row_step,
                                       std::vector<LaneTap> taps)
    : kernels_(kernels),
      still_(still),
      moving_(moving),
      row_step_(row_step),
      taps_(std::move(taps)),
      blocks_(still.channels(), kernels.channels) {}

std::int64_t LaneWeightGradient::size() const {
  return moving_.channels() * tap_count() * still_.channels() * kernels_.lanes;
}

void LaneWeightGradient::sum(const float* still, const float* moving, bool adds,
                             float* sums) const {
  const std::int64_t row = kernels_.channels * still_.width() * kernels_.lanes;
  const std::int64_t most = std::max<std::int64_t>(1, kBlockElements / row);
  for (std::int64_t first = 0; first < still_.height(); first += most) {
    const std::int64_t rows = std::min(most, still_.height() - first);
    for (std::int64_t b = 0; b < blocks_.count; ++b) {
      sum_rows(still + still_.offset(blocks_.first(b), still_.top() + first, still_.left()),
               moving + moving_.offset(0, first * row_step_, 0), rows, blocks_.first(b),
               blocks_.size(b), adds || first > 0, sums);
    }
  }
}

/// Of `rows` rows of a block of `channels` channels of the still image, the first being `first`.
void LaneWeightGradient::sum_rows(const float* still, const float* moving, std::int64_t rows,
                                  std::int64_t first, int channels, bool adds, float* sums) const {
  simd::Correlation correlation{.a = still,
                                .a_stride = still_.channel_stride(),
                                .a_count = channels,
                                .b = {},
                                .b_count = 0,
                                .rows = rows,
                                .columns = still_.width(),
                                .a_row = still_.row_size(),
                                .b_row = moving_.row_size() * row_step_,
                                .adds = adds,
                                .sums = nullptr,
                                .sums_stride = still_.channels()};
  for (std::int64_t c = 0; c < moving_.channels(); ++c) {
    for (std::int64_t t = 0; t < tap_count(); t += correlation.b_count) {
      correlation.b_count =
          static_cast<int>(std::min<std::int64_t>(kernels_.vectors, tap_count() - t));
      for (int j = 0; j < correlation.b_count; ++j) {
        const LaneTap& tap = taps_[static_cast<std::size_t>(t + j)];
        correlation.b[j] = moving + moving_.offset(c, tap.row, tap.column);
      }
      correlation.sums =
          sums + ((c * tap_count() + t) * still_.channels() + first) * kernels_.lanes;
      kernels_.correlate(correlation);
    }
  }
}

void LaneWeightGradient::store(const float* sums, const WeightStrides& strides,
                               float* gradient) const {
  // Turned, so that lanes are rows that are added as a whole.
  const std::int64_t channels = still_.channels();
  const Scratch<float> turned(kernels_.lanes * channels);
  for (std::int64_t c = 0; c < moving_.channels(); ++c) {
    for (const LaneTap& tap : taps_) {
      kernels_.transpose(sums, kernels_.lanes, channels, kernels_.lanes, turned.data(), channels);
      float* const total = turned.data();
      for (int lane = 1; lane < kernels_.lanes; ++lane) {
        const float* row = total + lane * channels;
        for (std::int64_t s = 0; s < channels; ++s) total[s] += row[s];
      }
      float* target = gradient + c * strides.in + tap.index;
      for (std::int64_t s = 0; s < channels; ++s) target[s * strides.out] = total[s];
      sums += channels * kernels_.lanes;
    }
  }
}

}  // namespace tenon::ops::cpu
