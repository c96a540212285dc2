#include "tenon/ops/cpu/batched/lane_window.h"

#include <algorithm>
#include <cstring>

#include "tenon/core/cpu/sum.h"

namespace tenon::ops::cpu {

namespace {

template <int kLanes>
void copy_steps(std::int64_t count, const float* source, std::int64_t source_step, float* target,
                std::int64_t target_step) {
  for (std::int64_t i = 0; i < count; ++i) {
    std::memcpy(target + i * target_step * kLanes, source + i * source_step * kLanes,
                kLanes * sizeof(float));
  }
}

}  // namespace

void copy_vectors(int lanes, std::int64_t count, const float* source, std::int64_t source_step,
                  float* target, std::int64_t target_step) {
  switch (lanes) {
    case 4:
      return copy_steps<4>(count, source, source_step, target, target_step);
    case 8:
      return copy_steps<8>(count, source, source_step, target, target_step);
    default:
      return copy_steps<16>(count, source, source_step, target, target_step);
  }
}

// An odd number of vectors in a part: rows of channels that far apart do not compete for the same
// part of a cache.
LaneWindow::LaneWindow(const simd::Kernels& kernels, std::int64_t channels, std::int64_t height,
                       std::int64_t width, std::int64_t rows, std::int64_t columns,
                       std::int64_t top, std::int64_t left, std::int64_t parts)
    : kernels_(kernels),
      channels_(channels),
      height_(height),
      width_(width),
      rows_(rows),
      columns_(columns),
      top_(top),
      left_(left),
      parts_(parts),
      part_stride_((((columns + parts - 1) / parts) | 1) * kernels.lanes) {}

void LaneWindow::pack(const Images<const float>& x, const LaneGroup& group, std::int64_t first,
                      std::int64_t count, float* target) const {
  const std::int64_t row_step = width_ * (x.side_by_side ? kernels_.lanes : 1);
  // Channel by channel, so that an image is read in the order of its memory.
  for (std::int64_t c = 0; c < channels_; ++c, target += channel_stride()) {
    const float* plane = x.data + group.first * image_size() + c * height_ * row_step;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = first + i - top_;
      float* to = target + i * row_size();
      if (row < 0 || row >= height_) {
        std::fill_n(to, channel_stride(), 0.0f);
      } else {
        pack_row({plane + row * row_step, x.side_by_side}, group, to);
      }
    }
  }
}

void LaneWindow::pack_row(const Images<const float>& row, const LaneGroup& group,
                          float* target) const {
  const std::int64_t right = std::min(columns_, left_ + width_);
  const auto clear = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t column = begin; column < end; ++column) {
      std::fill_n(target + offset(0, 0, column), kernels_.lanes, 0.0f);
    }
  };
  clear(0, left_);
  clear(right, columns_);
  const std::int64_t count = right - left_;
  if (!row.side_by_side) {
    kernels_.pack_lanes(row.data, image_size(), group.count, count,
                        {target, left_, parts_, part_stride_});
    return;
  }
  for (std::int64_t first = 0; first < std::min(parts_, count); ++first) {
    copy_vectors(kernels_.lanes, (count - first + parts_ - 1) / parts_,
                 row.data + first * kernels_.lanes, parts_, target + offset(0, 0, left_ + first),
                 1);
  }
}

void LaneWindow::sum_channels(const float* images, bool adds, float* sums) const {
  for (std::int64_t c = 0; c < channels_; ++c) {
    float sum = 0;
    for (std::int64_t row = 0; row < height_; ++row) {
      for (std::int64_t first = 0; first < std::min(parts_, width_); ++first) {
        const std::int64_t columns = (width_ - first + parts_ - 1) / parts_;
        sum += tenon::cpu::sum_neighbours(images + offset(c, top_ + row, left_ + first),
                                          columns * kernels_.lanes);
      }
    }
    sums[c] = adds ? sums[c] + sum : sum;
  }
}

}  // namespace tenon::ops::cpu
