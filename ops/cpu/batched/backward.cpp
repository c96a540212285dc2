#include <algorithm>
#include <vector>

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

/// The window of an image without a border.
LaneWindow plain_window(const simd::Kernels& kernels, std::int64_t channels, Pair size) {
  return {kernels, channels, size.h, size.w, size.h, size.w, 0, 0, 1};
}

/// conv2d from y's gradient back to x, which at stride 1 reads x's position p + tap of the weight
/// gradient's sum where that reads y's p - tap.
LaneProblem reversed(const LaneProblem& p) {
  return {.batch = p.batch,
          .in_channels = p.out_channels,
          .out_channels = p.in_channels,
          .in = p.out,
          .out = p.in,
          .kernel = p.kernel,
          .stride = p.stride,
          .padding = {(p.kernel.h - 1) * p.dilation.h - p.padding.h,
                      (p.kernel.w - 1) * p.dilation.w - p.padding.w},
          .dilation = p.dilation};
}

/// How the weight gradient of conv2d is summed: y's gradient lies still and x moves under it. At
/// stride 1 it may be the other way round, which pays where x has more channels: a block of them is
/// multiplied at once.
struct WeightGradientPlan {
  bool turned;  // whether x lies still
  LaneProducts products;
  LaneWindow still;
  LaneWeightGradient gradient;

  WeightGradientPlan(const simd::Kernels& kernels, const LaneProblem& problem)
      : turned(turns(problem)),
        products(LaneProducts::conv2d(kernels, turned ? reversed(problem) : problem)),
        still(plain_window(kernels, products.problem().out_channels, products.problem().out)),
        gradient(kernels, still, products.window(), problem.stride.h, taps(problem)) {}

  static bool turns(const LaneProblem& p) {
    const Pair padding = reversed(p).padding;
    return p.stride == Pair(1) && p.in_channels > p.out_channels && padding.h >= 0 &&
           padding.w >= 0;
  }
  std::vector<LaneTap> taps(const LaneProblem& problem) const {
    std::vector<LaneTap> taps = products.phases().front().taps;
    for (LaneTap& tap : taps) {
      if (turned) tap.index = problem.kernel.h * problem.kernel.w - 1 - tap.index;
    }
    return taps;
  }
  /// How `gradient` finds its way through a weight [Cout, Cin, kH, kW].
  WeightStrides strides(const Tensor& weight) const {
    const std::int64_t in = weight.size(2) * weight.size(3);
    const std::int64_t out = weight.size(1) * in;
    return turned ? WeightStrides{in, out} : WeightStrides{out, in};
  }

  std::int64_t still_size() const { return still.rows() * still.row_size(); }
  std::int64_t moving_size() const {
    return products.window().rows() * products.window().row_size();
  }
  bool fits() const {
    return std::max(still_size() + moving_size(), gradient.size()) <= kMostElements;
  }
};

/// The backward of a transposed convolution and its chain, a group of images at a time: y again,
/// row by row, which turns the gradient of z into that of y in place; of it conv2d is x's gradient,
/// and its products with x are the weight's.
class Backward {
 public:
  Backward(const simd::Kernels& kernels, const Shape& x, const Shape& z, Pair kernel,
           const ConvTranspose2dOptions& options)
      : kernels_(kernels),
        groups_(x[0], kernels.lanes),
        forward_(LaneProducts::transposed(kernels, problem_of(x, z, kernel, options))),
        backward_(LaneProducts::conv2d(kernels, problem_of(z, x, kernel, options))),
        gradient_(kernels, forward_.window(), backward_.window(), options.stride.h,
                  backward_.phases().front().taps) {}

  bool fits() const { return std::max(x_size() + dy_size(), gradient_.size()) <= kMostElements; }

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
    const std::int64_t most = backward_.sums_rows();
    for (std::int64_t row = 0; row < backward_.q_rows(); row += most) {
      const std::int64_t count = std::min(most, backward_.q_rows() - row);
      for (std::int64_t i = 0; i < count; ++i) {
        backward_.multiply_row(
            0, buffers.dy.data() + backward_.window_row(row + i) * backward_.window().row_size(),
            operands.gradient_weights.data<float>(), zeros,
            buffers.sums.data() + backward_.sums_offset(0, i));
      }
      backward_.unpack(buffers.sums.data(), group, row, count, operands.grad_x);
    }
  }

  const simd::Kernels& kernels_;
  LaneGroups groups_;
  LaneProducts forward_, backward_;
  LaneWeightGradient gradient_;
};

}  // namespace

bool batched_weight_gradient(const Tensor& x, const Tensor& grad_out, const Conv2dOptions& options,
                             const Tensor& grad_weight) {
  if (!fills_lanes(x, options.groups)) return false;
  const simd::Kernels& kernels = simd::kernels();
  const Pair kernel{grad_weight.size(2), grad_weight.size(3)};
  const WeightGradientPlan plan(kernels, problem_of(x.shape(), grad_out.shape(), kernel, options));
  if (!plan.fits()) return false;
  const float* still_data = plan.turned ? x.data<float>() : grad_out.data<float>();
  const float* moving_data = plan.turned ? grad_out.data<float>() : x.data<float>();
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
          plan.still.pack(still_data, group, 0, plan.still.rows(), still.data());
          plan.products.window().pack(moving_data, group, 0, plan.products.window().rows(),
                                      moving.data());
          sums.fill_zero();
          plan.gradient.add(still.data(), moving.data(), sums.data());
        },
        [&] { add(sums, total); });
  });
  plan.gradient.store(total.data(), plan.strides(grad_weight), grad_weight.data<float>());
  return true;
}

bool batched_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const Tensor& grad_out, const ConvTranspose2dOptions& options,
                      const simd::Chain& chain, const Tensor& grad_x, const Tensor& grad_weight,
                      const Tensor& grad_bias) {
  if (!fills_lanes(x, options.groups)) return false;
  const auto data = [](const Tensor& tensor) {
    return tensor.defined() ? tensor.data<float>() : nullptr;
  };
  const Pair kernel{weight.size(2), weight.size(3)};
  const Backward backward(simd::kernels(), x.shape(), grad_out.shape(), kernel, options);
  if (!backward.fits()) return false;
  backward.run({.x = x.data<float>(),
                .grad_out = grad_out.data<float>(),
                .weights = backward.forward_weights(weight),
                .gradient_weights = grad_x.defined() ? backward.backward_weights(weight) : Tensor(),
                .chain = &chain,
                .grad_x = data(grad_x),
                .grad_weight = data(grad_weight),
                .grad_bias = data(grad_bias)},
               bias);
  return true;
}

}  // namespace tenon::ops::cpu
