#include <algorithm>
#include <optional>

#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/batched/convolution.h"
#include "tenon/ops/cpu/batched/gradient_sums.h"
#include "tenon/ops/cpu/batched/lane_groups.h"
#include "tenon/ops/cpu/batched/lane_order.h"
#include "tenon/ops/cpu/batched/lane_products.h"
#include "tenon/ops/cpu/batched/lane_weight_gradient.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {
namespace {

/// The gradients of conv2d, a group of images at a time: x and y's gradient are laid out once for
/// all of them. That of x is the transposed convolution of y's gradient. For the weight's, y's
/// gradient lies still and x moves under it; at stride 1 it may be the other way round, which pays
/// where x has more channels: a block of them is multiplied at once.
class Conv2dBackward {
 public:
  /// Null where not wanted; of `weights`, which are packed, only x's gradient makes use.
  struct Operands {
    Images<const float> x, grad_out;
    const float* weights;
    Images<float> grad_x;
    float *grad_weight, *grad_bias;
  };

  Conv2dBackward(const simd::Kernels& kernels, const Shape& x, const Shape& y, Pair kernel,
                 const Conv2dOptions& options)
      : groups_(x[0], kernels.lanes),
        turned_(options.stride == Pair(1) && x[1] > y[1]),
        forward_(LaneProducts::conv2d(kernels, problem_of(x, y, kernel, options))),
        backward_(LaneProducts::transposed(kernels, problem_of(y, x, kernel, options))),
        x_window_(turned_ ? LaneWindow(kernels, x[1], x[2], x[3], x[2], x[3], 0, 0, 1)
                          : forward_.window()),
        gradient_(kernels, turned_ ? x_window_ : backward_.window(),
                  turned_ ? backward_.window() : x_window_, options.stride.h,
                  (turned_ ? backward_ : forward_).phases().front().taps) {}

  bool fits() const {
    return gradient_fits_caches(x_window_.size() + backward_.window().size(), gradient_.size());
  }
  std::int64_t groups() const { return groups_.count(); }
  Tensor weights(const Tensor& weight) const {
    return backward_.packed_weights(weight, {taps(), weight.size(1) * taps()});
  }

  void run(const Operands& operands) const {
    const std::int64_t channels = forward_.problem().out_channels;
    const std::int64_t weights = channels * forward_.problem().in_channels * taps();
    const GradientSums gradients(groups_.count(), weights + channels);
    gradients.for_each_chunk([&](std::int64_t begin, std::int64_t end, float* sums) {
      const Buffers buffers(*this);
      for (std::int64_t index = begin; index < end; ++index) {
        run_group(operands, groups_.group(index), buffers, index > begin, sums + weights);
      }
      gradient_.store(buffers.weight_sums.data(), strides(), sums);
    });
    gradients.add_up(0, weights, operands.grad_weight);
    if (operands.grad_bias != nullptr) gradients.add_up(weights, channels, operands.grad_bias);
  }

 private:
  /// A thread's memory.
  struct Buffers {
    explicit Buffers(const Conv2dBackward& b)
        : x(b.x_window_.size()),
          grad_out(b.backward_.window().size()),
          sums(b.backward_.sums_size()),
          weight_sums(b.gradient_.size()),
          zeros(b.backward_.problem().out_channels) {
      zeros.fill_zero();
    }
    Scratch<float> x, grad_out;
    Scratch<float> sums;  // of some rows of x's gradient
    Scratch<float> weight_sums;
    Scratch<float> zeros;
  };

  std::int64_t taps() const { return forward_.problem().kernel.h * forward_.problem().kernel.w; }
  /// How `gradient_` finds its way through a weight [Cout, Cin, kH, kW].
  WeightStrides strides() const {
    const std::int64_t out = forward_.problem().in_channels * taps();
    return turned_ ? WeightStrides{taps(), out} : WeightStrides{out, taps()};
  }

  /// `adds` to the weight's and the bias' sums or sets them.
  void run_group(const Operands& operands, const LaneGroup& group, const Buffers& buffers,
                 bool adds, float* bias_sums) const {
    const LaneWindow& window = backward_.window();
    window.pack(operands.grad_out, group, 0, window.rows(), buffers.grad_out.data());
    if (operands.grad_bias != nullptr) {
      window.sum_channels(buffers.grad_out.data(), adds, bias_sums);
    }
    if (operands.grad_x.data != nullptr) compute_grad_x(operands, group, buffers);
    x_window_.pack(operands.x, group, 0, x_window_.rows(), buffers.x.data());
    const float* still = turned_ ? buffers.x.data() : buffers.grad_out.data();
    const float* moving = turned_ ? buffers.grad_out.data() : buffers.x.data();
    gradient_.sum(still, moving, adds, buffers.weight_sums.data());
  }

  void compute_grad_x(const Operands& operands, const LaneGroup& group,
                      const Buffers& buffers) const {
    const std::int64_t row_size = backward_.window().row_size();
    for (std::int64_t row = 0; row < backward_.q_rows(); row += backward_.sums_rows()) {
      const std::int64_t count = std::min(backward_.sums_rows(), backward_.q_rows() - row);
      backward_.multiply_rows(row, count,
                              buffers.grad_out.data() + backward_.window_row(row) * row_size,
                              operands.weights, buffers.zeros.data(), buffers.sums.data());
      backward_.unpack(buffers.sums.data(), group, row, count, operands.grad_x);
    }
  }

  LaneGroups groups_;
  bool turned_;  // whether x lies still
  LaneProducts forward_, backward_;
  LaneWindow x_window_;
  LaneWeightGradient gradient_;
};

/// The transposed convolution from y's gradient to x's.
ConvTranspose2dOptions adjoint(const Conv2dOptions& options) {
  return {.stride = options.stride, .padding = options.padding, .dilation = options.dilation};
}

}  // namespace

bool batched_conv2d_backward(const Tensor& x, const Tensor& weight, const Tensor& grad_out,
                             const Conv2dOptions& options, const Tensor& grad_x,
                             const Tensor& grad_weight, const Tensor& grad_bias) {
  if (!fills_lanes(x, options.groups)) return false;
  const Pair kernel{grad_weight.size(2), grad_weight.size(3)};
  const Conv2dBackward backward(simd::kernels(), x.shape(), grad_out.shape(), kernel, options);
  if (!backward.fits()) return false;
  // With threads for more than the groups, x's gradient is better cut into rows.
  const bool apart = grad_x.defined() && backward.groups() < num_threads();
  if (apart && !batched_transposed(grad_out, weight, {}, adjoint(options), nullptr, grad_x)) {
    return false;
  }
  const bool together = grad_x.defined() && !apart;
  const Tensor weights = together ? backward.weights(weight) : Tensor();
  const LaneOperand images(x);
  const LaneOperand gradients(grad_out);
  // As x lies, so that elementwise kernels meet both in one order.
  std::optional<LaneResult> result;
  if (together) result.emplace(grad_x, images.images().side_by_side);
  backward.run({.x = images.images(),
                .grad_out = gradients.images(),
                .weights = together ? weights.data<float>() : nullptr,
                .grad_x = result ? result->images() : Images<float>{},
                .grad_weight = grad_weight.data<float>(),
                .grad_bias = grad_bias.defined() ? grad_bias.data<float>() : nullptr});
  if (result) result->done();
  return true;
}

}  // namespace tenon::ops::cpu
