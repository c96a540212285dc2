// What a tile of a transposed convolution reads of x, laid out so that every tap finds whole
// vectors of neighbouring positions.
#pragma once

#include <cstdint>
#include <vector>

#include "tenon/ops/cpu/conv_transpose_tiles.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu {

/// A block of positions q (ops/fused/phases.h) of all phases: whole images where there are several.
struct PositionBlock {
  std::int64_t image, images;
  std::int64_t row, rows;
  std::int64_t column, columns;

  std::int64_t count() const { return images * rows * columns; }
};

/// Positions of a strip that lie side by side in a row.
struct PositionRun {
  std::int64_t image, row, column, count;
  std::int64_t place;  ///< the first one's in the strip
};

/// A few vectors of positions, whose sums one call of the kernel computes.
struct Strip {
  int vectors;
  std::int64_t starts[simd::kMostVectors];  ///< where they lie
  std::size_t first_run, last_run;          ///< of `Strips::runs`
};

/// A block of positions cut into strips.
struct Strips {
  std::vector<Strip> strips;
  std::vector<PositionRun> runs;

  /// Where rows lie `pitch` apart in memory, each with vectors of its own; where `pitch` is 0, one
  /// behind the other.
  void cut(const PositionBlock& block, const simd::Kernels& kernels, std::int64_t pitch);
};

/// Rounds up to whole vectors, an odd number of them: planes that far apart do not compete for the
/// same part of a cache.
std::int64_t spread(std::int64_t count, int lanes);

/// Whether rows of so many positions would leave more than a tenth of their vectors empty.
bool is_narrow(std::int64_t columns, int lanes);

/// Cuts the positions into tiles and lays out their input. Wide images take a window: rows of x
/// with a border, in which a tap is an offset. Of narrow ones, whose rows would leave vectors half
/// empty, the window is copied once for each pair of shifts, rows one behind the other.
class TileInput {
 public:
  TileInput(const TransposedPlan& plan, const simd::Kernels& kernels);
  /// For blocks that the caller cuts, no larger than `images` x `rows` x `columns`; of several
  /// images all columns.
  TileInput(const TransposedPlan& plan, const simd::Kernels& kernels, std::int64_t images,
            std::int64_t rows, std::int64_t columns);

  // How the batch is cut.
  std::int64_t tiles() const { return image_tiles_ * row_tiles_ * column_tiles_; }
  PositionBlock block(std::int64_t tile) const;

  /// Floats that `pack` writes, and that it needs besides.
  std::int64_t size() const { return dense_ ? shift_pairs_ * pair_size() + slack_ : window_size(); }
  std::int64_t scratch_size() const { return dense_ ? window_size() : 0; }

  /// Lays out `block` of `group`'s part of x.
  void pack(const PositionBlock& block, std::int64_t group, const float* x, float* target,
            float* scratch) const;

  /// Where the operands of a phase's products lie: [tap row, tap column, input channel].
  const std::int32_t* offsets(std::size_t phase) const { return offsets_[phase].data(); }

  /// For `Strips::cut`.
  std::int64_t pitch() const { return dense_ ? 0 : pitch_; }

 private:
  struct Shifts {
    std::int64_t first = 0, last = 0;
    std::int64_t count() const { return last - first + 1; }
  };

  void find_shifts();
  void choose_tiles();
  void choose_layout();
  void make_offsets();
  std::int64_t window_size() const { return plan_.in_channels * plane_ * images_ + slack_; }
  std::int64_t pair_size() const { return plan_.in_channels * dense_plane_; }
  void pack_window(const PositionBlock& block, std::int64_t group, const float* x,
                   float* target) const;

  const TransposedPlan& plan_;
  const simd::Kernels& kernels_;
  bool dense_;
  Shifts row_shifts_, column_shifts_;
  std::int64_t shift_pairs_;
  std::int64_t images_ = 1, rows_, columns_;  // of a tile, at most
  std::int64_t image_tiles_ = 0, row_tiles_ = 0, column_tiles_ = 0;
  std::int64_t pitch_, plane_;    // of the window: from row to row, from channel to channel
  std::int64_t dense_plane_ = 0;  // of the copies: from channel to channel
  std::int64_t slack_;            // behind either, for vectors that stick out
  std::vector<std::vector<std::int32_t>> offsets_;
};

}  // namespace tenon::ops::cpu
