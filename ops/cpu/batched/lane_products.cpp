#include "tenon/ops/cpu/batched/lane_products.h"

#include <algorithm>
#include <string>
#include <utility>

#include "tenon/core/derived.h"
#include "tenon/core/factories.h"
#include "tenon/ops/fused/phases.h"

namespace tenon::ops::cpu {
namespace {

/// Floats of sums that are stored together.
constexpr std::int64_t kSumsElements = 1 << 14;

/// How the window of a transposed convolution lies along one axis.
struct Border {
  std::int64_t before = 0, size = 0;

  explicit Border(const PhaseAxis& axis) : size(axis.input) {
    std::int64_t end = axis.input;
    for (std::int64_t phase = 0; phase < std::min(axis.stride, axis.output); ++phase) {
      for (std::int64_t k = axis.first_tap(phase); k < axis.kernel; k += axis.tap_step()) {
        before = std::max(before, -axis.tap_shift(phase, k));
        end = std::max(end, axis.output_count(phase) + axis.tap_shift(phase, k));
      }
    }
    size = before + end;
  }
};

}  // namespace

LaneProducts LaneProducts::conv2d(const simd::Kernels& kernels, const LaneProblem& p) {
  LanePhase phase{.row = 0, .column = 0, .rows = p.out.h, .columns = p.out.w, .taps = {}};
  for (std::int64_t ky = 0; ky < p.kernel.h; ++ky) {
    for (std::int64_t kx = 0; kx < p.kernel.w; ++kx) {
      phase.taps.push_back({ky * p.dilation.h, kx * p.dilation.w, ky * p.kernel.w + kx});
    }
  }
  const auto size = [](std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation) {
    return std::max(padding + in, (out - 1) * stride + (kernel - 1) * dilation + 1);
  };
  const LaneWindow window(kernels, p.in_channels, p.in.h, p.in.w,
                          size(p.in.h, p.out.h, p.kernel.h, p.stride.h, p.padding.h, p.dilation.h),
                          size(p.in.w, p.out.w, p.kernel.w, p.stride.w, p.padding.w, p.dilation.w),
                          p.padding.h, p.padding.w, p.stride.w);
  return {kernels, p, window, Pair(1), p.stride.h, {std::move(phase)}};
}

LaneProducts LaneProducts::transposed(const simd::Kernels& kernels, const LaneProblem& p) {
  const PhaseAxis rows{p.in.h, p.out.h, p.kernel.h, p.stride.h, p.padding.h, p.dilation.h};
  const PhaseAxis columns{p.in.w, p.out.w, p.kernel.w, p.stride.w, p.padding.w, p.dilation.w};
  const Border row_border(rows);
  const Border column_border(columns);
  std::vector<LanePhase> phases;
  for (std::int64_t row = 0; row < std::min(p.stride.h, p.out.h); ++row) {
    for (std::int64_t column = 0; column < std::min(p.stride.w, p.out.w); ++column) {
      LanePhase& phase = phases.emplace_back(LanePhase{.row = row,
                                                       .column = column,
                                                       .rows = rows.output_count(row),
                                                       .columns = columns.output_count(column),
                                                       .taps = {}});
      for (std::int64_t ky = rows.first_tap(row); ky < p.kernel.h; ky += rows.tap_step()) {
        for (std::int64_t kx = columns.first_tap(column); kx < p.kernel.w;
             kx += columns.tap_step()) {
          phase.taps.push_back({row_border.before + rows.tap_shift(row, ky),
                                column_border.before + columns.tap_shift(column, kx),
                                ky * p.kernel.w + kx});
        }
      }
    }
  }
  const LaneWindow window(kernels, p.in_channels, p.in.h, p.in.w, row_border.size,
                          column_border.size, row_border.before, column_border.before, 1);
  return {kernels, p, window, p.stride, 1, std::move(phases)};
}

LaneProducts::LaneProducts(const simd::Kernels& kernels, const LaneProblem& problem,
                           const LaneWindow& window, Pair step, std::int64_t row_step,
                           std::vector<LanePhase> phases)
    : kernels_(kernels),
      problem_(problem),
      window_(window),
      step_(step),
      row_step_(row_step),
      phases_(std::move(phases)),
      blocks_(problem.out_channels, kernels.channels) {
  for (const LanePhase& phase : phases_) {
    q_rows_ = std::max(q_rows_, phase.rows);
    q_columns_ = std::max(q_columns_, phase.columns);
    std::vector<std::int32_t>& offsets = offsets_.emplace_back();
    for (const LaneTap& tap : phase.taps) {
      reach_ = std::max(reach_, tap.row + 1);
      for (std::int64_t c = 0; c < problem_.in_channels; ++c) {
        offsets.push_back(static_cast<std::int32_t>(window_.offset(c, tap.row, tap.column)));
      }
    }
    weight_offsets_.push_back(weight_count_);
    weight_count_ += depth(phase) * problem_.out_channels;
  }
  const std::int64_t row = sums_size();  // of one row of q
  sums_rows_ = std::clamp<std::int64_t>(kSumsElements / row, 1, q_rows_);
}

bool LaneProducts::leaves_gaps() const {
  return std::any_of(phases_.begin(), phases_.end(), [&](const LanePhase& phase) {
    return phase.rows != q_rows_ || phase.columns != q_columns_;
  });
}

Tensor LaneProducts::packed_weights(const Tensor& weight, const WeightStrides& strides) const {
  // What decides the order, besides the weight's shape.
  std::string name = "batched convolution";
  for (const std::int64_t number :
       {strides.out, step_.h, step_.w, window_.top(), window_.left(), problem_.padding.h,
        problem_.padding.w, problem_.dilation.h, problem_.dilation.w, problem_.out.h,
        problem_.out.w, std::int64_t{kernels_.channels}}) {
    name += ' ' + std::to_string(number);
  }
  return derived(weight, name, [&] {
    const Tensor packed = empty({weight_count_}, {.dtype = DType::Float32});
    pack_weights(weight.data<float>(), strides, packed.data<float>());
    return packed;
  });
}

void LaneProducts::pack_weights(const float* weight, const WeightStrides& strides,
                                float* packed) const {
  for (const LanePhase& phase : phases_) {
    for (std::int64_t b = 0; b < blocks_.count; ++b) {
      const float* block = weight + blocks_.first(b) * strides.out;
      for (const LaneTap& tap : phase.taps) {
        for (std::int64_t in = 0; in < problem_.in_channels; ++in) {
          const float* source = block + in * strides.in + tap.index;
          for (int c = 0; c < blocks_.size(b); ++c) *packed++ = source[c * strides.out];
        }
      }
    }
  }
}

void LaneProducts::multiply_row(std::size_t index, const float* rows, const float* weights,
                                const float* start, float* sums) const {
  const LanePhase& phase = phases_[index];
  const std::int64_t lanes = kernels_.lanes;
  const std::int64_t terms = depth(phase);
  for (std::int64_t column = 0; column < phase.columns;) {
    // Four vectors are better two and two than three and one.
    const std::int64_t left = phase.columns - column;
    const std::int64_t count = left == 4 ? 2 : std::min<std::int64_t>(left, kernels_.vectors);
    simd::Product product{.vectors = {},
                          .vector_count = static_cast<int>(count),
                          .channels = 0,
                          .depth = terms,
                          .offsets = offsets_[index].data(),
                          .weights = nullptr,
                          .start = nullptr,
                          .sums = nullptr,
                          .sums_stride = sums_stride()};
    for (std::int64_t v = 0; v < count; ++v) product.vectors[v] = rows + (column + v) * lanes;
    for (std::int64_t b = 0; b < blocks_.count; ++b) {
      const std::int64_t first = blocks_.first(b);
      product.channels = blocks_.size(b);
      product.weights = weights + weight_offsets_[index] + first * terms;
      product.start = start + first;
      product.sums = sums + first * sums_stride() + column * lanes;
      simd::sum_products(kernels_, product);
    }
    column += count;
  }
}

void LaneProducts::multiply_rows(std::int64_t first, std::int64_t count, const float* rows,
                                 const float* weights, const float* start, float* sums) const {
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::size_t index = 0; index < phases_.size(); ++index) {
      if (first + i >= phases_[index].rows) continue;
      multiply_row(index, rows + window_row(i) * window_.row_size(), weights, start,
                   sums + sums_offset(index, i));
    }
  }
}

void LaneProducts::copy_run(const float* sums, std::int64_t count, float* target) const {
  for (std::int64_t part = 0; part < std::min(step_.w, count); ++part) {
    copy_vectors(kernels_.lanes, (count - part + step_.w - 1) / step_.w,
                 sums + part * part_stride(), 1, target + part * kernels_.lanes, step_.w);
  }
}

void LaneProducts::unpack(const float* sums, const LaneGroup& group, std::int64_t first,
                          std::int64_t count, const Images<float>& y) const {
  const std::int64_t width = problem_.out.w;
  const std::int64_t plane = problem_.out.h * width;
  const std::int64_t row = first * step_.h;
  const std::int64_t rows = std::min(count * step_.h, problem_.out.h - row);
  // Rows whose sums follow each other without a gap are stored as one.
  const bool joins = q_columns_ * step_.w == width;
  const std::int64_t runs = joins ? 1 : rows;
  float* target = y.data + group.first * problem_.out_channels * plane;
  if (y.side_by_side) {
    target += row * width * kernels_.lanes;
    for (std::int64_t c = 0; c < problem_.out_channels; ++c) {
      float* to = target + c * plane * kernels_.lanes;
      for (std::int64_t run = 0; run < runs; ++run, to += rows / runs * width * kernels_.lanes) {
        copy_run(sums + c * sums_stride() + run * row_stride(), rows / runs * width, to);
      }
    }
    return;
  }
  target += row * width;
  for (std::int64_t c = 0; c < problem_.out_channels; ++c) {
    for (std::int64_t run = 0; run < runs; ++run) {
      kernels_.unpack_lanes(
          {sums + c * sums_stride() + run * row_stride(), 0, step_.w, part_stride()},
          rows / runs * width, target + c * plane + run * width, problem_.out_channels * plane,
          group.count);
    }
  }
}

}  // namespace tenon::ops::cpu
