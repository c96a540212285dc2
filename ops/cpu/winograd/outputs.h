// y of a transposed convolution by minimal filtering, row by row.
#pragma once

#include <cstdint>
#include <functional>

#include "tenon/ops/cpu/scratch.h"
#include "tenon/ops/cpu/winograd/filters.h"
#include "tenon/ops/cpu/winograd/plan.h"

namespace tenon::ops::cpu::winograd {

/// Some rows of tiles of one image or all of those of several.
struct Block {
  std::int64_t image, images;
  std::int64_t row, rows;

  std::int64_t tile_rows() const { return images * rows; }
};

/// Images as [image][row][column][channel] with a border of zeros: a tap is an address, and
/// channels fill vectors whatever an image's size.
class Window {
 public:
  Window(const simd::Kernels& kernels, std::int64_t channels, std::int64_t height,
         std::int64_t width, std::int64_t rows, std::int64_t columns)
      : kernels_(kernels),
        channels_(channels),
        height_(height),
        width_(width),
        rows_(rows),
        columns_(columns) {}

  std::int64_t image_size() const { return rows_ * row_size(); }
  std::int64_t row_size() const { return columns_ * channels_; }
  std::int64_t channels() const { return channels_; }
  /// Where an element of the first image lies, counted from the border's corner.
  std::int64_t offset(std::int64_t row, std::int64_t column) const {
    return row * row_size() + column * channels_;
  }
  /// Lays out `images` of [channels, height, width], each with `rows()` rows from `top` on and
  /// columns from `left` on, zeros outside of the image.
  void pack(const float* source, std::int64_t images, std::int64_t top, std::int64_t left,
            float* target) const;

 private:
  const simd::Kernels& kernels_;
  std::int64_t channels_, height_, width_;
  std::int64_t rows_, columns_;
};

/// Computes y of blocks of tiles.
class Outputs {
 public:
  Outputs(const Plan& plan, const simd::Kernels& kernels, const Tensor& weight, const Tensor& bias);

  const Filters& filters() const { return filters_; }
  /// The window of x that a block of so many rows of tiles reads.
  Window window(std::int64_t rows) const;
  /// Rows of tiles whose factors and products stay in the second-level cache.
  std::int64_t tile_rows_at_once() const;
  /// Tiles whose products are computed together, where a tile has so many.
  static std::int64_t tiles_at_once(int factors);

  /// Elements of the factors and of the products, for which a caller may have memory that serves
  /// others too.
  std::int64_t factors_size() const;
  std::int64_t products_size() const;
  /// A thread's memory, for blocks and strips of any size.
  struct Buffers {
    Buffers(const Outputs& outputs, float* factors_memory, float* products_memory);
    float* factors;       // [member of a group][factor along the columns][tile][channel of x]
    float* products;      // [column phase][factor][tile][channel of y]
    Scratch<float> rows;  // of y, those of a few tiles: [row][column][channel of y]
    mutable LinesAhead ahead{};
  };
  /// Says where a row of the image's results will be written, for all channels of the strips.
  using Announce = std::function<void(std::int64_t image, std::int64_t row, LinesAhead& ahead)>;
  /// Some columns of a row of y.
  struct Run {
    std::int64_t image, row;  ///< image of the block
    std::int64_t column, columns;
  };
  /// Called with a run and its elements [column][channel of the strips], which it may change.
  using Visit = std::function<void(const Run& run, float* y)>;

  /// All rows of y of the `block`'s tiles, given its window, for the strips [first, last) of the
  /// filters' columns.
  void compute(const Block& block, const float* window, std::int64_t first, std::int64_t last,
               const Buffers& buffers, const Visit& visit, const Announce& announce) const;

 private:
  struct Part;
  /// Tiles of a row whose outputs stay in the first-level cache.
  std::int64_t tiles_of_run() const;
  std::int64_t output_row(const Part& part, std::int64_t row_phase, std::int64_t tile_row,
                          int r) const;
  void announce(const Part& part, std::int64_t row_phase) const;
  void multiply_row_phase(const Part& part, std::int64_t row_phase) const;
  void multiply_factors(const Part& part, std::int64_t row_phase, int vertical,
                        const float* factors) const;
  void compute_factors(const Part& part, std::int64_t row_phase, const Group& group) const;
  void finish_row_phase(const Part& part, std::int64_t row_phase) const;
  void finish_tiles(const Part& part, std::int64_t row_phase, std::int64_t tile_row,
                    std::int64_t first, std::int64_t last) const;

  const Plan& plan_;
  const simd::Kernels& kernels_;
  Filters filters_;
  Scratch<float> bias_;
};

}  // namespace tenon::ops::cpu::winograd
