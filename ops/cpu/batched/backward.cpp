#include <algorithm>
#include <optional>

#include "tenon/ops/cpu/batched/convolution.h"
#include "tenon/ops/cpu/batched/gradient_sums.h"
#include "tenon/ops/cpu/batched/lane_groups.h"
#include "tenon/ops/cpu/batched/lane_order.h"
#include "tenon/ops/cpu/batched/lane_products.h"
#include "tenon/ops/cpu/batched/lane_weight_gradient.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {
namespace {

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

  bool fits() const {
    return gradient_fits_caches(forward_.window().size() + backward_.window().size(),
                                gradient_.size());
  }

  struct Operands {
    Images<const float> x, grad_out;
    Tensor weights, gradient_weights;  // packed
    const simd::Chain* chain;
    Images<float> grad_x;
    float *grad_weight, *grad_bias;  // null where not wanted
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
    const std::int64_t weight_size = operands.grad_weight != nullptr ? weight_elements() : 0;
    const GradientSums gradients(groups_.count(), weight_size + channels);
    gradients.for_each_chunk([&](std::int64_t begin, std::int64_t end, float* sums) {
      const Buffers buffers(*this, operands.grad_weight != nullptr);
      for (std::int64_t index = begin; index < end; ++index) {
        run_group(operands, groups_.group(index), start.data(), zeros.data(), buffers,
                  index > begin, sums + weight_size);
      }
      if (weight_size > 0) gradient_.store(buffers.weight_sums.data(), backward_strides(), sums);
    });
    if (weight_size > 0) gradients.add_up(0, weight_size, operands.grad_weight);
    if (operands.grad_bias != nullptr) {
      gradients.add_up(weight_size, channels, operands.grad_bias);
    }
  }

 private:
  /// A thread's memory.
  struct Buffers {
    Buffers(const Backward& b, bool weight)
        : x(b.forward_.window().size()),
          dy(b.backward_.window().size()),
          sums(std::max(b.forward_.sums_size(), b.backward_.sums_size())),
          weight_sums(weight ? b.gradient_.size() : 0) {}
    Scratch<float> x, dy;  // windows of forward_ and backward_
    Scratch<float> sums;   // of a row
    Scratch<float> weight_sums;
  };

  std::int64_t weight_elements() const {
    return forward_.problem().in_channels * forward_.problem().out_channels * taps();
  }
  std::int64_t taps() const { return forward_.problem().kernel.h * forward_.problem().kernel.w; }

  /// `adds` to the weight's and the bias' sums or sets them.
  void run_group(const Operands& operands, const LaneGroup& group, const float* start,
                 const float* zeros, const Buffers& buffers, bool adds, float* bias_sums) const {
    forward_.window().pack(operands.x, group, 0, forward_.window().rows(), buffers.x.data());
    backward_.window().pack(operands.grad_out, group, 0, backward_.window().rows(),
                            buffers.dy.data());
    for (std::int64_t q = 0; q < forward_.q_rows(); ++q) {
      for (std::size_t phase = 0; phase < forward_.phases().size(); ++phase) {
        if (q < forward_.phases()[phase].rows) compute_dy(operands, q, phase, start, buffers);
      }
    }
    if (operands.grad_bias != nullptr) {
      backward_.window().sum_channels(buffers.dy.data(), adds, bias_sums);
    }
    if (operands.grad_x.data != nullptr) compute_grad_x(operands, group, zeros, buffers);
    if (operands.grad_weight != nullptr) {
      gradient_.sum(buffers.x.data(), buffers.dy.data(), adds, buffers.weight_sums.data());
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

  void compute_grad_x(const Operands& operands, const LaneGroup& group, const float* zeros,
                      const Buffers& buffers) const {
    const std::int64_t most = backward_.sums_rows();
    for (std::int64_t row = 0; row < backward_.q_rows(); row += most) {
      const std::int64_t count = std::min(most, backward_.q_rows() - row);
      backward_.multiply_rows(
          row, count, buffers.dy.data() + backward_.window_row(row) * backward_.window().row_size(),
          operands.gradient_weights.data<float>(), zeros, buffers.sums.data());
      backward_.unpack(buffers.sums.data(), group, row, count, operands.grad_x);
    }
  }

  const simd::Kernels& kernels_;
  LaneGroups groups_;
  LaneProducts forward_, backward_;
  LaneWeightGradient gradient_;
};

}  // namespace

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
  const LaneOperand images(x);
  const LaneOperand gradients(grad_out);
  // As x lies, so that elementwise kernels meet both in one order.
  std::optional<LaneResult> result;
  if (grad_x.defined()) result.emplace(grad_x, images.images().side_by_side);
  backward.run({.x = images.images(),
                .grad_out = gradients.images(),
                .weights = backward.forward_weights(weight),
                .gradient_weights = grad_x.defined() ? backward.backward_weights(weight) : Tensor(),
                .chain = &chain,
                .grad_x = result ? result->images() : Images<float>{},
                .grad_weight = data(grad_weight),
                .grad_bias = data(grad_bias)},
               bias);
  if (result) result->done();
  return true;
}

}  // namespace tenon::ops::cpu
