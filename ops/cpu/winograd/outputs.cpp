#include "tenon/ops/cpu/winograd/outputs.h"

#include <algorithm>

namespace tenon::ops::cpu::winograd {
namespace {

/// Tiles whose products are computed together: eight rows of a matrix at a time, and as many
/// products as fit a second-level cache beside the filters that stream through it.
constexpr std::int64_t kTiles = 64;

}  // namespace

void Window::pack(const float* source, std::int64_t images, std::int64_t top, std::int64_t left,
                  float* target) const {
  const std::int64_t first = std::max<std::int64_t>(0, -left);
  const std::int64_t last = std::clamp(width_ - left, first, columns_);
  const std::int64_t plane = height_ * width_;
  for (std::int64_t i = 0; i < images; ++i, source += channels_ * plane) {
    for (std::int64_t r = 0; r < rows_; ++r, target += row_size()) {
      const std::int64_t y = top + r;
      if (y < 0 || y >= height_ || first == last) {
        std::fill_n(target, row_size(), 0.0f);
        continue;
      }
      std::fill(target, target + first * channels_, 0.0f);
      std::fill(target + last * channels_, target + row_size(), 0.0f);
      kernels_.transpose(source + y * width_ + left + first, plane, channels_, last - first,
                         target + first * channels_, channels_);
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

Outputs::Buffers::Buffers(const Outputs& o)
    : factors(o.tile_rows_at_once() * o.plan_.columns.tiles * o.plan_.in_channels),
      products(o.plan_.stride.w * kFactors * o.tile_rows_at_once() * o.plan_.columns.tiles *
               o.plan_.out_channels),
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

  std::int64_t tile_rows() const { return last_row - first_row; }
};

void Outputs::compute(const Block& block, const float* window, std::int64_t first,
                      std::int64_t last, const Buffers& buffers, const Visit& visit) const {
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
                    visit};
    for (std::int64_t phase = 0; phase < plan_.stride.h; ++phase) {
      multiply_row_phase(part, phase);
      finish_row_phase(part, phase);
    }
  }
}

void Outputs::multiply_row_phase(const Part& part, std::int64_t row_phase) const {
  const std::int64_t tile_columns = plan_.columns.tiles;
  const std::int64_t tiles = part.tile_rows() * tile_columns;
  float* factors = part.buffers.factors.data();
  for (int vertical = 0; vertical < 3; ++vertical) {
    const Terms row_terms = data_terms(2 * plan_.rows.later(row_phase) + vertical);
    for (int a = 0; a < 5; ++a) {
      if (!plan_.columns.uses(a)) continue;
      for (std::int64_t row = part.first_row; row < part.last_row; ++row) {
        const std::int64_t image = row / part.block.rows;
        const float* corner = part.data + image * part.window.image_size() +
                              part.window.offset(2 * (row % part.block.rows), 0);
        simd::SignedRows rows{
            .width = plan_.in_channels,
            .repeats = tile_columns,
            .row_step = 2 * plan_.in_channels,
            .target = factors + (row - part.first_row) * tile_columns * plan_.in_channels,
            .target_step = plan_.in_channels,
            .target_vector = kernels_.lanes};
        set_terms(rows, row_terms, data_terms(a),
                  [&](int r, int c) { return corner + part.window.offset(r, c); });
        kernels_.add_rows(rows);
      }
      for (std::int64_t phase = 0; phase < plan_.stride.w; ++phase) {
        const int horizontal = a - 2 * plan_.columns.later(phase);
        if (horizontal < 0 || horizontal > 2) continue;
        const int factor = 3 * vertical + horizontal;
        // The middle product is part of each output: it begins with the bias.
        filters_.multiply(
            factors, tiles, row_phase * plan_.stride.w + phase, factor, part.first_strip,
            part.last_strip, factor == 4 ? bias_.data() : nullptr, false,
            part.buffers.products.data() + (phase * kFactors + factor) * tiles * part.channels,
            part.channels);
      }
    }
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
            part.buffers.products.data() +
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
