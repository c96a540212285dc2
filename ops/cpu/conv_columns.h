// The columns of a float32 convolution, whole rows of output positions at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/columns.h"
#include "tenon/ops/cpu/scratch.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {

/// The sizes of one conv2d, channels counted in one group.
struct ConvGeometry {
  std::int64_t batch, groups, in_channels, out_channels;
  std::int64_t height, width, out_height, out_width;
  Pair kernel, stride, padding, dilation;

  ConvGeometry(const Shape& x, const Shape& y, Pair kernel_size, const Conv2dOptions& options)
      : batch(x[0]),
        groups(options.groups),
        in_channels(x[1] / options.groups),
        out_channels(y[1] / options.groups),
        height(x[2]),
        width(x[3]),
        out_height(y[2]),
        out_width(y[3]),
        kernel(kernel_size),
        stride(options.stride),
        padding(options.padding),
        dilation(options.dilation) {}

  std::int64_t depth() const { return in_channels * kernel.h * kernel.w; }
  std::int64_t positions() const { return out_height * out_width; }
  /// True when the columns of all positions are the image itself.
  bool is_pointwise() const { return kernel == Pair(1) && stride == Pair(1) && padding == Pair(0); }
};

/// Packs columns[(c, ky, kx), position] of rows of outputs. The part of the image that they read is
/// first laid out with its border of zeros and, where the convolution strides, with every stride-th
/// column side by side; a tap's column is then rows of it, moved vector by vector.
class ConvColumns {
 public:
  /// `block_elements`: about so many elements of columns at once.
  ConvColumns(const ConvGeometry& g, const simd::Kernels& kernels, std::int64_t block_elements)
      : g_(g),
        kernels_(kernels),
        rows_(std::clamp<std::int64_t>(block_elements / std::max<std::int64_t>(1, g.depth()) /
                                           std::max<std::int64_t>(1, g.out_width),
                                       1, std::max<std::int64_t>(1, g.out_height))),
        window_rows_((rows_ - 1) * g.stride.h + (g.kernel.h - 1) * g.dilation.h + 1),
        part_((g.out_width - 1) + (g.kernel.w - 1) * g.dilation.w / g.stride.w + 1),
        pitch_(part_ * g.stride.w) {}

  /// Output rows of a block.
  std::int64_t rows() const { return rows_; }
  /// Floats of the columns of a block, and of the memory that packing needs besides.
  std::int64_t size() const { return g_.depth() * rows_ * g_.out_width + kernels_.lanes; }
  std::int64_t window_size() const {
    return g_.in_channels * window_rows_ * pitch_ + pitch_ + kernels_.lanes;
  }

  /// Of output rows [first, first + rows) of `image` [channels, H, W].
  void pack(const float* image, std::int64_t first, std::int64_t rows, float* window,
            float* columns) const {
    fill_window(image, first, window);
    for (std::int64_t c = 0; c < g_.in_channels; ++c) {
      for (std::int64_t ky = 0; ky < g_.kernel.h; ++ky) {
        const float* row = window + (c * window_rows_ + ky * g_.dilation.h) * pitch_;
        for (std::int64_t kx = 0; kx < g_.kernel.w; ++kx, columns += rows * g_.out_width) {
          const std::int64_t column = kx * g_.dilation.w;
          kernels_.join(row + column % g_.stride.w * part_ + column / g_.stride.w,
                        pitch_ * g_.stride.h, rows, g_.out_width, columns);
        }
      }
    }
  }

 private:
  void fill_window(const float* image, std::int64_t first, float* window) const {
    float* padded = window + g_.in_channels * window_rows_ * pitch_ + kernels_.lanes;
    for (std::int64_t c = 0; c < g_.in_channels; ++c) {
      for (std::int64_t r = 0; r < window_rows_; ++r, window += pitch_) {
        const std::int64_t y = first * g_.stride.h - g_.padding.h + r;
        if (y < 0 || y >= g_.height) {
          std::fill_n(window, pitch_, 0.0f);
          continue;
        }
        float* row = g_.stride.w == 1 ? window : padded;
        gather_row(image + (c * g_.height + y) * g_.width, g_.width, -g_.padding.w, 1, pitch_, row);
        if (row == padded) kernels_.split(padded, g_.stride.w, pitch_, window, part_);
      }
    }
  }

  const ConvGeometry& g_;
  const simd::Kernels& kernels_;
  std::int64_t rows_;
  std::int64_t window_rows_;
  std::int64_t part_;   // columns of the window that agree modulo the stride
  std::int64_t pitch_;  // from row to row of the window
};

}  // namespace tenon::ops::cpu
