// Images side by side in vectors: the layout of the convolutions of many small images.
//
// A vector holds one element of as many images as it has lanes, so that rows of any width fill
// vectors, every tap is an aligned load at an offset, and stride and border cost nothing.
#pragma once

#include <cstdint>

#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {

/// A group of images that share vectors.
struct LaneGroup {
  std::int64_t first;  ///< image of the batch
  std::int64_t count;  ///< 1 … lanes
};

/// A batch [N, C, H, W] in memory: as its indices say, or groups of images side by side, as
/// [group][channel][row][column][lane].
template <class Float>
struct Images {
  Float* data;
  bool side_by_side;
};

/// Copies `count` vectors from every `source_step` of them to every `target_step`.
void copy_vectors(int lanes, std::int64_t count, const float* source, std::int64_t source_step,
                  float* target, std::int64_t target_step);

/// Rows of [channels, height, width] images with a border of zeros, laid out as
/// [row][channel][column modulo `parts`][column / parts][lane]: columns that a stride steps through
/// are neighbours. Rows and columns here count from the border's corner.
class LaneWindow {
 public:
  /// `rows` x `columns` with the border, of which the image begins at (top, left).
  LaneWindow(const simd::Kernels& kernels, std::int64_t channels, std::int64_t height,
             std::int64_t width, std::int64_t rows, std::int64_t columns, std::int64_t top,
             std::int64_t left, std::int64_t parts);

  std::int64_t channels() const { return channels_; }
  std::int64_t height() const { return height_; }
  std::int64_t width() const { return width_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t top() const { return top_; }
  std::int64_t left() const { return left_; }
  std::int64_t image_size() const { return channels_ * height_ * width_; }

  /// Floats of all, of a row, and from channel to channel in it.
  std::int64_t size() const { return rows_ * row_size(); }
  std::int64_t row_size() const { return channels_ * channel_stride(); }
  std::int64_t channel_stride() const { return parts_ * part_stride_; }
  /// Where element (channel, row, column) of the first image lies; the lanes follow.
  std::int64_t offset(std::int64_t channel, std::int64_t row, std::int64_t column) const {
    return row * row_size() + channel * channel_stride() + column % parts_ * part_stride_ +
           column / parts_ * kernels_.lanes;
  }

  /// Lays out rows [first, first + count) of the group's part of x at `target`.
  void pack(const Images<const float>& x, const LaneGroup& group, std::int64_t first,
            std::int64_t count, float* target) const;
  /// sums[channel] = the sum of a group's images, added to what is there or in its place.
  void sum_channels(const float* images, bool adds, float* sums) const;

 private:
  /// One row of one channel, border included.
  void pack_row(const Images<const float>& row, const LaneGroup& group, float* target) const;

  const simd::Kernels& kernels_;
  std::int64_t channels_, height_, width_;
  std::int64_t rows_, columns_;
  std::int64_t top_, left_;
  std::int64_t parts_, part_stride_;
};

}  // namespace tenon::ops::cpu
