#include "tenon/ops/cpu/transposed/tile_input.h"

#include <algorithm>
#include <limits>

namespace tenon::ops::cpu {
namespace {

/// Floats of a tile's input: a part of a usual second-level cache, beside which weights stream.
constexpr std::int64_t kWindowElements = 1 << 16;
constexpr std::int64_t kDenseElements = 1 << 17;

/// At least so many tiles for each thread, where the positions suffice.
constexpr std::int64_t kTilesOfThread = 4;

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::int64_t spread(std::int64_t count, int lanes) {
  return (ceil_divide(count, lanes) | 1) * lanes;
}

bool is_narrow(std::int64_t columns, int lanes) {
  return ceil_divide(columns, lanes) * lanes * 10 > columns * 11;
}

TileInput::TileInput(const TransposedPlan& plan, const simd::Kernels& kernels)
    : plan_(plan), kernels_(kernels) {
  find_shifts();
  choose_tiles();
  choose_layout();
  make_offsets();
}

TileInput::TileInput(const TransposedPlan& plan, const simd::Kernels& kernels, std::int64_t images,
                     std::int64_t rows, std::int64_t columns)
    : plan_(plan), kernels_(kernels), images_(images), rows_(rows), columns_(columns) {
  find_shifts();
  dense_ = is_narrow(columns, kernels.lanes);
  choose_layout();
  make_offsets();
}

void TileInput::find_shifts() {
  const auto shifts_of = [](const PhaseAxis& axis) {
    Shifts shifts{std::numeric_limits<std::int64_t>::max(),
                  std::numeric_limits<std::int64_t>::min()};
    for (std::int64_t phase = 0; phase < std::min(axis.stride, axis.output); ++phase) {
      for (std::int64_t k = axis.first_tap(phase); k < axis.kernel; k += axis.tap_step()) {
        shifts.first = std::min(shifts.first, axis.tap_shift(phase, k));
        shifts.last = std::max(shifts.last, axis.tap_shift(phase, k));
      }
    }
    return shifts.first > shifts.last ? Shifts{} : shifts;
  };
  row_shifts_ = shifts_of(plan_.rows);
  column_shifts_ = shifts_of(plan_.columns);
  shift_pairs_ = row_shifts_.count() * column_shifts_.count();
}

void TileInput::choose_tiles() {
  const std::int64_t lanes = kernels_.lanes;
  const std::int64_t all_rows = plan_.rows.output_count(0);
  const std::int64_t all_columns = plan_.columns.output_count(0);
  const std::int64_t border = column_shifts_.count() - 1;
  dense_ = is_narrow(all_columns, kernels_.lanes);
  const std::int64_t wanted_tiles = kTilesOfThread * num_threads();
  columns_ = all_columns;
  if (dense_) {
    const std::int64_t positions = std::clamp<std::int64_t>(
        kDenseElements / std::max<std::int64_t>(1, shift_pairs_ * plan_.in_channels), 3 * lanes,
        64 * lanes);
    rows_ = std::clamp<std::int64_t>(positions / columns_, 1, all_rows);
    if (rows_ == all_rows) {
      const std::int64_t share = std::max<std::int64_t>(1, plan_.batch / wanted_tiles);
      images_ = std::clamp<std::int64_t>(positions / (rows_ * columns_), 1, share);
    }
  } else {
    const std::int64_t row = plan_.in_channels * row_shifts_.count();
    const std::int64_t room = std::max(3 * lanes, kWindowElements / row - border);
    columns_ = std::min(all_columns, room / lanes * lanes);
    columns_ =
        ceil_divide(ceil_divide(all_columns, ceil_divide(all_columns, columns_)), lanes) * lanes;
    columns_ = std::min(columns_, all_columns);
    rows_ = kWindowElements / (plan_.in_channels * (columns_ + border)) - row_shifts_.count() + 1;
    rows_ = std::clamp<std::int64_t>(rows_, 1, all_rows);
  }
  column_tiles_ = ceil_divide(all_columns, columns_);
  const std::int64_t others = plan_.batch * plan_.groups * column_tiles_;
  if (images_ == 1) {
    rows_ = std::min(rows_, ceil_divide(all_rows, ceil_divide(wanted_tiles, others)));
  }
  row_tiles_ = ceil_divide(all_rows, rows_);
  rows_ = ceil_divide(all_rows, row_tiles_);
  row_tiles_ = ceil_divide(all_rows, rows_);
  image_tiles_ = ceil_divide(plan_.batch, images_);
}

void TileInput::choose_layout() {
  const std::int64_t lanes = kernels_.lanes;
  const std::int64_t width = dense_ ? columns_ : ceil_divide(columns_, lanes) * lanes;
  pitch_ = width + column_shifts_.count() - 1;
  plane_ = spread((rows_ + row_shifts_.count() - 1) * pitch_, kernels_.lanes);
  slack_ = lanes;
  if (dense_) dense_plane_ = spread(images_ * rows_ * columns_, kernels_.lanes);
}

void TileInput::make_offsets() {
  for (const Phase& phase : plan_.phases) {
    std::vector<std::int32_t>& offsets = offsets_.emplace_back();
    offsets.reserve(static_cast<std::size_t>(phase.depth));
    for (std::int64_t ty = 0; ty < phase.row_taps; ++ty) {
      const std::int64_t row =
          plan_.rows.tap_shift(phase.row, phase.row_tap + ty * plan_.row_step) - row_shifts_.first;
      for (std::int64_t tx = 0; tx < phase.column_taps; ++tx) {
        const std::int64_t column =
            plan_.columns.tap_shift(phase.column, phase.column_tap + tx * plan_.column_step) -
            column_shifts_.first;
        const std::int64_t first =
            dense_ ? (row * column_shifts_.count() + column) * pair_size() : row * pitch_ + column;
        const std::int64_t step = dense_ ? dense_plane_ : plane_;
        for (std::int64_t c = 0; c < plan_.in_channels; ++c) {
          offsets.push_back(static_cast<std::int32_t>(first + c * step));
        }
      }
    }
  }
}

PositionBlock TileInput::block(std::int64_t tile) const {
  const std::int64_t column = tile % column_tiles_ * columns_;
  const std::int64_t row = tile / column_tiles_ % row_tiles_ * rows_;
  const std::int64_t image = tile / (column_tiles_ * row_tiles_) * images_;
  return {image,  std::min(images_, plan_.batch - image),
          row,    std::min(rows_, plan_.rows.output_count(0) - row),
          column, std::min(columns_, plan_.columns.output_count(0) - column)};
}

void TileInput::pack_window(const PositionBlock& block, std::int64_t group, const float* x,
                            float* target) const {
  const std::int64_t height = plan_.rows.input;
  const std::int64_t width = plan_.columns.input;
  const std::int64_t first_row = block.row + row_shifts_.first;
  const std::int64_t window_rows = block.rows + row_shifts_.count() - 1;
  for (std::int64_t i = 0; i < block.images; ++i) {
    const float* image = x + ((block.image + i) * plan_.groups + group) * plan_.input_size();
    for (std::int64_t c = 0; c < plan_.in_channels; ++c) {
      float* rows = target + (i * plan_.in_channels + c) * plane_;
      for (std::int64_t r = 0; r < window_rows; ++r) {
        const std::int64_t y = first_row + r;
        if (y >= 0 && y < height) {
          gather_row(image + (c * height + y) * width, width, block.column + column_shifts_.first,
                     1, pitch_, rows + r * pitch_);
        } else {
          std::fill_n(rows + r * pitch_, pitch_, 0.0f);
        }
      }
    }
  }
}

void TileInput::pack(const PositionBlock& block, std::int64_t group, const float* x, float* target,
                     float* scratch) const {
  if (!dense_) {
    pack_window(block, group, x, target);
    return;
  }
  pack_window(block, group, x, scratch);
  const std::int64_t positions = block.rows * block.columns;
  for (std::int64_t row = 0; row < row_shifts_.count(); ++row) {
    for (std::int64_t column = 0; column < column_shifts_.count(); ++column) {
      for (std::int64_t c = 0; c < plan_.in_channels; ++c, target += dense_plane_) {
        for (std::int64_t i = 0; i < block.images; ++i) {
          kernels_.join(scratch + (i * plan_.in_channels + c) * plane_ + row * pitch_ + column,
                        pitch_, block.rows, block.columns, target + i * positions);
        }
      }
    }
  }
}

void Strips::cut(const PositionBlock& block, const simd::Kernels& kernels, std::int64_t pitch) {
  const std::int64_t lanes = kernels.lanes;
  const bool dense = pitch == 0;
  const std::int64_t row_vectors = ceil_divide(block.columns, lanes);
  const std::int64_t vectors = dense ? ceil_divide(block.count(), lanes) : block.rows * row_vectors;
  strips.clear();
  runs.clear();
  for (std::int64_t first = 0; first < vectors;) {
    const std::int64_t left = vectors - first;
    Strip strip{};
    // Four vectors are better two and two than three and one.
    strip.vectors = static_cast<int>(left == 4 ? 2 : std::min<std::int64_t>(left, kernels.vectors));
    strip.first_run = runs.size();
    // Positions that lie side by side, in rows of the block or in vectors of a row.
    const std::int64_t end =
        std::min((first + strip.vectors) * lanes, dense ? block.count() : vectors * lanes);
    for (std::int64_t p = first * lanes; p < end;) {
      const std::int64_t width = dense ? block.columns : row_vectors * lanes;
      const std::int64_t row = p / width;
      const std::int64_t column = p % width;
      runs.push_back(
          {block.image + row / block.rows, block.row + row % block.rows, block.column + column,
           std::min({end - p, width - column, block.columns - column}), p - first * lanes});
      p += std::min(end - p, width - column);
    }
    for (int v = 0; v < strip.vectors; ++v) {
      const std::int64_t vector = first + v;
      strip.starts[v] =
          dense ? vector * lanes : vector / row_vectors * pitch + vector % row_vectors * lanes;
    }
    strip.last_run = runs.size();
    strips.push_back(strip);
    first += strip.vectors;
  }
}

}  // namespace tenon::ops::cpu
