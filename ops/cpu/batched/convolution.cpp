#include "tenon/ops/cpu/batched/convolution.h"

#include <algorithm>

#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/batched/lane_groups.h"
#include "tenon/ops/cpu/batched/lane_products.h"
#include "tenon/ops/cpu/batched/lane_weight_gradient.h"
#include "tenon/ops/cpu/ordered_commit.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {
namespace {

/// Floats of the rows of a window that one row of results reads, at most: a part of a usual
/// second-level cache. So many rows are packed at once.
constexpr std::int64_t kWindowElements = 1 << 16;
/// At least so many pieces of work for each thread, where there are rows enough.
constexpr std::int64_t kItemsOfThread = 4;

LaneProblem problem_of(const Shape& x, const Shape& y, Pair kernel, const Conv2dOptions& options) {
  return lane_problem(x, y, kernel, options.stride, options.padding, options.dilation);
}

LaneProblem problem_of(const Shape& x, const Shape& z, Pair kernel,
                       const ConvTranspose2dOptions& options) {
  return lane_problem(x, z, kernel, options.stride, options.padding, options.dilation);
}

bool rows_fit(const LaneProducts& products) {
  return products.window_rows(1) * products.window().row_size() <= kWindowElements;
}

/// A convolution, and the chain behind it, a few rows of a group of images at a time.
class Forward {
 public:
  Forward(const LaneProducts& products, const Tensor& weights, const Tensor& bias,
          const simd::Chain* chain)
      : kernels_(simd::kernels()),
        products_(products),
        groups_(products.problem().batch, kernels_.lanes),
        weights_(weights),
        bias_(products.problem().out_channels),
        chain_(chain) {
    bias_.fill_zero();
    if (bias.defined()) std::copy_n(bias.data<float>(), bias_.size(), bias_.data());
    const std::int64_t wanted = kItemsOfThread * num_threads();
    const std::int64_t parts = (wanted + groups_.count() - 1) / groups_.count();
    rows_ = std::max<std::int64_t>(1, (products_.q_rows() + parts - 1) / parts);
    const std::int64_t row = products_.window().row_size();
    while (rows_ > 1 && products_.window_rows(rows_) * row > kWindowElements) --rows_;
  }

  /// Results do not depend on the cut, which the number of threads has a part in.
  void run(const float* x, float* y) const {
    const std::int64_t parts = (products_.q_rows() + rows_ - 1) / rows_;
    parallel_for(0, groups_.count() * parts, 1, [&](std::int64_t item, std::int64_t) {
      const LaneGroup group = groups_.group(item / parts);
      const std::int64_t first = item % parts * rows_;
      const std::int64_t end = std::min(first + rows_, products_.q_rows());
      const LaneWindow& window = products_.window();
      const Scratch<float> rows(products_.window_rows(rows_) * window.row_size());
      const Scratch<float> sums(products_.step().w * products_.sums_size());
      sums.fill_zero();
      window.pack(x, group, products_.window_row(first), products_.window_rows(end - first),
                  rows.data());
      for (std::int64_t q = first; q < end; ++q) {
        run_row(group, q,
                rows.data() +
                    (products_.window_row(q) - products_.window_row(first)) * window.row_size(),
                sums, y);
      }
    });
  }

 private:
  /// All outputs of a row of q.
  void run_row(const LaneGroup& group, std::int64_t q, const float* rows,
               const Scratch<float>& sums, float* y) const {
    const Pair step = products_.step();
    const LaneProblem& p = products_.problem();
    std::size_t phase = 0;
    while (phase < products_.phases().size()) {
      const std::int64_t row = products_.phases()[phase].row + q * step.h;
      std::int64_t columns = 0;  // phases that share the row
      for (const std::size_t first = phase;
           phase < products_.phases().size() &&
           products_.phases()[phase].row == products_.phases()[first].row;
           ++phase, ++columns) {
        if (row < p.out.h) {
          products_.multiply_row(phase, rows, weights_.data<float>(), bias_.data(),
                                 sums.data() + columns * products_.sums_size());
        }
      }
      if (row >= p.out.h) continue;
      if (chain_ != nullptr) {
        kernels_.apply(*chain_, sums.data(), columns * products_.sums_size());
      }
      unpack_row(group, row, sums, y);
    }
  }

  void unpack_row(const LaneGroup& group, std::int64_t row, const Scratch<float>& sums,
                  float* y) const {
    const LaneProblem& p = products_.problem();
    const std::int64_t plane = p.out.h * p.out.w;
    for (std::int64_t c = 0; c < p.out_channels; ++c) {
      kernels_.unpack_lanes(
          {sums.data() + c * products_.sums_stride(), 0, products_.step().w, products_.sums_size()},
          p.out.w, y + (group.first * p.out_channels + c) * plane + row * p.out.w,
          p.out_channels * plane, group.count);
    }
  }

  const simd::Kernels& kernels_;
  const LaneProducts& products_;
  LaneGroups groups_;
  Tensor weights_;
  Scratch<float> bias_;
  const simd::Chain* chain_;
  std::int64_t rows_;  // of q, in an item
};

}  // namespace

bool batched_conv2d_suits(const Shape& x, const Shape& y, Pair kernel,
                          const Conv2dOptions& options) {
  const simd::Kernels& kernels = simd::kernels();
  return options.groups == 1 && LaneGroups(x[0], kernels.lanes).fill_lanes() &&
         rows_fit(LaneProducts::conv2d(kernels, problem_of(x, y, kernel, options)));
}

void batched_conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Conv2dOptions& options, const Tensor& y) {
  const Pair kernel{weight.size(2), weight.size(3)};
  const std::int64_t taps = kernel.h * kernel.w;
  const LaneProducts products =
      LaneProducts::conv2d(simd::kernels(), problem_of(x.shape(), y.shape(), kernel, options));
  Forward(products, products.packed_weights(weight, {weight.size(1) * taps, taps}), bias, nullptr)
      .run(x.data<float>(), y.data<float>());
}

bool batched_transposed_suits(const Shape& x, const Shape& z, Pair kernel,
                              const ConvTranspose2dOptions& options) {
  const simd::Kernels& kernels = simd::kernels();
  return options.groups == 1 && LaneGroups(x[0], kernels.lanes).fill_lanes() &&
         rows_fit(LaneProducts::transposed(kernels, problem_of(x, z, kernel, options)));
}

void batched_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const ConvTranspose2dOptions& options, const simd::Chain* chain,
                        const Tensor& z) {
  const Pair kernel{weight.size(2), weight.size(3)};
  const std::int64_t taps = kernel.h * kernel.w;
  const LaneProducts products =
      LaneProducts::transposed(simd::kernels(), problem_of(x.shape(), z.shape(), kernel, options));
  Forward(products, products.packed_weights(weight, {taps, weight.size(1) * taps}), bias, chain)
      .run(x.data<float>(), z.data<float>());
}

}  // namespace tenon::ops::cpu
