// How the backward of a transposed convolution is cut into tiles of x, and how dy lies in a tile.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tenon/ops/cpu/conv_transpose_tiles.h"
#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/cpu/transposed/tile_input.h"

namespace tenon::ops::cpu {

/// One axis of a tile: positions of x, and the positions q (ops/fused/phases.h) of the outputs that
/// they reach or that count as this tile's. `origin` is the q that lies first in memory; it and
/// others outside of [low, high) have no outputs.
struct GradientSpan {
  std::int64_t begin, end;
  std::int64_t origin;
  std::int64_t low, high;
  std::int64_t own_low, own_high;  ///< each q of the axis is one tile's own

  std::int64_t size() const { return end - begin; }
};

/// What a tile covers.
struct GradientItem {
  std::int64_t group, image, images;
  GradientSpan rows, columns;

  /// Positions of x.
  std::int64_t positions() const { return images * rows.size() * columns.size(); }
};

/// A tap of the kernel as the backward meets it: position i of x adds to output phase `phase` at
/// q = i - shift.
struct GradientTap {
  std::size_t phase;
  std::int64_t kernel;  ///< row · kernel columns + column
  std::int64_t place;   ///< where q lies in the tile's plane, relative to i's place
};

/// dy of a tile: [image][phase][output channel][plane], a plane being rows of `pitch` elements.
class GradientTiles {
 public:
  GradientTiles(const TransposedPlan& plan, const simd::Kernels& kernels);

  /// Tiles of the batch, for one group.
  std::int64_t count() const { return image_tiles_ * row_tiles_ * column_tiles_; }
  GradientItem item(std::int64_t group, std::int64_t tile) const;

  // Of the largest tile, positions of x and of q.
  std::int64_t images() const { return images_; }
  std::int64_t positions() const { return images_ * rows_ * columns_; }
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t q_rows() const { return q_rows_; }
  /// Columns of q with outputs.
  std::int64_t q_columns() const { return std::min(q_columns_, plan_.columns.output_count(0)); }
  /// Whether a tile is whole images.
  bool whole() const { return row_tiles_ * column_tiles_ == 1; }

  std::int64_t pitch() const { return pitch_; }
  std::int64_t plane() const { return plane_; }
  std::int64_t phase_size() const { return plan_.out_channels * plane_; }
  std::int64_t image_size() const {
    return static_cast<std::int64_t>(plan_.phases.size()) * phase_size();
  }
  const std::vector<GradientTap>& taps() const { return taps_; }

 private:
  struct Shifts {
    std::int64_t first = 0, last = 0;  // 0 is always among them
  };

  static Shifts shifts_of(const PhaseAxis& axis);
  static GradientSpan span(const PhaseAxis& axis, std::int64_t begin, std::int64_t size,
                           const Shifts& shifts);
  /// The largest extent in q of tiles of `size` positions.
  static std::int64_t extent(const PhaseAxis& axis, std::int64_t size, const Shifts& shifts);
  void choose_tiles(int lanes);
  void list_taps();

  const TransposedPlan& plan_;
  Shifts row_shifts_, column_shifts_;
  std::int64_t images_ = 1, rows_, columns_;  // of x in a tile
  std::int64_t image_tiles_, row_tiles_, column_tiles_;
  std::int64_t q_rows_, q_columns_, pitch_, plane_;
  std::vector<GradientTap> taps_;
};

}  // namespace tenon::ops::cpu
