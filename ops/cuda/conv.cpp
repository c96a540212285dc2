#include "tenon/ops/cuda/conv.h"

#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/cudnn_conv.h"

namespace tenon::ops::cuda {
namespace {

Conv2dOptions adjoint(const ConvTranspose2dOptions& options) {
  return {options.stride, options.padding, options.dilation, options.groups};
}

/// Runs the convolution that computes one of the three tensors; an empty sum is zero.
void run(ConvolutionKind kind, const Tensor& image, const Tensor& filter, const Tensor& response,
         const Conv2dOptions& options) {
  const Tensor& result = kind == ConvolutionKind::Forward        ? response
                         : kind == ConvolutionKind::DataGradient ? image
                                                                 : filter;
  if (result.numel() == 0) return;
  if (image.numel() == 0 || filter.numel() == 0 || response.numel() == 0) {
    kernels::fill(result, 0);
    return;
  }
  run_convolution(ConvolutionProblem::of(kind, image, filter, response, options), image, filter,
                  response);
}

void add_bias(const Tensor& y, const Tensor& bias) {
  if (!bias.defined() || y.numel() == 0) return;
  const std::int64_t channels = bias.numel();
  kernels::add(y, tenon::detail::make_view(bias, {channels, 1, 1}, {1, 0, 0}, bias.body()->offset),
               y);
}

}  // namespace

void conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options,
            const Tensor& y) {
  run(ConvolutionKind::Forward, x, weight, y, options);
  add_bias(y, bias);
}

void conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const ConvTranspose2dOptions& options, const Tensor& y) {
  run(ConvolutionKind::DataGradient, y, weight, x, adjoint(options));
  add_bias(y, bias);
}

void conv2d_weight_grad(const Tensor& x, const Tensor& grad_out, const Conv2dOptions& options,
                        const Tensor& grad_weight) {
  run(ConvolutionKind::WeightGradient, x, grad_weight, grad_out, options);
}

}  // namespace tenon::ops::cuda
