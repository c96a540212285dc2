#include "tenon/ops/cpu/winograd/weight_gradient.h"

#include <algorithm>

namespace tenon::ops::cpu::winograd {

WeightGradient::Buffers::Buffers(const WeightGradient& g, std::int64_t tiles, bool wanted)
    : data(wanted ? tiles * g.plan_.in_channels : 0),
      gradient(wanted ? tiles * g.plan_.out_channels : 0),
      products(wanted ? kFactors * g.plan_.in_channels * g.plan_.out_channels : 0) {}

void WeightGradient::add(std::int64_t images, const Window& x_window, const float* x,
                         const Window& dy_window, const float* dy, std::int64_t dy_row,
                         std::int64_t dy_column, const Buffers& buffers, float* sums) const {
  const std::int64_t tile_rows = plan_.rows.tiles;
  const std::int64_t tile_columns = plan_.columns.tiles;
  const std::int64_t tiles = images * tile_rows * tile_columns;
  const std::int64_t lanes = kernels_.lanes;
  for (std::int64_t phase = 0; phase < plan_.phases(); ++phase) {
    const std::int64_t row_phase = phase / plan_.stride.w;
    const std::int64_t column_phase = phase % plan_.stride.w;
    for (int factor = 0; factor < kFactors; ++factor) {
      const int data_row = 2 * plan_.rows.later(row_phase) + factor / 3;
      const int data_column = 2 * plan_.columns.later(column_phase) + factor % 3;
      for (std::int64_t i = 0; i < images * tile_rows; ++i) {
        const std::int64_t image = i / tile_rows;
        const std::int64_t row = i % tile_rows;
        const auto rows_of = [&](std::int64_t channels, std::int64_t step, float* target) {
          return simd::SignedRows{.width = channels,
                                  .repeats = tile_columns,
                                  .row_step = step,
                                  .target = target + i * tile_columns * lanes,
                                  .target_step = lanes,
                                  .target_vector = tiles * lanes};
        };
        const float* corner = x + image * x_window.image_size() + x_window.offset(2 * row, 0);
        simd::SignedRows data =
            rows_of(plan_.in_channels, 2 * plan_.in_channels, buffers.data.data());
        set_terms(data, data_terms(data_row), data_terms(data_column),
                  [&](int r, int c) { return corner + x_window.offset(r, c); });
        kernels_.add_rows(data);
        const float* outputs = dy + image * dy_window.image_size() +
                               dy_window.offset(dy_row + 2 * row * plan_.stride.h + row_phase,
                                                dy_column + column_phase);
        simd::SignedRows gradient = rows_of(
            plan_.out_channels, 2 * plan_.stride.w * plan_.out_channels, buffers.gradient.data());
        set_terms(gradient, filter_terms(factor / 3), filter_terms(factor % 3), [&](int r, int c) {
          return outputs + dy_window.offset(r * plan_.stride.h, c * plan_.stride.w);
        });
        kernels_.add_rows(gradient);
      }
      multiply(buffers, tiles, factor);
    }
    add_taps(buffers, phase, sums);
  }
}

void WeightGradient::multiply(const Buffers& buffers, std::int64_t tiles, int factor) const {
  const std::int64_t lanes = kernels_.lanes;
  const std::int64_t channels = kernels_.channels;
  for (std::int64_t s = 0; s < out_strips_.count; ++s) {
    for (std::int64_t in = 0; in < plan_.in_channels; in += channels) {
      kernels_.multiply_matrix({.a = buffers.data.data() + in / lanes * tiles * lanes + in % lanes,
                                .a_row = 1,
                                .a_depth = lanes,
                                .rows = static_cast<int>(channels),
                                .b = buffers.gradient.data() + out_strips_.first(s) * tiles * lanes,
                                .b_depth = lanes,
                                .b_vector = tiles * lanes,
                                .vectors = out_strips_.size(s),
                                .depth = tiles,
                                .start = nullptr,
                                .adds = false,
                                .sums = buffers.products.data() +
                                        (factor * plan_.in_channels + in) * plan_.out_channels +
                                        out_strips_.first(s) * lanes,
                                .sums_row = plan_.out_channels});
    }
  }
}

void WeightGradient::add_taps(const Buffers& buffers, std::int64_t phase, float* sums) const {
  const std::int64_t matrix = plan_.in_channels * plan_.out_channels;
  for (int r = 0; r < 2; ++r) {
    for (int c = 0; c < 2; ++c) {
      const std::int64_t tap = plan_.rows.tap(phase / plan_.stride.w, r) * 2 * plan_.stride.w +
                               plan_.columns.tap(phase % plan_.stride.w, c);
      simd::SignedRows rows{.width = matrix,
                            .repeats = 1,
                            .target = sums + tap * matrix,
                            .target_vector = kernels_.lanes,
                            .adds = true};
      set_terms(rows, output_terms(r), output_terms(c),
                [&](int i, int j) { return buffers.products.data() + (3 * i + j) * matrix; });
      kernels_.add_rows(rows);
    }
  }
}

void WeightGradient::store(const float* sums, float* gradient) const {
  const std::int64_t row = plan_.out_channels;
  for (std::int64_t in = 0; in < plan_.in_channels; ++in) {
    kernels_.transpose(sums + in * row, plan_.in_channels * row, plan_.taps(), row,
                       gradient + in * row * plan_.taps(), plan_.taps());
  }
}

}  // namespace tenon::ops::cpu::winograd
