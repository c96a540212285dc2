#include <algorithm>
#include <optional>

#include "tenon/core/cpu/sum.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/batched/convolution.h"
#include "tenon/ops/cpu/batched/lane_groups.h"
#include "tenon/ops/cpu/batched/lane_products.h"
#include "tenon/ops/cpu/batched/lane_weight_gradient.h"
#include "tenon/ops/cpu/ordered_commit.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {
namespace {

/// Floats of a group's windows and of its weight gradient's sums, at most: what the caches hold.
constexpr std::int64_t kMostElements = 5 << 16;

void add(const Scratch<float>& part, const Scratch<float>& sum) {
  for (std::int64_t i = 0; i < part.size(); ++i) sum.data()[i] += part.data()[i];
}

/// A window of y's gradient, without a border.
LaneWindow plain_window(const simd::Kernels& kernels, std::int64_t channels, Pair size) {
  return {kernels, channels, size.h, size.w, size.h, size.w, 0, 0, 1};
}

/// Which taps of conv2d there are, and its window of x.
struct WeightGradientPlan {
  LaneProducts products;
  LaneWindow still;
  LaneWeightGradient gradient;

  WeightGradientPlan(const simd::Kernels& kernels, const LaneProblem& problem)
      : products(LaneProducts::conv2d(kernels, problem)),
        still(plain_window(kernels, problem.out_channels, problem.out)),
        gradient(kernels, still, products.window(), problem.stride.h,
                 products.phases().front().taps) {}

  std::int64_t still_size() const { return still.rows() * still.row_size(); }
  std::int64_t moving_size() const {
    return products.window().rows() * products.window().row_size();
  }
  bool fits() const {
    return std::max(still_size() + moving_size(), gradient.size()) <= kMostElements;
  }
};

LaneProblem problem_of(const Shape& x, const Shape& y, Pair kernel, const Conv2dOptions& options) {
  return lane_problem(x, y, kernel, options.stride, options.padding, options.dilation);
}

/// The backward of a transposed convolution and its chain, a group of images at a time: y again,
/// row by row, which turns the gradient of z into that of y in place; of it conv2d is x's gradient,
/// and its products with x are the weight's.
class Backward {
 public:
  Backward(const simd::Kernels& kernels, const Shape& x, const Shape& z, Pair kernel,
           const ConvTranspose2dOptions& options)
      : kernels_(kernels),
        groups_(x[0], kernels.lanes),
        forward_(LaneProducts::transposed(
            kernels,
            lane_problem(x, z, kernel, options.stride, options.padding, options.dilation))),
        backward_(LaneProducts::conv2d(kernels, lane_problem(z, x, kernel, options.stride,
                                                             options.padding, options.dilation))),
        gradient_(kernels, forward_.window(), backward_.window(), options.stride.h,
                  backward_.phases().front().taps) {}

  bool suits() const {
    return groups_.fill_lanes() &&
           std::max(x_size() + dy_size(), gradient_.size()) <= kMostElements;
  }

  struct Operands {
    const float *x, *grad_out;
    Tensor weights, gradient_weights;  // packed
    const simd::Chain* chain;
    float *grad_x, *grad_weight, *grad_bias;  // null where not wanted
  };

  WeightStrides forward_strides() const {
    return {taps(), forward_.problem().out_channels * taps()};
  }
  WeightStrides backward_strides() const {
    return {forward_.problem().out_channels * taps(), taps()};
  }
  Tensor forward_weights(const Tensor& weight) const {
    return forward_.packed_weights(weight, forward_strides());
  }
  Tensor backward_weights(const Tensor& weight) const {
    return backward_.packed_weights(weight, backward_strides());
  }

  void run(const Operands& operands, const Tensor& bias) const {
    const std::int64_t channels = forward_.problem().out_channels;
    const Scratch<float> start(std::max(channels, forward_.problem().in_channels));
    start.fill_zero();
    const Scratch<float> zeros(start.size());
    zeros.fill_zero();
    if (bias.defined()) std::copy_n(bias.data<float>(), channels, start.data());
    const Scratch<float> weight_sums(operands.grad_weight != nullptr ? gradient_.size() : 0);
    const Scratch<float> bias_sums(channels);
    weight_sums.fill_zero();
    bias_sums.fill_zero();
    OrderedCommit commit;
    parallel_for(0, groups_.count(), 1, [&](std::int64_t index, std::int64_t) {
      const Buffers buffers(*this, weight_sums.size());
      commit.run(
          index,
          [&] { run_group(operands, groups_.group(index), start.data(), zeros.data(), buffers); },
          [&] {
            add(buffers.weight_sums, weight_sums);
            add(buffers.bias_sums, bias_sums);
          });
    });
    if (operands.grad_weight != nullptr) {
      gradient_.store(weight_sums.data(), backward_strides(), operands.grad_weight);
    }
    if (operands.grad_bias != nullptr) {
      std::copy_n(bias_sums.data(), channels, operands.grad_bias);
    }
  }

 private:
  /// A group's memory.
  struct Buffers {
    Buffers(const Backward& b, std::int64_t weight_size)
        : x(b.x_size()),
          dy(b.dy_size()),
          sums(std::max(b.forward_.sums_size(), b.backward_.sums_size())),
          weight_sums(weight_size),
          bias_sums(b.forward_.problem().out_channels) {
      weight_sums.fill_zero();
      bias_sums.fill_zero();
    }
    Scratch<float> x, dy;  // windows of forward_ and backward_
    Scratch<float> sums;   // of a row
    Scratch<float> weight_sums, bias_sums;
  };

  std::int64_t taps() const { return forward_.problem().kernel.h * forward_.problem().kernel.w; }
  std::int64_t x_size() const { return forward_.window().rows() * forward_.window().row_size(); }
  std::int64_t dy_size() const { return backward_.window().rows() * backward_.window().row_size(); }

  void run_group(const Operands& operands, const LaneGroup& group, const float* start,
                 const float* zeros, const Buffers& buffers) const {
    forward_.window().pack(operands.x, group, 0, forward_.window().rows(), buffers.x.data());
    backward_.window().pack(operands.grad_out, group, 0, backward_.window().rows(),
                            buffers.dy.data());
    for (std::int64_t q = 0; q < forward_.q_rows(); ++q) {
      for (std::size_t phase = 0; phase < forward_.phases().size(); ++phase) {
        if (q < forward_.phases()[phase].rows) compute_dy(operands, q, phase, start, buffers);
      }
    }
    if (operands.grad_bias != nullptr) sum_bias(buffers);
    if (operands.grad_x != nullptr) compute_grad_x(operands, group, zeros, buffers);
    if (operands.grad_weight != nullptr) {
      gradient_.add(buffers.x.data(), buffers.dy.data(), buffers.weight_sums.data());
    }
  }

  /// Turns the gradient of z into dy at the outputs of a row of q of one phase, which lie side by
  /// side in the window of dy.
  void compute_dy(const Operands& operands, std::int64_t q, std::size_t index, const float* start,
                  const Buffers& buffers) const {
    const LanePhase& phase = forward_.phases()[index];
    const LaneWindow& window = backward_.window();
    forward_.multiply_row(index, buffers.x.data() + q * forward_.window().row_size(),
                          operands.weights.data<float>(), start, buffers.sums.data());
    const std::int64_t row = window.top() + phase.row + q * forward_.step().h;
    for (std::int64_t c = 0; c < window.channels(); ++c) {
      kernels_.gradient(*operands.chain, buffers.sums.data() + c * forward_.sums_stride(),
                        buffers.dy.data() + window.offset(c, row, window.left() + phase.column),
                        phase.columns * kernels_.lanes);
    }
  }

  void sum_bias(const Buffers& buffers) const {
    const LaneWindow& window = backward_.window();
    for (std::int64_t c = 0; c < window.channels(); ++c) {
      float sum = 0;
      for (std::int64_t row = 0; row < window.height(); ++row) {
        for (const LanePhase& phase : forward_.phases()) {
          if (phase.row > 0) continue;  // of each part of the columns, one
          sum += tenon::cpu::sum_neighbours(
              buffers.dy.data() +
                  window.offset(c, window.top() + row, window.left() + phase.column),
              phase.columns * kernels_.lanes);
        }
      }
      buffers.bias_sums.data()[c] += sum;
    }
  }

  void compute_grad_x(const Operands& operands, const LaneGroup& group, const float* zeros,
                      const Buffers& buffers) const {
    const LaneProblem& p = backward_.problem();
    const std::int64_t plane = p.out.h * p.out.w;
    for (std::int64_t row = 0; row < p.out.h; ++row) {
      backward_.multiply_row(
          0, buffers.dy.data() + backward_.window_row(row) * backward_.window().row_size(),
          operands.gradient_weights.data<float>(), zeros, buffers.sums.data());
      for (std::int64_t c = 0; c < p.out_channels; ++c) {
        kernels_.unpack_lanes(
            {buffers.sums.data() + c * backward_.sums_stride(), 0, 1, 0}, p.out.w,
            operands.grad_x + (group.first * p.out_channels + c) * plane + row * p.out.w,
            p.out_channels * plane, group.count);
      }
    }
  }

  const simd::Kernels& kernels_;
  LaneGroups groups_;
  LaneProducts forward_, backward_;
  LaneWeightGradient gradient_;
};

}  // namespace

bool batched_weight_gradient_suits(const Shape& x, const Shape& y, Pair kernel,
                                   const Conv2dOptions& options) {
  const simd::Kernels& kernels = simd::kernels();
  return options.groups == 1 && LaneGroups(x[0], kernels.lanes).fill_lanes() &&
         WeightGradientPlan(kernels, problem_of(x, y, kernel, options)).fits();
}

void batched_weight_gradient(const Tensor& x, const Tensor& grad_out, const Conv2dOptions& options,
                             const Tensor& grad_weight) {
  const simd::Kernels& kernels = simd::kernels();
  const Pair kernel{grad_weight.size(2), grad_weight.size(3)};
  const std::int64_t taps = kernel.h * kernel.w;
  const WeightGradientPlan plan(kernels, problem_of(x.shape(), grad_out.shape(), kernel, options));
  const LaneGroups groups(x.size(0), kernels.lanes);
  const Scratch<float> total(plan.gradient.size());
  total.fill_zero();
  OrderedCommit commit;
  parallel_for(0, groups.count(), 1, [&](std::int64_t index, std::int64_t) {
    const Scratch<float> sums(total.size());
    commit.run(
        index,
        [&] {
          const LaneGroup group = groups.group(index);
          const Scratch<float> still(plan.still_size());
          const Scratch<float> moving(plan.moving_size());
          plan.still.pack(grad_out.data<float>(), group, 0, plan.still.rows(), still.data());
          plan.products.window().pack(x.data<float>(), group, 0, plan.products.window().rows(),
                                      moving.data());
          sums.fill_zero();
          plan.gradient.add(still.data(), moving.data(), sums.data());
        },
        [&] { add(sums, total); });
  });
  plan.gradient.store(total.data(), {grad_weight.size(1) * taps, taps}, grad_weight.data<float>());
}

bool batched_backward_suits(const Shape& x, const Shape& z, Pair kernel,
                            const ConvTranspose2dOptions& options) {
  return options.groups == 1 && Backward(simd::kernels(), x, z, kernel, options).suits();
}

void batched_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Tensor& grad_out, const ConvTranspose2dOptions& options,
                      const simd::Chain& chain, const Tensor& grad_x, const Tensor& grad_weight,
                      const Tensor& grad_bias) {
  const auto data = [](const Tensor& tensor) {
    return tensor.defined() ? tensor.data<float>() : nullptr;
  };
  const Pair kernel{weight.size(2), weight.size(3)};
  const Backward backward(simd::kernels(), x.shape(), grad_out.shape(), kernel, options);
  backward.run({.x = x.data<float>(),
                .grad_out = grad_out.data<float>(),
                .weights = backward.forward_weights(weight),
                .gradient_weights = grad_x.defined() ? backward.backward_weights(weight) : Tensor(),
                .chain = &chain,
                .grad_x = data(grad_x),
                .grad_weight = data(grad_weight),
                .grad_bias = data(grad_bias)},
               bias);
}

}  // namespace tenon::ops::cpu
