#include "tenon/ops/cpu/winograd/filters.h"

#include <string>

#include "tenon/core/derived.h"
#include "tenon/core/factories.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu::winograd {
namespace {

/// Terms that are summed before a strip's next one begins: its part of the matrix stays in the
/// first-level cache while rows pass by.
constexpr std::int64_t kDepth = 128;

/// What decides the order of packed filters, besides the weight's shape.
std::string name_of(std::string name, const Plan& plan, const Form& rows, const Form& columns,
                    const simd::Kernels& kernels) {
  for (const std::int64_t number :
       {plan.stride.h, plan.stride.w, plan.rows.phase_axis.padding, plan.columns.phase_axis.padding,
        std::int64_t{rows.tile}, std::int64_t{columns.tile}, std::int64_t{kernels.lanes}}) {
    name += ' ' + std::to_string(number);
  }
  return name;
}

}  // namespace

Filters Filters::forward(const Plan& plan, const simd::Kernels& kernels, const Tensor& weight) {
  return packed(plan, kernels, weight, false);
}

Filters Filters::gradient(const Plan& plan, const simd::Kernels& kernels, const Tensor& weight) {
  return packed(plan, kernels, weight, true);
}

Filters Filters::packed(const Plan& plan, const simd::Kernels& kernels, const Tensor& weight,
                        bool turned) {
  const Form& rows = turned ? plan.rows.input_form : plan.rows.form;
  const Form& columns = turned ? plan.columns.input_form : plan.columns.form;
  Filters filters(kernels, rows, columns, turned ? plan.out_channels : plan.in_channels,
                  turned ? plan.in_channels : plan.out_channels);
  const char* name = turned ? "minimal filters' gradient" : "minimal filters";
  filters.packed_ = derived(weight, name_of(name, plan, rows, columns, kernels), [&] {
    const Tensor matrices =
        empty({plan.phases() * filters.factors() * filters.depth_ * filters.width_});
    filters.pack(plan, weight, turned, matrices);
    return matrices;
  });
  return filters;
}

void Filters::pack(const Plan& plan, const Tensor& weight, bool turned,
                   const Tensor& packed) const {
  const std::int64_t taps = plan.taps();
  const std::int64_t kernel_width = 2 * plan.stride.w;
  // From channel to channel of the weight [in, out, taps], as the packed matrices count them.
  const std::int64_t depth_step = turned ? taps : plan.out_channels * taps;
  const std::int64_t width_step = turned ? plan.out_channels * taps : taps;
  parallel_for(0, depth_, 8, [&](std::int64_t begin, std::int64_t end) {
    const Scratch<float> by_tap(taps * width_);
    for (std::int64_t k = begin; k < end; ++k) {
      kernels_.transpose(weight.data<float>() + k * depth_step, width_step, width_, taps,
                         by_tap.data(), width_);
      for (std::int64_t i = 0; i < plan.phases() * factors(); ++i) {
        const std::int64_t phase = i / factors();
        const float(&vertical)[2] = rows_.taps[i % factors() / columns_.factors()];
        const float(&horizontal)[2] = columns_.taps[i % columns_.factors()];
        simd::WeightedRows rows{.target_vector = kernels_.lanes};
        for (int r = 0; r < 2; ++r) {
          for (int c = 0; c < 2; ++c) {
            const float weight = vertical[r] * horizontal[c];
            if (weight == 0) continue;
            const std::int64_t tap =
                plan.rows.tap(phase / plan.stride.w, turned ? 1 - r : r) * kernel_width +
                plan.columns.tap(phase % plan.stride.w, turned ? 1 - c : c);
            rows.rows[rows.count] = by_tap.data() + width_ * tap;
            rows.weights[rows.count++] = weight;
          }
        }
        for (std::int64_t s = 0; s < strips_.count; ++s) {
          rows.width = std::int64_t{strips_.size(s)} * kernels_.lanes;
          rows.target = packed.data<float>() +
                        (i * width_ + strips_.first(s) * kernels_.lanes) * depth_ + k * rows.width;
          kernels_.add_rows(rows);
          for (int r = 0; r < rows.count; ++r) rows.rows[r] += rows.width;
        }
      }
    }
  });
}

std::int64_t Filters::calls(std::int64_t rows, std::int64_t first, std::int64_t last) const {
  return (last - first) * ((depth_ + kDepth - 1) / kDepth) *
         ((rows + kernels_.channels - 1) / kernels_.channels);
}

void Filters::multiply(const float* a, std::int64_t rows, std::int64_t phase, int factor,
                       std::int64_t first, std::int64_t last, bool adds, float* sums,
                       std::int64_t sums_row, LinesAhead* ahead) const {
  const std::int64_t lanes = kernels_.lanes;
  const float* matrix = packed_.data<float>() + (phase * factors() + factor) * depth_ * width_;
  const std::int64_t blocks = (rows + kernels_.channels - 1) / kernels_.channels;
  for (std::int64_t s = first; s < last; ++s) {
    const std::int64_t column = strips_.first(s) * lanes;
    const std::int64_t width = strips_.size(s) * lanes;
    for (std::int64_t k = 0; k < depth_; k += kDepth) {
      simd::MatrixProduct product{.a = nullptr,
                                  .a_row = depth_,
                                  .a_depth = 1,
                                  .rows = 0,
                                  .b = matrix + column * depth_ + k * width,
                                  .b_depth = width,
                                  .b_vector = lanes,
                                  .vectors = strips_.size(s),
                                  .depth = std::min(kDepth, depth_ - k),
                                  .adds = adds || k > 0,
                                  .ahead = nullptr,
                                  .ahead_step = (width + blocks - 1) / blocks,
                                  .sums = nullptr,
                                  .sums_row = sums_row};
      product.ahead = product.b + product.depth * width;
      for (std::int64_t row = 0; row < rows; row += kernels_.channels) {
        product.a = a + row * depth_ + k;
        product.rows = static_cast<int>(std::min<std::int64_t>(kernels_.channels, rows - row));
        product.sums = sums + row * sums_row + column - strips_.first(first) * lanes;
        kernels_.multiply_matrix(product);
        product.ahead += product.depth * product.ahead_step;
        if (ahead != nullptr) ahead->fetch();
      }
    }
  }
}

}  // namespace tenon::ops::cpu::winograd
