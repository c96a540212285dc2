#include "tenon/ops/cpu/winograd/outputs.h"

#include <algorithm>

namespace tenon::ops::cpu::winograd {
namespace {

/// Tiles whose products are computed together: eight rows of a matrix at a time, and as many
/// products as fit a second-level cache beside the filters that stream through it.
constexpr std::int64_t kTiles = 64;

/// Floats of a line of the cache.
constexpr std::int64_t kLine = 16;

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
          2 * rows + 2,
          2 * plan_.columns.tiles + 2};
}

std::int64_t Outputs::tile_rows_at_once() const {
  return std::max<std::int64_t>(1, kTiles / plan_.columns.tiles);
}

std::int64_t Outputs::products_size() const {
  return plan_.stride.w * kFactors * tile_rows_at_once() * plan_.columns.tiles * plan_.out_channels;
}

Outputs::Buffers::Buffers(const Outputs& o, float* products_memory)
    : combined(o.window(1).row_size()),
      factors(kDataFactors * o.tile_rows_at_once() * o.plan_.columns.tiles * o.plan_.in_channels),
      products(products_memory),
      row(2 * o.plan_.columns.tiles * o.plan_.stride.w * o.plan_.out_channels) {}

/// A few rows of tiles, counted through the images of a block.
struct Outputs::Part {
  const Block& block;
  const Window& window;
  const float* data;
  std::int64_t first_row, last_row;
  std::int64_t first_strip, last_strip;
  std::int64_t channels;  // of the strips
  const Buffers& buffers;
  const Visit& visit;
  const Announce& announce;

  std::int64_t tile_rows() const { return last_row - first_row; }
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
                    first,
                    last,
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

void Outputs::multiply_row_phase(const Part& part, std::int64_t row_phase) const {
  const std::int64_t tile_columns = plan_.columns.tiles;
  const std::int64_t tiles = part.tile_rows() * tile_columns;
  LinesAhead& ahead = part.buffers.ahead;
  ahead.clear();
  if (part.announce) {
    for (std::int64_t row = part.first_row; row < part.last_row; ++row) {
      for (int r = 0; r < 2; ++r) {
        const std::int64_t q = 2 * (part.block.row + row % part.block.rows) + r;
        const std::int64_t y = row_phase + q * plan_.stride.h;
        if (y < plan_.output_rows())
          part.announce(part.block.image + row / part.block.rows, y, ahead);
      }
    }
    ahead.start(kFactors * plan_.stride.w *
                filters_.calls(tiles, part.first_strip, part.last_strip));
  }
  for (int vertical = 0; vertical < 3; ++vertical) {
    compute_factors(part, data_terms(2 * plan_.rows.later(row_phase) + vertical));
    for (std::int64_t phase = 0; phase < plan_.stride.w; ++phase) {
      for (int horizontal = 0; horizontal < 3; ++horizontal) {
        const int a = 2 * plan_.columns.later(phase) + horizontal;
        const int factor = 3 * vertical + horizontal;
        // The middle product is part of each output: it begins with the bias.
        filters_.multiply(
            part.buffers.factors.data() + a * tiles * plan_.in_channels, tiles,
            row_phase * plan_.stride.w + phase, factor, part.first_strip, part.last_strip,
            factor == 4 ? bias_.data() : nullptr, false,
            part.buffers.products + (phase * kFactors + factor) * tiles * part.channels,
            part.channels, part.announce ? &ahead : nullptr);
      }
    }
  }
}

/// All factors along the columns of one factor along the rows.
void Outputs::compute_factors(const Part& part, const Terms& vertical) const {
  const std::int64_t tile_columns = plan_.columns.tiles;
  const std::int64_t size = tile_columns * plan_.in_channels;  // of a row of tiles
  for (std::int64_t row = part.first_row; row < part.last_row; ++row) {
    const float* corner = part.data + row / part.block.rows * part.window.image_size() +
                          part.window.offset(2 * (row % part.block.rows), 0);
    const float* combined = combine_rows(
        kernels_, vertical, part.window.row_size(),
        [&](int r) { return corner + part.window.offset(r, 0); }, part.buffers.combined.data());
    kernels_.data_factors({.row = combined,
                           .element_step = plan_.in_channels,
                           .width = plan_.in_channels,
                           .repeats = tile_columns,
                           .row_step = 2 * plan_.in_channels,
                           .target = part.buffers.factors.data() + (row - part.first_row) * size,
                           .target_factor = part.tile_rows() * size,
                           .target_step = plan_.in_channels,
                           .target_vector = kernels_.lanes},
                          plan_.columns.data_factors());
  }
}

void Outputs::finish_row_phase(const Part& part, std::int64_t row_phase) const {
  const std::int64_t tile_columns = plan_.columns.tiles;
  const std::int64_t tiles = part.tile_rows() * tile_columns;
  const std::int64_t channels = part.channels;
  for (std::int64_t row = part.first_row; row < part.last_row; ++row) {
    for (int r = 0; r < 2; ++r) {
      const std::int64_t q = 2 * (part.block.row + row % part.block.rows) + r;
      const std::int64_t y = row_phase + q * plan_.stride.h;
      if (y >= plan_.output_rows()) continue;
      for (std::int64_t phase = 0; phase < plan_.stride.w; ++phase) {
        const float* products =
            part.buffers.products +
            (phase * kFactors * tiles + (row - part.first_row) * tile_columns) * channels;
        for (int c = 0; c < 2; ++c) {
          simd::SignedRows rows{
              .width = channels,
              .repeats = tile_columns,
              .row_step = channels,
              .target = part.buffers.row.data() + (c * plan_.stride.w + phase) * channels,
              .target_step = 2 * plan_.stride.w * channels,
              .target_vector = kernels_.lanes};
          set_terms(rows, output_terms(r), output_terms(c),
                    [&](int i, int j) { return products + (3 * i + j) * tiles * channels; });
          kernels_.add_rows(rows);
        }
      }
      part.visit(part.block.image + row / part.block.rows, y, part.buffers.row.data());
    }
  }
}

}  // namespace tenon::ops::cpu::winograd
