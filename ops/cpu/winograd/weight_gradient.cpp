#include "tenon/ops/cpu/winograd/weight_gradient.h"

#include <algorithm>

#include "tenon/core/parallel.h"

namespace tenon::ops::cpu::winograd {

namespace {

/// Vectors from one vector of channels to the next: an odd number, so that those of a tile do not
/// compete for the same part of a cache.
std::int64_t spread_tiles(std::int64_t tiles) { return tiles | 1; }

}  // namespace

/// Of one member of a group.
std::int64_t WeightGradient::data_size(std::int64_t tiles) const {
  return plan_.columns.data_factors() * spread_tiles(tiles) * plan_.in_channels;
}
std::int64_t WeightGradient::gradient_size(std::int64_t tiles) const {
  return plan_.stride.w * plan_.columns.form.factors() * spread_tiles(tiles) * plan_.out_channels;
}

std::int64_t WeightGradient::factors_size(std::int64_t tiles) const {
  return 2 * (data_size(tiles) + gradient_size(tiles));
}

WeightGradient::Buffers::Buffers(const WeightGradient& g, std::int64_t tiles, float* factors_memory)
    : data(factors_memory),
      gradient(factors_memory + 2 * g.data_size(tiles)),
      products(g.plan_.columns.form.factors() * g.kernels_.channels * g.kernels_.vectors *
               g.kernels_.lanes) {}

void WeightGradient::compute(std::int64_t images, const Operand& x, const Operand& dy,
                             const Buffers& buffers, bool adds, float* sums) const {
  const std::int64_t tiles = images * plan_.rows.tiles * plan_.columns.tiles;
  for (std::int64_t row_phase = 0; row_phase < plan_.stride.h; ++row_phase) {
    for (int g = 0; g < kGroups; ++g) {
      const Group& group = plan_.rows.form.data[g];
      compute_data(images, x, row_phase, group, buffers);
      compute_gradient(images, dy, row_phase, plan_.rows.form.outputs[g], buffers);
      for (int member = 0; member < group.members; ++member) {
        for (std::int64_t phase = 0; phase < plan_.stride.w; ++phase) {
          multiply(buffers, tiles, row_phase * plan_.stride.w + phase, group.first + member, member,
                   adds, sums);
        }
      }
    }
  }
}

void WeightGradient::compute_data(std::int64_t images, const Operand& x, std::int64_t row_phase,
                                  const Group& group, const Buffers& buffers) const {
  const int tile = plan_.columns.form.tile;
  const std::int64_t tile_rows = images * plan_.rows.tiles;
  for (std::int64_t i = 0; i < tile_rows; ++i) {
    const std::int64_t top = plan_.rows.form.tile * (i % plan_.rows.tiles);
    const float* corner = x.data + i / plan_.rows.tiles * x.window.image_size() +
                          x.window.offset(top + plan_.rows.later(row_phase), 0);
    simd::FactorRows rows = factor_rows(tile_rows, i, plan_.in_channels, buffers.data);
    rows.target_member = data_size(tile_rows * plan_.columns.tiles);
    rows.element_step = plan_.in_channels;
    rows.row_step = tile * plan_.in_channels;
    set_rows(rows, group, [&](int r) { return corner + x.window.offset(r, 0); });
    kernels_.data_factors(rows, tile, plan_.columns.windows());
  }
}

void WeightGradient::compute_gradient(std::int64_t images, const Operand& dy,
                                      std::int64_t row_phase, const Group& group,
                                      const Buffers& buffers) const {
  const Form& form = plan_.columns.form;
  const std::int64_t tile_rows = images * plan_.rows.tiles;
  for (std::int64_t i = 0; i < tile_rows; ++i) {
    const std::int64_t top = plan_.rows.form.tile * (i % plan_.rows.tiles) * plan_.stride.h;
    const float* corner = dy.data + i / plan_.rows.tiles * dy.window.image_size() +
                          dy.window.offset(dy.row + top + row_phase, dy.column);
    for (std::int64_t phase = 0; phase < plan_.stride.w; ++phase) {
      simd::FactorRows rows = factor_rows(tile_rows, i, plan_.out_channels, buffers.gradient);
      rows.target_member = gradient_size(tile_rows * plan_.columns.tiles);
      rows.target += phase * form.factors() * rows.target_factor;
      rows.element_step = plan_.stride.w * plan_.out_channels;
      rows.row_step = form.tile * plan_.stride.w * plan_.out_channels;
      set_rows(rows, group,
               [&](int r) { return corner + dy.window.offset(r * plan_.stride.h, phase); });
      kernels_.output_factors(rows, form.tile);
    }
  }
}

/// Where row number `index` of `tile_rows` rows of tiles lies in the factors along the columns.
simd::FactorRows WeightGradient::factor_rows(std::int64_t tile_rows, std::int64_t index,
                                             std::int64_t channels, float* factors) const {
  const std::int64_t lanes = kernels_.lanes;
  const std::int64_t stride = spread_tiles(tile_rows * plan_.columns.tiles);
  return {.element_step = 0,
          .width = channels,
          .repeats = plan_.columns.tiles,
          .row_step = 0,
          .target = factors + index * plan_.columns.tiles * lanes,
          .target_member = 0,
          .target_factor = stride * channels,
          .target_step = lanes,
          .target_vector = stride * lanes};
}

/// What adds the products of one factor along the rows to the taps of a phase, of the first
/// channels.
simd::TapProducts WeightGradient::tap_products(const Buffers& buffers, std::int64_t phase,
                                               int vertical, bool adds, float* sums) const {
  const Form& form = plan_.rows.form;
  simd::TapProducts products{.products = buffers.products.data(),
                             .factor = 0,
                             .rows = kernels_.channels,
                             .width = 0,
                             .weights = {form.taps[vertical][0], form.taps[vertical][1]},
                             .adds = {},
                             .taps = {},
                             .tap_row = plan_.out_channels};
  for (int r = 0; r < 2; ++r) {
    // The first factor that is part of a tap is number 0 of g0, and of g1 that or the next.
    const int first = form.taps[0][r] != 0 ? 0 : 1;
    products.adds[r] = adds || vertical > first;
    for (int c = 0; c < 2; ++c) {
      const std::int64_t tap = plan_.rows.tap(phase / plan_.stride.w, r) * 2 * plan_.stride.w +
                               plan_.columns.tap(phase % plan_.stride.w, c);
      products.taps[r][c] = sums + tap * plan_.in_channels * plan_.out_channels;
    }
  }
  return products;
}

/// The part of one factor along the rows in the taps of a phase: few sums of all factors along the
/// columns at a time, which are added while they lie in the first-level cache.
void WeightGradient::multiply(const Buffers& buffers, std::int64_t tiles, std::int64_t phase,
                              int vertical, int member, bool adds, float* sums) const {
  const std::int64_t column_phase = phase % plan_.stride.w;
  const std::int64_t lanes = kernels_.lanes;
  const std::int64_t vector = spread_tiles(tiles) * lanes;  // of channels
  const std::int64_t data_step = spread_tiles(tiles) * plan_.in_channels;
  const std::int64_t gradient_step = spread_tiles(tiles) * plan_.out_channels;
  const int factors = plan_.columns.form.factors();
  const float* data = buffers.data + member * data_size(tiles) +
                      plan_.columns.first_factor(column_phase) * data_step;
  const float* gradient =
      buffers.gradient + member * gradient_size(tiles) + column_phase * factors * gradient_step;
  const simd::TapProducts first = tap_products(buffers, phase, vertical, adds, sums);
  for (std::int64_t s = 0; s < out_strips_.count; ++s) {
    const std::int64_t width = out_strips_.size(s) * lanes;
    const float* b = gradient + out_strips_.first(s) * vector;
    simd::TapProducts products = first;
    products.width = width;
    products.factor = kernels_.channels * width;
    for (auto& row : products.taps) {
      for (float*& tap : row) tap += out_strips_.first(s) * lanes;
    }
    for (std::int64_t in = 0; in < plan_.in_channels; in += lanes) {
      for (std::int64_t i = 0; i < lanes; i += kernels_.channels) {
        for (int factor = 0; factor < factors; ++factor) {
          kernels_.multiply_matrix({.a = data + factor * data_step + in * spread_tiles(tiles) + i,
                                    .a_row = 1,
                                    .a_depth = lanes,
                                    .rows = kernels_.channels,
                                    .b = b + factor * gradient_step,
                                    .b_depth = lanes,
                                    .b_vector = vector,
                                    .vectors = out_strips_.size(s),
                                    .depth = tiles,
                                    .adds = false,
                                    .ahead = data,
                                    .ahead_step = 0,
                                    .sums = buffers.products.data() + factor * products.factor,
                                    .sums_row = width});
        }
        kernels_.add_taps(products, plan_.columns.form.tile);
        for (auto& row : products.taps) {
          for (float*& tap : row) tap += kernels_.channels * plan_.out_channels;
        }
      }
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
