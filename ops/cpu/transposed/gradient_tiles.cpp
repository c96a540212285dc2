#include "tenon/ops/cpu/transposed/gradient_tiles.h"

#include <algorithm>

namespace tenon::ops::cpu {
namespace {

/// Elements of dy and of x in a tile. The numbers here must not depend on the number of threads,
/// because the weight gradient is summed tile by tile.
constexpr std::int64_t kTileElements = 5 << 16;

/// Small images are joined to about so many positions, over which a product of the weight gradient
/// sums, where as many tiles are left as a few cores want.
constexpr std::int64_t kJoinedPositions = 512;
constexpr std::int64_t kLeastTiles = 8;

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

GradientTiles::GradientTiles(const TransposedPlan& plan, const simd::Kernels& kernels)
    : plan_(plan), row_shifts_(shifts_of(plan.rows)), column_shifts_(shifts_of(plan.columns)) {
  choose_tiles(kernels.lanes);
  list_taps();
}

GradientTiles::Shifts GradientTiles::shifts_of(const PhaseAxis& axis) {
  Shifts shifts;
  for (std::int64_t phase = 0; phase < std::min(axis.stride, axis.output); ++phase) {
    for (std::int64_t k = axis.first_tap(phase); k < axis.kernel; k += axis.tap_step()) {
      shifts.first = std::min(shifts.first, axis.tap_shift(phase, k));
      shifts.last = std::max(shifts.last, axis.tap_shift(phase, k));
    }
  }
  return shifts;
}

GradientSpan GradientTiles::span(const PhaseAxis& axis, std::int64_t begin, std::int64_t size,
                                 const Shifts& shifts) {
  const std::int64_t all = axis.output_count(0);
  GradientSpan span{.begin = begin,
                    .end = std::min(begin + size, axis.input),
                    .origin = begin - shifts.last,
                    .low = 0,
                    .high = all,
                    .own_low = 0,
                    .own_high = all};
  if (begin > 0) {
    span.own_low = std::min(begin, all);
    span.low = std::clamp<std::int64_t>(span.origin, 0, all);
  }
  if (span.end < axis.input) {
    span.own_high = std::min(span.end, all);
    span.high = std::clamp<std::int64_t>(span.end - shifts.first, span.low, all);
  }
  return span;
}

GradientItem GradientTiles::item(std::int64_t group, std::int64_t tile) const {
  const std::int64_t image = tile / (row_tiles_ * column_tiles_) * images_;
  return {group, image, std::min(images_, plan_.batch - image),
          span(plan_.rows, tile / column_tiles_ % row_tiles_ * rows_, rows_, row_shifts_),
          span(plan_.columns, tile % column_tiles_ * columns_, columns_, column_shifts_)};
}

std::int64_t GradientTiles::extent(const PhaseAxis& axis, std::int64_t size, const Shifts& shifts) {
  const std::int64_t last = (axis.input - 1) / size * size;  // where the last tile begins
  return std::max(size + shifts.last - shifts.first, axis.output_count(0) - (last - shifts.last));
}

void GradientTiles::choose_tiles(int lanes) {
  const auto phases = static_cast<std::int64_t>(plan_.phases.size());
  const std::int64_t room =
      kTileElements / std::max(phases * plan_.out_channels, plan_.in_channels);
  const std::int64_t row_border = row_shifts_.last - row_shifts_.first;
  const std::int64_t column_border = column_shifts_.last - column_shifts_.first;
  columns_ = plan_.columns.input;
  const std::int64_t most_columns =
      std::max<std::int64_t>(3 * lanes, (room / (row_border + 2) - column_border) / lanes * lanes);
  if (columns_ > most_columns) {
    columns_ = ceil_divide(columns_, ceil_divide(columns_, most_columns));
    columns_ = ceil_divide(columns_, lanes) * lanes;
  }
  column_tiles_ = ceil_divide(plan_.columns.input, columns_);
  rows_ =
      std::clamp<std::int64_t>(room / (columns_ + column_border) - row_border, 1, plan_.rows.input);
  row_tiles_ = ceil_divide(plan_.rows.input, rows_);
  rows_ = ceil_divide(plan_.rows.input, row_tiles_);
  row_tiles_ = ceil_divide(plan_.rows.input, rows_);
  q_rows_ = extent(plan_.rows, rows_, row_shifts_);
  q_columns_ = extent(plan_.columns, columns_, column_shifts_);
  // Vectors of positions may stick out of a row.
  pitch_ = std::max(q_columns_, ceil_divide(columns_, lanes) * lanes + column_border);
  plane_ = spread(q_rows_ * pitch_ + lanes, lanes);
  if (row_tiles_ * column_tiles_ == 1) {
    const std::int64_t image = std::max<std::int64_t>(1, rows_ * columns_);
    images_ = std::min(
        {kTileElements / image_size(), kJoinedPositions / image, plan_.batch / kLeastTiles});
    images_ = std::max<std::int64_t>(1, images_);
  }
  image_tiles_ = ceil_divide(plan_.batch, images_);
}

void GradientTiles::list_taps() {
  for (std::size_t p = 0; p < plan_.phases.size(); ++p) {
    const Phase& phase = plan_.phases[p];
    for (std::int64_t ty = 0; ty < phase.row_taps; ++ty) {
      const std::int64_t ky = phase.row_tap + ty * plan_.row_step;
      const std::int64_t row = row_shifts_.last - plan_.rows.tap_shift(phase.row, ky);
      for (std::int64_t tx = 0; tx < phase.column_taps; ++tx) {
        const std::int64_t kx = phase.column_tap + tx * plan_.column_step;
        const std::int64_t column = column_shifts_.last - plan_.columns.tap_shift(phase.column, kx);
        taps_.push_back({p, ky * plan_.kernel.w + kx, row * pitch_ + column});
      }
    }
  }
}

}  // namespace tenon::ops::cpu
