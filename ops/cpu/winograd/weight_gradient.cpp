#include "tenon/ops/cpu/winograd/weight_gradient.h"

#include <algorithm>

#include "tenon/core/parallel.h"

namespace tenon::ops::cpu::winograd {

namespace {

/// Vectors from one vector of channels to the next: an odd number, so that those of a tile do not
/// compete for the same part of a cache.
std::int64_t spread_tiles(std::int64_t tiles) { return tiles | 1; }

}  // namespace

WeightGradient::Buffers::Buffers(const WeightGradient& g, std::int64_t tiles, std::int64_t row_size,
                                 bool wanted, float* products_memory)
    : combined(wanted ? row_size : 0),
      data(wanted ? 3 * spread_tiles(tiles) * g.plan_.in_channels : 0),
      gradient(wanted ? 3 * spread_tiles(tiles) * g.plan_.out_channels : 0),
      products(products_memory) {}

void WeightGradient::compute(std::int64_t images, const Operand& x, const Operand& dy,
                             const Buffers& buffers, bool adds, float* sums) const {
  const std::int64_t tiles = images * plan_.rows.tiles * plan_.columns.tiles;
  for (std::int64_t phase = 0; phase < plan_.phases(); ++phase) {
    for (int vertical = 0; vertical < 3; ++vertical) {
      compute_data(images, x, phase, vertical, buffers);
      compute_gradient(images, dy, phase, vertical, buffers);
      for (int horizontal = 0; horizontal < 3; ++horizontal) {
        multiply(buffers, tiles, vertical, horizontal);
      }
    }
    add_taps(buffers, phase, adds, sums);
  }
}

void WeightGradient::compute_data(std::int64_t images, const Operand& x, std::int64_t phase,
                                  int vertical, const Buffers& buffers) const {
  const std::int64_t later = plan_.columns.later(phase % plan_.stride.w);
  const Terms terms = data_terms(2 * plan_.rows.later(phase / plan_.stride.w) + vertical);
  const std::int64_t tile_rows = images * plan_.rows.tiles;
  for (std::int64_t i = 0; i < tile_rows; ++i) {
    const float* corner = x.data + i / plan_.rows.tiles * x.window.image_size() +
                          x.window.offset(2 * (i % plan_.rows.tiles), 0);
    const float* combined = combine_rows(
        kernels_, terms, x.window.row_size(), [&](int r) { return corner + x.window.offset(r, 0); },
        buffers.combined.data());
    simd::FactorRows rows = factor_rows(tile_rows, i, plan_.in_channels, buffers.data.data());
    rows.row = combined + x.window.offset(0, later);
    rows.element_step = plan_.in_channels;
    rows.row_step = 2 * plan_.in_channels;
    kernels_.data_factors(rows, 3);
  }
}

void WeightGradient::compute_gradient(std::int64_t images, const Operand& dy, std::int64_t phase,
                                      int vertical, const Buffers& buffers) const {
  const std::int64_t tile_rows = images * plan_.rows.tiles;
  const std::int64_t column = dy.column + phase % plan_.stride.w;
  for (std::int64_t i = 0; i < tile_rows; ++i) {
    const float* corner =
        dy.data + i / plan_.rows.tiles * dy.window.image_size() +
        dy.window.offset(
            dy.row + 2 * (i % plan_.rows.tiles) * plan_.stride.h + phase / plan_.stride.w, 0);
    const float* combined = combine_rows(
        kernels_, filter_terms(vertical), dy.window.row_size(),
        [&](int r) { return corner + dy.window.offset(r * plan_.stride.h, 0); },
        buffers.combined.data());
    simd::FactorRows rows = factor_rows(tile_rows, i, plan_.out_channels, buffers.gradient.data());
    rows.row = combined + dy.window.offset(0, column);
    rows.element_step = plan_.stride.w * plan_.out_channels;
    rows.row_step = 2 * plan_.stride.w * plan_.out_channels;
    kernels_.filter_factors(rows);
  }
}

/// Where row number `index` of `tile_rows` rows of tiles lies in the factors along the columns.
simd::FactorRows WeightGradient::factor_rows(std::int64_t tile_rows, std::int64_t index,
                                             std::int64_t channels, float* factors) const {
  const std::int64_t lanes = kernels_.lanes;
  const std::int64_t stride = spread_tiles(tile_rows * plan_.columns.tiles);
  return {.row = nullptr,
          .element_step = 0,
          .width = channels,
          .repeats = plan_.columns.tiles,
          .row_step = 0,
          .target = factors + index * plan_.columns.tiles * lanes,
          .target_factor = stride * channels,
          .target_step = lanes,
          .target_vector = stride * lanes};
}

void WeightGradient::multiply(const Buffers& buffers, std::int64_t tiles, int vertical,
                              int horizontal) const {
  const std::int64_t stride = spread_tiles(tiles);
  const float* data = buffers.data.data() + horizontal * stride * plan_.in_channels;
  const float* gradient = buffers.gradient.data() + horizontal * stride * plan_.out_channels;
  const int factor = 3 * vertical + horizontal;
  const std::int64_t lanes = kernels_.lanes;
  const std::int64_t channels = kernels_.channels;
  for (std::int64_t s = 0; s < out_strips_.count; ++s) {
    for (std::int64_t in = 0; in < plan_.in_channels; in += channels) {
      kernels_.multiply_matrix({.a = data + in / lanes * stride * lanes + in % lanes,
                                .a_row = 1,
                                .a_depth = lanes,
                                .rows = static_cast<int>(channels),
                                .b = gradient + out_strips_.first(s) * stride * lanes,
                                .b_depth = lanes,
                                .b_vector = stride * lanes,
                                .vectors = out_strips_.size(s),
                                .depth = tiles,
                                .start = nullptr,
                                .adds = false,
                                .ahead = data,
                                .ahead_step = 0,
                                .sums = buffers.products +
                                        (factor * plan_.in_channels + in) * plan_.out_channels +
                                        out_strips_.first(s) * lanes,
                                .sums_row = plan_.out_channels});
    }
  }
}

void WeightGradient::add_taps(const Buffers& buffers, std::int64_t phase, bool adds,
                              float* sums) const {
  const std::int64_t matrix = plan_.in_channels * plan_.out_channels;
  for (int r = 0; r < 2; ++r) {
    for (int c = 0; c < 2; ++c) {
      const std::int64_t tap = plan_.rows.tap(phase / plan_.stride.w, r) * 2 * plan_.stride.w +
                               plan_.columns.tap(phase % plan_.stride.w, c);
      simd::SignedRows rows{.width = matrix,
                            .repeats = 1,
                            .target = sums + tap * matrix,
                            .target_vector = kernels_.lanes,
                            .adds = adds};
      set_terms(rows, output_terms(r), output_terms(c),
                [&](int i, int j) { return buffers.products + (3 * i + j) * matrix; });
      kernels_.add_rows(rows);
    }
  }
}

void WeightGradient::store(const float* sums, float* gradient) const {
  const std::int64_t row = plan_.out_channels;
  parallel_for(0, plan_.in_channels, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t in = begin; in < end; ++in) {
      kernels_.transpose(sums + in * row, plan_.in_channels * row, plan_.taps(), row,
                         gradient + in * row * plan_.taps(), plan_.taps());
    }
  });
}

}  // namespace tenon::ops::cpu::winograd
