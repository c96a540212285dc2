#include "tenon/ops/cpu/float_gemm.h"

#include <algorithm>
#include <array>
#include <limits>

#include "tenon/ops/cpu/scratch.h"
#include "tenon/ops/cpu/simd/channel_blocks.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {
namespace {

/// Sums are cut into parts of this length: a strip of b of so many rows stays in the cache, beside
/// a block of a of so many columns and kMostRows rows.
constexpr std::int64_t kDepth = 256;
constexpr std::int64_t kMostRows = 192;
constexpr std::int64_t kMostWidth = 16 * simd::kMostVectors;  // of a strip, in elements

MatrixView<const float> part_of(MatrixView<const float> view, std::int64_t row,
                                std::int64_t column) {
  return {view.data + row * view.row_stride + column * view.column_stride, view.row_stride,
          view.column_stride};
}

/// A product of at most kMostRows rows and kDepth terms.
class Panel {
 public:
  Panel(const simd::Kernels& kernels, std::int64_t rows, std::int64_t depth,
        const Scratch<float>& left, const Scratch<float>& right)
      : kernels_(kernels),
        blocks_(rows, kernels.channels),
        depth_(depth),
        left_(left),
        right_(right) {}

  /// Packs a [rows, depth] as [block of rows][term][row of the block].
  void pack_left(MatrixView<const float> a) const {
    for (std::int64_t i = 0; i < blocks_.count; ++i) {
      const std::int64_t first = blocks_.first(i);
      const int size = blocks_.size(i);
      float* target = left_.data() + first * depth_;
      const float* source = a.data + first * a.row_stride;
      if (a.column_stride == 1) {
        kernels_.transpose(source, a.row_stride, size, depth_, target, size);
        continue;
      }
      for (std::int64_t k = 0; k < depth_; ++k, source += a.column_stride) {
        for (int row = 0; row < size; ++row) *target++ = source[row * a.row_stride];
      }
    }
  }

  /// Adds a·b to c, or sets it: `width` columns, no more than a strip has.
  void multiply(MatrixView<const float> b, std::int64_t width, float* c, std::int64_t c_stride,
                bool accumulate) {
    static constexpr std::array<float, 16> kZeros{};
    const std::int64_t lanes = kernels_.lanes;
    const bool whole = width % lanes == 0;
    // Few rows are done before packing would have paid.
    const bool in_place = whole && b.column_stride == 1 && blocks_.count <= kMostBlocksInPlace &&
                          b.row_stride < std::numeric_limits<std::int32_t>::max() / kDepth;
    if (!in_place) pack_right(b, width);
    set_offsets(in_place ? b.row_stride : lanes * kernels_.vectors);
    const float* right = in_place ? b.data : right_.data();
    alignas(64) float sums[16 * kMostWidth];
    simd::Product product{.vectors = {},
                          .vector_count = static_cast<int>((width + lanes - 1) / lanes),
                          .channels = 0,
                          .depth = depth_,
                          .offsets = offsets_.data(),
                          .weights = nullptr,
                          .start = accumulate && whole ? nullptr : kZeros.data(),
                          .sums = sums,
                          .sums_stride = whole ? c_stride : kMostWidth};
    for (int v = 0; v < product.vector_count; ++v) product.vectors[v] = right + v * lanes;
    for (std::int64_t i = 0; i < blocks_.count; ++i) {
      float* target = c + blocks_.first(i) * c_stride;
      product.channels = blocks_.size(i);
      product.weights = left_.data() + blocks_.first(i) * depth_;
      if (whole) product.sums = target;
      kernels_.multiply(product);
      for (int row = 0; !whole && row < product.channels; ++row) {
        for (std::int64_t j = 0; j < width; ++j) {
          const float sum = sums[row * kMostWidth + j];
          target[row * c_stride + j] = accumulate ? target[row * c_stride + j] + sum : sum;
        }
      }
    }
  }

 private:
  static constexpr std::int64_t kMostBlocksInPlace = 2;

  void set_offsets(std::int64_t step) {
    if (step == step_) return;
    step_ = step;
    for (std::int64_t k = 0; k < depth_; ++k) {
      offsets_[static_cast<std::size_t>(k)] = static_cast<std::int32_t>(k * step);
    }
  }

  /// Packs b [depth, width] with rows of a strip's full width.
  void pack_right(MatrixView<const float> b, std::int64_t width) const {
    const std::int64_t pitch = kernels_.lanes * kernels_.vectors;
    float* target = right_.data();
    if (b.row_stride == 1 && b.column_stride != 1) {
      kernels_.transpose(b.data, b.column_stride, width, depth_, target, pitch);
      return;
    }
    for (std::int64_t k = 0; k < depth_; ++k, target += pitch) {
      const float* row = b.data + k * b.row_stride;
      if (b.column_stride == 1 && width == pitch) {
        std::copy_n(row, pitch, target);
      } else {
        for (std::int64_t j = 0; j < width; ++j) target[j] = row[j * b.column_stride];
      }
    }
  }

  const simd::Kernels& kernels_;
  simd::ChannelBlocks blocks_;
  std::int64_t depth_;
  const Scratch<float>& left_;
  const Scratch<float>& right_;
  std::int64_t step_ = -1;  // between the terms of `offsets_`
  std::array<std::int32_t, kDepth> offsets_;
};

/// Whether to take dot products of rows: both operands have their terms side by side, and packing
/// the right one would cost as much as the few products with it.
bool suits_dots(std::int64_t m, std::int64_t k, MatrixView<const float> a,
                MatrixView<const float> b) {
  constexpr std::int64_t kMostDotRows = 32;
  constexpr std::int64_t kLeastDepth = 128;
  return a.column_stride == 1 && b.row_stride == 1 && m <= kMostDotRows && k >= kLeastDepth;
}

/// Products with a few columns fill vectors only when the rows of the result lie in them.
void gemm_turned(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<const float> a,
                 MatrixView<const float> b, float* c, std::int64_t c_stride, bool accumulate) {
  const Scratch<float> turned(m * n);
  float_gemm(n, m, k, {b.data, b.column_stride, b.row_stride},
             {a.data, a.column_stride, a.row_stride}, turned.data(), m, false);
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      const float value = turned.data()[j * m + i];
      c[i * c_stride + j] = accumulate ? c[i * c_stride + j] + value : value;
    }
  }
}

}  // namespace

void float_gemm(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<const float> a,
                MatrixView<const float> b, float* c, std::int64_t c_stride, bool accumulate) {
  const simd::Kernels& kernels = simd::kernels();
  if (suits_dots(m, k, a, b)) {
    for (std::int64_t i = 0; i < m && !accumulate; ++i) std::fill_n(c + i * c_stride, n, 0.0f);
    kernels.dot(a.data, a.row_stride, m, b.data, b.column_stride, n, k, c, c_stride);
    return;
  }
  if (n < kernels.lanes && m > n) {
    gemm_turned(m, n, k, a, b, c, c_stride, accumulate);
    return;
  }
  const std::int64_t pitch = kernels.lanes * kernels.vectors;
  const std::int64_t depth = std::min(k, kDepth);
  const Scratch<float> left(std::min(m, kMostRows) * depth);
  const Scratch<float> right(depth * pitch);
  // Vectors of a narrow strip are filled up with what is there.
  if (n % kernels.lanes != 0) right.fill_zero();
  for (std::int64_t first = 0; first < k; first += kDepth) {
    for (std::int64_t row = 0; row < m; row += kMostRows) {
      Panel panel(kernels, std::min(kMostRows, m - row), std::min(kDepth, k - first), left, right);
      panel.pack_left(part_of(a, row, first));
      for (std::int64_t column = 0; column < n;) {
        // Four vectors are better two and two than three and one.
        const std::int64_t left = n - column;
        const bool four = left > pitch && left <= 4 * kernels.lanes;
        const std::int64_t width = std::min(four ? 2 * kernels.lanes : pitch, left);
        panel.multiply(part_of(b, first, column), width, c + row * c_stride + column, c_stride,
                       accumulate || first > 0);
        column += width;
      }
    }
  }
}

}  // namespace tenon::ops::cpu
