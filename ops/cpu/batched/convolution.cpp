#include "tenon/ops/cpu/batched/convolution.h"

#include <algorithm>

#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/batched/lane_groups.h"
#include "tenon/ops/cpu/batched/lane_order.h"
#include "tenon/ops/cpu/batched/lane_products.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {
namespace {

/// Floats of the rows of a window that one row of results reads, at most: a part of a usual
/// second-level cache.
constexpr std::int64_t kWindowElements = 1 << 16;
/// Vectors of the rows that are packed at once: processors with wide ones have large caches.
constexpr std::int64_t kPackedVectors = 1 << 13;
/// At least so many pieces of work for each thread, where there are rows enough.
constexpr std::int64_t kItemsOfThread = 4;

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
    while (rows_ > 1 && products_.window_rows(rows_) * row > kPackedVectors * kernels_.lanes)
      --rows_;
  }

  /// Results do not depend on the cut, which the number of threads has a part in.
  void run(const Images<const float>& x, const Images<float>& y) const {
    const std::int64_t parts = (products_.q_rows() + rows_ - 1) / rows_;
    parallel_for_shares(0, groups_.count() * parts, 1, [&](std::int64_t item, std::int64_t) {
      const LaneGroup group = groups_.group(item / parts);
      const std::int64_t first = item % parts * rows_;
      const std::int64_t end = std::min(first + rows_, products_.q_rows());
      const LaneWindow& window = products_.window();
      const Scratch<float> rows(products_.window_rows(rows_) * window.row_size());
      const Scratch<float> sums(products_.sums_size());
      if (products_.leaves_gaps()) sums.fill_zero();  // which the chain goes over, too
      window.pack(x, group, products_.window_row(first), products_.window_rows(end - first),
                  rows.data());
      for (std::int64_t q = first; q < end; q += products_.sums_rows()) {
        const std::int64_t row = products_.window_row(q) - products_.window_row(first);
        run_rows(group, q, std::min(products_.sums_rows(), end - q),
                 rows.data() + row * window.row_size(), sums, y);
      }
    });
  }

 private:
  /// All outputs of `count` rows of q from `first`, which begins at `rows` of the window.
  void run_rows(const LaneGroup& group, std::int64_t first, std::int64_t count, const float* rows,
                const Scratch<float>& sums, const Images<float>& y) const {
    products_.multiply_rows(first, count, rows, weights_.data<float>(), bias_.data(), sums.data());
    for (std::int64_t at = 0; chain_ != nullptr && at < sums.size();
         at += products_.sums_stride()) {
      kernels_.apply(*chain_, sums.data() + at, products_.run_size(count));
    }
    products_.unpack(sums.data(), group, first, count, y);
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

bool batched_conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Conv2dOptions& options, const Tensor& y) {
  if (!fills_lanes(x, options.groups)) return false;
  const Pair kernel{weight.size(2), weight.size(3)};
  const std::int64_t taps = kernel.h * kernel.w;
  const LaneProducts products =
      LaneProducts::conv2d(simd::kernels(), problem_of(x.shape(), y.shape(), kernel, options));
  if (!rows_fit(products)) return false;
  const LaneResult result(y);
  Forward(products, products.packed_weights(weight, {weight.size(1) * taps, taps}), bias, nullptr)
      .run(LaneOperand(x).images(), result.images());
  result.done();
  return true;
}

bool batched_transposed(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const ConvTranspose2dOptions& options, const simd::Chain* chain,
                        const Tensor& z) {
  if (!fills_lanes(x, options.groups)) return false;
  const Pair kernel{weight.size(2), weight.size(3)};
  const std::int64_t taps = kernel.h * kernel.w;
  const LaneProducts products =
      LaneProducts::transposed(simd::kernels(), problem_of(x.shape(), z.shape(), kernel, options));
  if (!rows_fit(products)) return false;
  const LaneResult result(z);
  Forward(products, products.packed_weights(weight, {taps, weight.size(1) * taps}), bias, chain)
      .run(LaneOperand(x).images(), result.images());
  result.done();
  return true;
}

}  // namespace tenon::ops::cpu
