#include "tenon/ops/cuda/fused/conv_transpose2d_epilogue.h"

#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/channels_last.h"
#include "tenon/ops/cuda/conv.h"
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

}  // namespace tenon::ops::cuda
