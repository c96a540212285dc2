#include "tenon/ops/cuda/fused/conv_transpose2d_epilogue.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/channels_last.h"
#include "tenon/ops/cuda/conv.h"
#include "tenon/ops/cuda/fused/backward.h"
#include "tenon/ops/cuda/fused/epilogue_pass.h"
#include "tenon/ops/cuda/fused/kernel_choice.h"

namespace tenon::ops::cuda {
namespace {

Conv2dOptions adjoint(const ConvTranspose2dOptions& options) {
  return {options.stride, options.padding, options.dilation, options.groups};
}

/// y in channels-last memory, without the bias.
Tensor convolve_channels_last(const Tensor& x, const Tensor& weight, const Conv2dOptions& options,
                              const TensorSpec& spec) {
  const Tensor y = empty_channels_last(spec);
  run_in_format(ConvolutionKind::DataGradient, y, weight, x, options);
  return y;
}

/// cuDNN, then one pass.
void library_path(const Tensor& x, const Tensor& weight, const Tensor& bias,
                  const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                  const Tensor& z) {
  if (wants_channels_last(x.dtype()) && !z.is_contiguous(MemoryFormat::ChannelsLast)) {
    const Tensor y = convolve_channels_last(to_channels_last(x), weight_channels_last(weight),
                                            adjoint(options), z.spec());
    epilogue_pass_from_channels_last(y, bias, epilogue, z);
    return;
  }
  conv_transpose2d(x, weight, {}, options, z);
  epilogue_pass(z, bias, epilogue);
}

/// How a batch is cut for the backward, which computes y again: in equal slices, and so few images
/// in one that y and what stands beside it stay small beside what the caller has anyway.
struct BatchSlices {
  std::int64_t images;  ///< of a slice; of the last, what is left
  std::int64_t count;

  BatchSlices(const TensorSpec& x, const TensorSpec& grad_out) {
    // y, which becomes its own gradient, and x and its gradient in channels-last memory.
    constexpr std::size_t kMostBytes = std::size_t{192} << 20;
    const std::int64_t batch = std::max<std::int64_t>(1, x.shape[0]);
    const auto bytes = static_cast<double>(item_size(x.dtype)) *
                       static_cast<double>(grad_out.shape.numel() + 2 * x.shape.numel());
    const auto least = static_cast<std::int64_t>(std::ceil(bytes / kMostBytes));
    count = std::clamp<std::int64_t>(least, 1, batch);
    // Slices of one size want one plan of each convolution.
    for (std::int64_t even = count; even <= std::min(2 * count, batch); ++even) {
      if (batch % even != 0) continue;
      count = even;
      break;
    }
    images = (batch + count - 1) / count;
    count = (batch + images - 1) / images;
  }

  /// Slice `index` of a tensor [N, ...]; undefined for an undefined one.
  Tensor part(const Tensor& tensor, std::int64_t index) const {
    if (!tensor.defined() || count == 1) return tensor;
    const std::int64_t first = index * images;
    return images_of(tensor, first, std::min(images, tensor.shape()[0] - first));
  }
};

/// A gradient that is a sum over slices: each writes a part, of which the sum is formed in float32
/// at least and in the order of the slices. With one slice that writes the gradient itself.
class SlicedGradient {
 public:
  /// `gradient` may be undefined: then all of this does nothing.
  SlicedGradient(const Tensor& gradient, std::int64_t slices) : gradient_(gradient) {
    if (!gradient.defined() || slices == 1) return;
    part_ = tenon::detail::make_empty(gradient.spec(), gradient.strides());
    TensorSpec spec = gradient.spec();
    if (item_size(spec.dtype) < item_size(DType::Float32)) spec.dtype = DType::Float32;
    sum_ = tenon::detail::make_empty(spec);
    summand_ = tenon::detail::make_empty(spec);
  }

  /// Where a slice writes.
  const Tensor& part() const { return part_.defined() ? part_ : gradient_; }
  void add(std::int64_t slice) const {
    if (!part_.defined()) return;
    kernels::copy(part_, slice == 0 ? sum_ : summand_);
    if (slice > 0) kernels::add(sum_, summand_, sum_);
  }
  void finish() const {
    if (part_.defined()) kernels::copy(sum_, gradient_);
  }

 private:
  Tensor gradient_;
  Tensor part_;
  Tensor sum_;
  Tensor summand_;
};

/// The gradients from one slice of the batch.
void backward_of_slice(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& grad_out, const ConvTranspose2dOptions& options,
                       const Epilogue& epilogue, const Tensor& grad_x, const Tensor& grad_weight,
                       const Tensor& grad_bias) {
  const Conv2dOptions convolution = adjoint(options);
  if (!wants_channels_last(x.dtype())) {
    const Tensor y = tenon::detail::make_empty(grad_out.spec(), grad_out.strides());
    conv_transpose2d(x, weight, {}, options, y);
    epilogue_gradient_pass(y, bias, grad_out, epilogue, grad_bias);
    if (grad_x.defined()) conv2d(y, weight, {}, convolution, grad_x);
    if (grad_weight.defined()) conv2d_weight_grad(y, x, convolution, grad_weight);
    return;
  }
  const Tensor x_last = to_channels_last(x);
  const Tensor weight_last = weight_channels_last(weight);
  // y at first, its gradient after the pass.
  const Tensor y = convolve_channels_last(x_last, weight_last, convolution, grad_out.spec());
  if (grad_out.is_contiguous()) {
    epilogue_gradient_pass_channels_last(y, bias, grad_out, epilogue, grad_bias);
  } else {
    epilogue_gradient_pass(y, bias, grad_out, epilogue, grad_bias);
  }
  if (grad_x.defined()) conv2d(y, weight_last, {}, convolution, grad_x);
  if (grad_weight.defined()) conv2d_weight_grad(y, x_last, convolution, grad_weight);
}

}  // namespace

void conv_transpose2d_epilogue(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                               const Tensor& z) {
  // The kernels read and write planes.
  if (!x.is_contiguous() || !z.is_contiguous()) {
    library_path(x, weight, bias, options, epilogue, z);
    return;
  }
  const auto run = [&](const KernelPlan* plan) {
    if (plan == nullptr) {
      library_path(x, weight, bias, options, epilogue, z);
    } else {
      run_kernel_plan(*plan, x, weight, bias, options, epilogue, z);
    }
  };
  run(choose_kernel(BlockProblem::of(x.spec(), weight.shape(), z.shape(), options, epilogue), run));
}

std::string conv_transpose2d_epilogue_kernel(const TensorSpec& x, const Shape& weight,
                                             const Shape& z, const ConvTranspose2dOptions& options,
                                             const Epilogue& epilogue) {
  return kernel_name(BlockProblem::of(x, weight, z, options, epilogue));
}

void conv_transpose2d_epilogue_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                        const Tensor& grad_out,
                                        const ConvTranspose2dOptions& options,
                                        const Epilogue& epilogue, const Tensor& grad_x,
                                        const Tensor& grad_weight, const Tensor& grad_bias) {
  if (backward_by_kernels(x, weight, bias, grad_out, options, epilogue, grad_x, grad_weight,
                          grad_bias)) {
    return;
  }
  const BatchSlices slices(x.spec(), grad_out.spec());
  SlicedGradient weight_sum(grad_weight, slices.count);
  SlicedGradient bias_sum(grad_bias, slices.count);
  for (std::int64_t slice = 0; slice < slices.count; ++slice) {
    const auto part = [&](const Tensor& batch) { return slices.part(batch, slice); };
    backward_of_slice(part(x), weight, bias, part(grad_out), options, epilogue, part(grad_x),
                      weight_sum.part(), bias_sum.part());
    weight_sum.add(slice);
    bias_sum.add(slice);
  }
  weight_sum.finish();
  bias_sum.finish();
}

std::string conv_transpose2d_epilogue_backward_kernels(const TensorSpec& x, const Shape& weight,
                                                       const Shape& z,
                                                       const ConvTranspose2dOptions& options,
                                                       const Epilogue& epilogue) {
  const std::string names = backward_kernel_names(x, weight, z, options, epilogue);
  return names.empty() ? "cuDNN and one pass" : names;
}

}  // namespace tenon::ops::cuda
