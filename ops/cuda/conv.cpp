#include "tenon/ops/cuda/conv.h"

#include <cstdint>

#include "tenon/core/derived.h"
#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/channels_last.h"
#include "tenon/ops/cuda/cudnn_conv.h"

namespace tenon::ops::cuda {
namespace {

Conv2dOptions adjoint(const ConvTranspose2dOptions& options) {
  return {options.stride, options.padding, options.dilation, options.groups};
}

const Tensor& result_of(ConvolutionKind kind, const Tensor& image, const Tensor& filter,
                        const Tensor& response) {
  switch (kind) {
    case ConvolutionKind::Forward:
      return response;
    case ConvolutionKind::DataGradient:
      return image;
    case ConvolutionKind::WeightGradient:
      return filter;
  }
  tenon::detail::fail("convolution: unknown kind");
}

/// `t` where cuDNN can read it: plans are made for addresses that 16 divides, and a contiguous view
/// may begin anywhere.
Tensor aligned(const Tensor& t) {
  if (reinterpret_cast<std::uintptr_t>(t.raw_data()) % 16 == 0) return t;
  const Tensor copy =
      tenon::detail::make_empty(t.spec(), preserved_strides(t.shape(), t.strides()));
  kernels::copy(t, copy);
  return copy;
}

/// The shape of conv2d's response to `image`. It is larger than `response` where a transposed
/// convolution's output_padding reaches the stride, as a dilation beyond the stride allows.
Shape whole_response(const Tensor& image, const Tensor& weight, const Tensor& response,
                     const Conv2dOptions& options) {
  const auto size = [](std::int64_t image_size, std::int64_t kernel, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation) {
    return (image_size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  };
  Shape shape = response.shape();
  shape[2] = size(image.shape()[2], weight.shape()[2], options.stride.h, options.padding.h,
                  options.dilation.h);
  shape[3] = size(image.shape()[3], weight.shape()[3], options.stride.w, options.padding.w,
                  options.dilation.w);
  return shape;
}

/// The convolution of a response of that larger shape, of which `response` is the part that counts:
/// as an operand it is zero elsewhere, as a result it is cut.
void run_whole(ConvolutionKind kind, const Tensor& image, const Tensor& weight,
               const Tensor& response, const Shape& shape, const Conv2dOptions& options) {
  const TensorSpec spec{shape, response.dtype(), response.device()};
  const Tensor whole = tenon::detail::make_empty(spec, response.suggest_memory_format());
  const Tensor part = tenon::detail::make_view(whole, response.shape(), whole.strides(), 0);
  if (kind != ConvolutionKind::Forward) {
    kernels::fill(whole, 0);
    kernels::copy(response, part);
  }
  run_in_format(kind, image, weight, whole, options);
  if (kind == ConvolutionKind::Forward) kernels::copy(part, response);
}

void add_bias(const Tensor& y, const Tensor& bias) {
  if (!bias.defined() || y.numel() == 0) return;
  const std::int64_t channels = bias.numel();
  kernels::add(y, tenon::detail::make_view(bias, {channels, 1, 1}, {1, 0, 0}, bias.body()->offset),
               y);
}

/// The convolution in channels-last memory where that is faster, otherwise in contiguous memory;
/// operands that are not there are converted, and so is the result. `bias`, of the result's
/// channels, may be undefined.
void run(ConvolutionKind kind, const Tensor& image, const Tensor& filter, const Tensor& response,
         const Conv2dOptions& options, const Tensor& bias = {}) {
  const Tensor& result = result_of(kind, image, filter, response);
  if (image.numel() == 0 || filter.numel() == 0 || response.numel() == 0) {
    run_in_format(kind, image, filter, response, options);
    add_bias(result, bias);
    return;
  }
  const bool channels_last = wants_channels_last(image.dtype());
  const MemoryFormat format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const auto converted = [&](const Tensor& t) {
    if (t.is_contiguous(format)) return tenon::detail::with_strides_of(t, format);
    if (t.is_same(result)) return tenon::detail::make_empty(t.spec(), format);
    if (!channels_last) return t.contiguous();
    return t.is_same(filter) ? weight_channels_last(t) : to_channels_last(t);
  };
  const Tensor i = converted(image);
  const Tensor f = converted(filter);
  const Tensor r = converted(response);
  run_in_format(kind, i, f, r, options);
  const Tensor& computed = result_of(kind, i, f, r);
  if (!result.is_contiguous(format)) {
    if (channels_last && result.is_contiguous()) {
      from_channels_last(computed, bias, result);
      return;
    }
    kernels::copy(computed, result);
  }
  add_bias(result, bias);
}

}  // namespace

bool wants_channels_last(DType dtype) {
  return dtype == DType::Float16 || dtype == DType::BFloat16 ||
         (dtype == DType::Float32 && float32_precision() == Float32Precision::Tf32);
}

void run_in_format(ConvolutionKind kind, const Tensor& image, const Tensor& weight,
                   const Tensor& response, const Conv2dOptions& options) {
  const Tensor& result = result_of(kind, image, weight, response);
  if (result.numel() == 0) return;
  if (image.numel() == 0 || weight.numel() == 0 || response.numel() == 0) {
    kernels::fill(result, 0);  // an empty sum
    return;
  }
  const Shape whole = whole_response(image, weight, response, options);
  if (whole != response.shape()) {
    run_whole(kind, image, weight, response, whole, options);
    return;
  }
  const auto readable = [&](const Tensor& t) { return t.is_same(result) ? t : aligned(t); };
  const Tensor i = readable(image);
  const Tensor w = readable(weight);
  const Tensor r = readable(response);
  run_convolution(ConvolutionProblem::of(kind, i, w, r, options), i, w, r);
}

Tensor weight_channels_last(const Tensor& weight) {
  if (weight.is_contiguous(MemoryFormat::ChannelsLast)) {
    return tenon::detail::with_strides_of(weight, MemoryFormat::ChannelsLast);
  }
  return derived(weight, "channels_last", [&] {
    if (weight.is_contiguous()) return to_channels_last(weight);
    const Tensor result = empty_channels_last(weight.spec());
    kernels::copy(weight, result);
    return result;
  });
}

void conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options,
            const Tensor& y) {
  run(ConvolutionKind::Forward, x, weight, y, options, bias);
}

void conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                      const ConvTranspose2dOptions& options, const Tensor& y) {
  run(ConvolutionKind::DataGradient, y, weight, x, adjoint(options), bias);
}

void conv2d_weight_grad(const Tensor& x, const Tensor& grad_out, const Conv2dOptions& options,
                        const Tensor& grad_weight) {
  run(ConvolutionKind::WeightGradient, x, grad_weight, grad_out, options);
}

}  // namespace tenon::ops::cuda
