#include "tenon/ops/cpu/winograd/outputs.h"

#include <algorithm>

namespace tenon::ops::cpu::winograd {
namespace {

/// Floats of a line of the cache.
constexpr std::int64_t kLine = 16;

/// Floats of the results that are computed from products together, most of a first-level cache.
constexpr std::int64_t kRunFloats = 8192;

}  // namespace

void Window::pack(const float* source, std::int64_t images, std::int64_t top, std::int64_t left,
                  float* target) const {
  const std::int64_t first = std::max<std::int64_t>(0, -left);
  const std::int64_t last = std::clamp(width_ - left, first, columns_);
  const std::int64_t first_row = std::clamp<std::int64_t>(-top, 0, rows_);
  const std::int64_t last_row = std::clamp(height_ - top, first_row, rows_);
  const std::int64_t plane = height_ * width_;
  for (std::int64_t i = 0; i < images; ++i, source += channels_ * plane, target += image_size()) {
    std::fill(target, target + offset(first_row, 0), 0.0f);
    std::fill(target + offset(last_row, 0), target + image_size(), 0.0f);
    for (std::int64_t r = first_row; r < last_row; ++r) {
      std::fill(target + offset(r, 0), target + offset(r, first), 0.0f);
      std::fill(target + offset(r, last), target + offset(r + 1, 0), 0.0f);
    }
    // A few channels at a time, whose planes are read in the order of their memory; the next ones,
    // or the next image's, are fetched meanwhile.
    const std::int64_t count = last - first;
    for (std::int64_t c = 0; c < channels_; c += kernels_.lanes) {
      for (std::int64_t r = first_row; r < last_row; ++r) {
        const float* rows = source + c * plane + (top + r) * width_ + left + first;
        for (std::int64_t next = kernels_.lanes; next < 2 * kernels_.lanes; ++next) {
          for (std::int64_t at = 0; at < count; at += kLine) {
            __builtin_prefetch(rows + next * plane + at);
          }
        }
        kernels_.transpose(rows, plane, kernels_.lanes, count, target + offset(r, first) + c,
                           channels_);
      }
    }
  }
}

Outputs::Outputs(const Plan& plan, const simd::Kernels& kernels, const Tensor& weight,
                 const Tensor& bias)
    : plan_(plan),
      kernels_(kernels),
      filters_(Filters::forward(plan, kernels, weight)),
      bias_(plan.out_channels) {
  bias_.fill_zero();
  if (bias.defined()) std::copy_n(bias.data<float>(), bias_.size(), bias_.data());
}

Window Outputs::window(std::int64_t rows) const {
  return {kernels_,
          plan_.in_channels,
          plan_.rows.phase_axis.input,
          plan_.columns.phase_axis.input,
          plan_.rows.form.tile * rows + 2,
          plan_.columns.form.tile * plan_.columns.tiles + 2};
}

/// Eight rows of a matrix at a time, and as many products as fit a second-level cache beside the
/// filters that stream through it.
std::int64_t Outputs::tiles_at_once(int factors) { return factors > 9 ? 32 : 64; }

std::int64_t Outputs::tile_rows_at_once() const {
  return std::max<std::int64_t>(1, tiles_at_once(plan_.factors()) / plan_.columns.tiles);
}

std::int64_t Outputs::tiles_of_run() const {
  // Rows of whole lines at least, so that what is written is not split.
  const std::int64_t columns = plan_.columns.form.tile * plan_.stride.w;
  const std::int64_t least = (kLine + columns - 1) / columns;
  const std::int64_t fitting =
      kRunFloats / (plan_.rows.form.tile * columns * plan_.out_channels) / least * least;
  return std::min(std::max(fitting, least), plan_.columns.tiles);
}

std::int64_t Outputs::factors_size() const {
  return 2 * plan_.columns.data_factors() *
         spread(tile_rows_at_once() * plan_.columns.tiles * plan_.in_channels);
}

std::int64_t Outputs::products_size() const {
  return plan_.stride.w * plan_.factors() *
         spread(tile_rows_at_once() * plan_.columns.tiles * plan_.out_channels);
}

Outputs::Buffers::Buffers(const Outputs& o, float* factors_memory, float* products_memory)
    : factors(factors_memory),
      products(products_memory),
      rows(o.plan_.rows.form.tile * o.tiles_of_run() * o.plan_.columns.form.tile *
           o.plan_.stride.w * o.plan_.out_channels) {}

/// A few rows of tiles, counted through the images of a block.
struct Outputs::Part {
  const Block& block;
  const Window& window;
  const float* data;
  std::int64_t first_row, last_row, tile_columns;
  std::int64_t first_strip, last_strip;
  std::int64_t first_channel, channels;  // of the strips
  const Buffers& buffers;
  const Visit& visit;
  const Announce& announce;

  std::int64_t tile_rows() const { return last_row - first_row; }
  /// From the products of a factor to those of the next.
  std::int64_t products_step() const { return spread(tile_rows() * tile_columns * channels); }
};

void Outputs::compute(const Block& block, const float* window, std::int64_t first,
                      std::int64_t last, const Buffers& buffers, const Visit& visit,
                      const Announce& announce) const {
  const auto vectors = [&](std::int64_t strip) {
    return strip < filters_.strips().count ? filters_.strips().first(strip)
                                           : plan_.out_channels / kernels_.lanes;
  };
  const Window layout = this->window(block.rows);
  const std::int64_t step = tile_rows_at_once();
  for (std::int64_t row = 0; row < block.tile_rows(); row += step) {
    const Part part{block,
                    layout,
                    window,
                    row,
                    std::min(row + step, block.tile_rows()),
                    plan_.columns.tiles,
                    first,
                    last,
                    vectors(first) * kernels_.lanes,
                    (vectors(last) - vectors(first)) * kernels_.lanes,
                    buffers,
                    visit,
                    announce};
    for (std::int64_t phase = 0; phase < plan_.stride.h; ++phase) {
      multiply_row_phase(part, phase);
      finish_row_phase(part, phase);
    }
  }
}

void Outputs::announce(const Part& part, std::int64_t row_phase) const {
  LinesAhead& ahead = part.buffers.ahead;
  ahead.clear();
  if (!part.announce) return;
  for (std::int64_t row = part.first_row; row < part.last_row; ++row) {
    for (int r = 0; r < plan_.rows.form.tile; ++r) {
      const std::int64_t y = output_row(part, row_phase, row, r);
      if (y < plan_.output_rows())
        part.announce(part.block.image + row / part.block.rows, y, ahead);
    }
  }
  ahead.start(
      plan_.factors() * plan_.stride.w *
      filters_.calls(part.tile_rows() * plan_.columns.tiles, part.first_strip, part.last_strip));
}

/// Where row `r` of a row of tiles lies in y.
std::int64_t Outputs::output_row(const Part& part, std::int64_t row_phase, std::int64_t tile_row,
                                 int r) const {
  const std::int64_t tile = part.block.row + tile_row % part.block.rows;
  return row_phase + (plan_.rows.form.tile * tile + r) * plan_.stride.h;
}

void Outputs::multiply_row_phase(const Part& part, std::int64_t row_phase) const {
  const std::int64_t size = spread(part.tile_rows() * part.tile_columns * plan_.in_channels);
  announce(part, row_phase);
  for (const Group& group : plan_.rows.form.data) {
    compute_factors(part, row_phase, group);
    for (int member = 0; member < group.members; ++member) {
      multiply_factors(part, row_phase, group.first + member,
                       part.buffers.factors + member * plan_.columns.data_factors() * size);
    }
  }
}

/// The products of one factor along the rows.
void Outputs::multiply_factors(const Part& part, std::int64_t row_phase, int vertical,
                               const float* factors) const {
  const std::int64_t tiles = part.tile_rows() * part.tile_columns;
  const int along = plan_.columns.form.factors();
  for (std::int64_t phase = 0; phase < plan_.stride.w; ++phase) {
    for (int horizontal = 0; horizontal < along; ++horizontal) {
      const int a = plan_.columns.first_factor(phase) + horizontal;
      const int factor = vertical * along + horizontal;
      filters_.multiply(
          factors + a * spread(tiles * plan_.in_channels), tiles,
          row_phase * plan_.stride.w + phase, factor, part.first_strip, part.last_strip, false,
          part.buffers.products + (phase * plan_.factors() + factor) * part.products_step(),
          part.channels, part.announce ? &part.buffers.ahead : nullptr);
    }
  }
}

/// All factors along the columns of a group along the rows.
void Outputs::compute_factors(const Part& part, std::int64_t row_phase, const Group& group) const {
  const std::int64_t row_size = part.tile_columns * plan_.in_channels;
  const std::int64_t size = spread(part.tile_rows() * row_size);
  const int tile = plan_.columns.form.tile;
  for (std::int64_t row = part.first_row; row < part.last_row; ++row) {
    const std::int64_t top = plan_.rows.form.tile * (row % part.block.rows);
    const float* corner = part.data + row / part.block.rows * part.window.image_size() +
                          part.window.offset(top + plan_.rows.later(row_phase), 0);
    simd::FactorRows rows{.element_step = plan_.in_channels,
                          .width = plan_.in_channels,
                          .repeats = part.tile_columns,
                          .row_step = tile * plan_.in_channels,
                          .target = part.buffers.factors + (row - part.first_row) * row_size,
                          .target_member = plan_.columns.data_factors() * size,
                          .target_factor = size,
                          .target_step = plan_.in_channels,
                          .target_vector = kernels_.lanes};
    set_rows(rows, group, [&](int r) { return corner + part.window.offset(r, 0); });
    kernels_.data_factors(rows, tile, plan_.columns.windows());
  }
}

void Outputs::finish_row_phase(const Part& part, std::int64_t row_phase) const {
  const std::int64_t tile_columns = plan_.columns.tiles;
  for (std::int64_t row = part.first_row; row < part.last_row; ++row) {
    for (std::int64_t tile = 0; tile < tile_columns; tile += tiles_of_run()) {
      finish_tiles(part, row_phase, row, tile, std::min(tile + tiles_of_run(), tile_columns));
    }
  }
}

/// Outputs of the tiles [first, last) of a row of tiles.
void Outputs::finish_tiles(const Part& part, std::int64_t row_phase, std::int64_t tile_row,
                           std::int64_t first, std::int64_t last) const {
  const std::int64_t tile = (tile_row - part.first_row) * plan_.columns.tiles + first;
  const std::int64_t channels = part.channels;
  const Form& rows = plan_.rows.form;
  const Form& columns = plan_.columns.form;
  const std::int64_t step = columns.tile * plan_.stride.w;  // columns of a tile
  const std::int64_t row_size = (last - first) * step * channels;
  for (std::int64_t phase = 0; phase < plan_.stride.w; ++phase) {
    kernels_.outputs({.products = part.buffers.products +
                                  phase * plan_.factors() * part.products_step() + tile * channels,
                      .row_factor = columns.factors() * part.products_step(),
                      .column_factor = part.products_step(),
                      .width = channels,
                      .repeats = last - first,
                      .start = bias_.data() + part.first_channel,
                      .target = part.buffers.rows.data() + phase * channels,
                      .target_row = row_size,
                      .target_column = plan_.stride.w * channels,
                      .target_step = step * channels},
                     rows.tile, columns.tile);
  }
  const std::int64_t column = first * step;
  Run run{.image = part.block.image + tile_row / part.block.rows,
          .row = 0,
          .column = column,
          .columns = std::min(last * step, plan_.output_columns()) - column};
  if (run.columns <= 0) return;
  for (int r = 0; r < rows.tile; ++r) {
    run.row = output_row(part, row_phase, tile_row, r);
    if (run.row >= plan_.output_rows()) break;
    part.visit(run, part.buffers.rows.data() + r * row_size);
  }
}

}  // namespace tenon::ops::cpu::winograd
