#include "tenon/ops/cpu/transposed/weight_gradient.h"

#include <algorithm>

namespace tenon::ops::cpu {

WeightGradient::WeightGradient(const TransposedPlan& plan, const simd::Kernels& kernels,
                               const GradientTiles& tiles)
    : plan_(plan),
      kernels_(kernels),
      tiles_(tiles),
      in_blocks_(plan.in_channels, kernels.channels),
      padded_out_((plan.out_channels + kernels.lanes - 1) / kernels.lanes * kernels.lanes) {}

WeightGradient::Buffers::Buffers(const WeightGradient& gradient, bool wanted)
    : turned_dy(wanted ? gradient.tiles_.images() * gradient.phases() * gradient.tiles_.plane() *
                             gradient.padded_out_
                       : 0),
      turned_x(wanted ? gradient.tiles_.positions() * gradient.plan_.in_channels : 0),
      sums(wanted ? gradient.size() : 0) {
  turned_dy.fill_zero();
  sums.fill_zero();
}

void WeightGradient::turn_x(const GradientItem& item, const float* x, Buffers& buffers) const {
  const std::int64_t plane = plan_.rows.input * plan_.columns.input;
  // Rows of whole images are one run.
  const bool whole = item.columns.size() == plan_.columns.input;
  const std::int64_t runs = whole ? 1 : item.rows.size();
  const std::int64_t count = item.rows.size() * item.columns.size() / runs;
  for (std::int64_t b = 0; b < in_blocks_.count; ++b) {
    const std::int64_t first = in_blocks_.first(b);
    const int size = in_blocks_.size(b);
    float* target = buffers.turned_x.data() + first * item.positions();
    for (std::int64_t i = 0; i < item.images; ++i) {
      const std::int64_t slice = (item.image + i) * plan_.groups + item.group;
      const float* source = x + slice * plan_.input_size() + first * plane +
                            item.rows.begin * plan_.columns.input + item.columns.begin;
      for (std::int64_t run = 0; run < runs; ++run, target += count * size) {
        kernels_.transpose(source + run * plan_.columns.input, plane, size, count, target, size);
      }
    }
  }
}

void WeightGradient::turn_dy(const GradientItem& item, const float* dy, Buffers& buffers) const {
  for (std::int64_t plane = 0; plane < item.images * phases(); ++plane) {
    kernels_.transpose(
        dy + plane * tiles_.phase_size(), tiles_.plane(), plan_.out_channels, tiles_.plane(),
        buffers.turned_dy.data() + plane * tiles_.plane() * padded_out_, padded_out_);
  }
}

/// Where the turned dy of the tile's positions lies, for a tap that reaches the first one's place.
void WeightGradient::list_positions(const GradientItem& item, Buffers& buffers) const {
  const std::int64_t image = phases() * tiles_.plane();
  buffers.positions.clear();
  for (std::int64_t i = 0; i < item.images; ++i) {
    for (std::int64_t row = 0; row < item.rows.size(); ++row) {
      for (std::int64_t column = 0; column < item.columns.size(); ++column) {
        buffers.positions.push_back(
            static_cast<std::int32_t>((i * image + row * tiles_.pitch() + column) * padded_out_));
      }
    }
  }
}

void WeightGradient::add(const GradientItem& item, const float* x, const float* dy,
                         Buffers& buffers) const {
  turn_x(item, x, buffers);
  turn_dy(item, dy, buffers);
  list_positions(item, buffers);
  const simd::ChannelBlocks strips(padded_out_ / kernels_.lanes, kernels_.vectors);
  float* sums = buffers.sums.data();
  for (const GradientTap& tap : tiles_.taps()) {
    const float* turned =
        buffers.turned_dy.data() +
        (static_cast<std::int64_t>(tap.phase) * tiles_.plane() + tap.place) * padded_out_;
    for (std::int64_t b = 0; b < in_blocks_.count; ++b) {
      for (std::int64_t s = 0; s < strips.count; ++s) {
        const std::int64_t column = strips.first(s) * kernels_.lanes;
        simd::Product product{
            .vectors = {},
            .vector_count = strips.size(s),
            .channels = in_blocks_.size(b),
            .depth = item.positions(),
            .offsets = buffers.positions.data(),
            .weights = buffers.turned_x.data() + in_blocks_.first(b) * item.positions(),
            .start = nullptr,
            .sums = sums + column,
            .sums_stride = padded_out_};
        for (int v = 0; v < product.vector_count; ++v) {
          product.vectors[v] = turned + column + v * kernels_.lanes;
        }
        simd::sum_products(kernels_, product);
      }
      sums += in_blocks_.size(b) * padded_out_;
    }
  }
}

void WeightGradient::store(const float* sums, float* gradient) const {
  const std::int64_t taps = plan_.kernel.h * plan_.kernel.w;
  std::fill_n(gradient, plan_.groups * plan_.group_weights(), 0.0f);
  for (std::int64_t group = 0; group < plan_.groups; ++group) {
    float* target = gradient + group * plan_.group_weights();
    for (const GradientTap& tap : tiles_.taps()) {
      for (std::int64_t ci = 0; ci < plan_.in_channels; ++ci, sums += padded_out_) {
        for (std::int64_t co = 0; co < plan_.out_channels; ++co) {
          target[(ci * plan_.out_channels + co) * taps + tap.kernel] = sums[co];
        }
      }
    }
  }
}

}  // namespace tenon::ops::cpu
