#include "tenon/ops/conv.h"

#include "tenon/core/autograd.h"
#include "tenon/core/structural.h"
#include "tenon/ops/conv_rules.h"
#include "tenon/ops/cpu/conv.h"
#include "tenon/ops/cuda/conv.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/image_format.h"

namespace tenon::ops {
namespace {

/// Sizes beyond this are no images; it keeps the arithmetic of the shape rules in range.
constexpr std::int64_t kMaxSize = std::int64_t{1} << 40;

std::vector<std::int64_t> to_list(Pair pair) { return {pair.h, pair.w}; }

bool in_range(Pair pair, std::int64_t low) {
  return pair.h >= low && pair.w >= low && pair.h <= kMaxSize && pair.w <= kMaxSize;
}

void check_options(std::string_view op, Pair stride, Pair padding, Pair dilation,
                   std::int64_t groups) {
  TENON_CHECK(in_range(stride, 1), op, ": stride must be at least 1, got ", stride);
  TENON_CHECK(in_range(padding, 0), op, ": padding must be at least 0, got ", padding,
              "; use slice to cut an image");
  TENON_CHECK(in_range(dilation, 1), op, ": dilation must be at least 1, got ", dilation);
  TENON_CHECK(groups >= 1, op, ": groups must be at least 1, got ", groups);
}

void check_images(std::string_view op, const TensorSpec& x) {
  TENON_CHECK(x.shape.size() == 4, op, ": x must be [N, Cin, H, W] or [Cin, H, W], got ", x, " (",
              x.shape.size(), " dimensions)");
  TENON_CHECK(is_floating(x.dtype), op, ": needs floating dtypes, got ", x);
  TENON_CHECK(x.shape[1] > 0 && x.shape[2] > 0 && x.shape[3] > 0, op,
              ": only the batch may be empty, got x ", x);
  TENON_CHECK(in_range({x.shape[2], x.shape[3]}, 1), op, ": x is too large: ", x);
}

/// The checks that both directions share, on (x, weight[, bias]).
void check_operands(std::string_view op, std::span<const TensorSpec> inputs,
                    std::string_view weight_layout) {
  const TensorSpec& x = inputs[0];
  const TensorSpec& weight = inputs[1];
  check_images(op, x);
  TENON_CHECK(weight.shape.size() == 4, op, ": weight must be ", weight_layout, ", got ", weight,
              " (", weight.shape.size(), " dimensions)");
  for (const TensorSpec& input : inputs) {
    TENON_CHECK(input.dtype == x.dtype, op, ": x is ", x, " but another operand is ", input,
                "; convert one with to()");
  }
  for (const std::int64_t size : weight.shape) {
    TENON_CHECK(size > 0, op, ": weight must not be empty, got ", weight);
  }
}

void check_bias(std::string_view op, std::span<const TensorSpec> inputs, std::int64_t channels) {
  if (inputs.size() < 3) return;
  TENON_CHECK(inputs[2].shape == Shape{channels}, op, ": bias must be [", channels,
              "], one number for each output channel, got ", inputs[2]);
}

/// Size of conv2d's output along one axis; below 1 where the kernel does not fit.
std::int64_t conv_size(std::int64_t size, std::int64_t kernel, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation) {
  const std::int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

/// [Cout] spatial sizes of conv2d's output, checked.
Pair conv_output(std::string_view op, const Shape& x, Pair kernel, const Conv2dOptions& options) {
  check_options(op, options.stride, options.padding, options.dilation, options.groups);
  const Pair size{
      conv_size(x[2], kernel.h, options.stride.h, options.padding.h, options.dilation.h),
      conv_size(x[3], kernel.w, options.stride.w, options.padding.w, options.dilation.w)};
  TENON_CHECK(size.h > 0 && size.w > 0, op, ": kernel ", kernel, " with dilation ",
              options.dilation, " does not fit into x ", x, " with padding ", options.padding);
  return size;
}

Conv2dOptions adjoint(const ConvTranspose2dOptions& options) {
  return {options.stride, options.padding, options.dilation, options.groups};
}

/// The transposed convolution that maps conv2d's output back onto an image of `size`.
ConvTranspose2dOptions adjoint(const Conv2dOptions& options, Pair kernel, const Shape& x) {
  const auto rest = [](std::int64_t size, std::int64_t k, std::int64_t stride, std::int64_t padding,
                       std::int64_t dilation) {
    return (size + 2 * padding - dilation * (k - 1) - 1) % stride;
  };
  return {options.stride, options.padding,
          Pair{rest(x[2], kernel.h, options.stride.h, options.padding.h, options.dilation.h),
               rest(x[3], kernel.w, options.stride.w, options.padding.w, options.dilation.w)},
          options.dilation, options.groups};
}

/// A batch of one image, from an image; anything else goes on to the shape rule.
Tensor as_batch(const Tensor& x) { return x.dim() == 3 ? x.unsqueeze(0) : x; }

template <class OpType>
Tensor apply_convolution(const OpType& op, const Tensor& x, const Tensor& weight,
                         const Tensor& bias) {
  const Tensor batch = as_batch(x);
  const Tensor y = bias.defined() ? apply(op, {batch, weight, bias}) : apply(op, {batch, weight});
  return x.dim() == 3 ? y.squeeze(0) : y;
}

Saved saved_operands(IndexMask needs_grad) {
  return {.inputs = ((needs_grad & index_bit(0)) != 0 ? index_bit(1) : kNoIndices) |
                    ((needs_grad & index_bit(1)) != 0 ? index_bit(0) : kNoIndices)};
}

Tensor bias_or_none(std::span<const Tensor> inputs) {
  return inputs.size() > 2 ? inputs[2].contiguous() : Tensor();
}

Attributes attributes_of(const Conv2dOptions& options) {
  return {{"stride", to_list(options.stride)},
          {"padding", to_list(options.padding)},
          {"dilation", to_list(options.dilation)},
          {"groups", options.groups}};
}

}  // namespace

// ---- conv2d -------------------------------------------------------------------------------------

Attributes Conv2dOp::attributes() const { return attributes_of(options_); }

std::vector<TensorSpec> Conv2dOp::infer(std::span<const TensorSpec> inputs) const {
  check_operands(name(), inputs, "[Cout, Cin/groups, kH, kW]");
  const Shape& x = inputs[0].shape;
  const Shape& weight = inputs[1].shape;
  const Pair size = conv_output(name(), x, {weight[2], weight[3]}, options_);
  TENON_CHECK(x[1] == weight[1] * options_.groups, "conv2d: x ", x, " has ", x[1],
              " channels, weight ", weight, " with groups=", options_.groups, " needs ",
              weight[1] * options_.groups);
  TENON_CHECK(weight[0] % options_.groups == 0, "conv2d: groups=", options_.groups,
              " does not divide the ", weight[0], " output channels of weight ", weight);
  check_bias(name(), inputs, weight[0]);
  return {{{x[0], weight[0], size.h, size.w}, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> Conv2dOp::forward(std::span<const Tensor> inputs,
                                      std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[0], inputs[1]});
  const Tensor y = kernel_result(outputs[0], format);
  const Tensor x = kernel_operand(inputs[0]);
  const Tensor weight = kernel_operand(inputs[1]);
  TENON_DISPATCH(y.device(), conv2d(x, weight, bias_or_none(inputs), options_, y));
  return {finished(y, format)};
}

Saved Conv2dOp::saved(IndexMask needs_grad) const { return saved_operands(needs_grad); }

std::vector<Tensor> Conv2dOp::backward(const BackwardContext& context,
                                       std::span<const Tensor> grad_outputs) const {
  const Tensor& grad = grad_outputs[0];
  const Shape& weight = context.input_spec(1).shape;
  const Pair kernel{weight[2], weight[3]};
  std::vector<Tensor> result(context.input_count());
  if (grad.device().is_cpu() && !grad_enabled() && context.needs_grad(1)) {
    const bool bias = result.size() > 2 && context.needs_grad(2);
    std::vector<Tensor> inputs{context.input(0), grad};
    if (context.needs_grad(0)) inputs.push_back(context.input(1));
    const std::vector<Tensor> gradients =
        call(std::make_shared<const Conv2dBackwardOp>(kernel, options_, bias), inputs);
    std::size_t next = 0;
    if (context.needs_grad(0)) result[0] = gradients[next++];
    result[1] = gradients[next++];
    if (bias) result[2] = gradients[next++];
    return result;
  }
  if (context.needs_grad(0)) {
    result[0] = conv_transpose2d(grad, context.input(1), {},
                                 adjoint(options_, kernel, context.input_spec(0).shape));
  }
  if (context.needs_grad(1)) {
    result[1] = conv2d_weight_grad(context.input(0), grad, kernel, options_);
  }
  if (result.size() > 2 && context.needs_grad(2)) result[2] = sum_to_channels(grad);
  return result;
}

// ---- conv_transpose2d ---------------------------------------------------------------------------

Attributes ConvTranspose2dOp::attributes() const { return attributes_of(options_); }

std::vector<TensorSpec> ConvTranspose2dOp::infer(std::span<const TensorSpec> inputs) const {
  return {infer_conv_transpose2d(name(), options_, inputs)};
}

std::vector<Tensor> ConvTranspose2dOp::forward(std::span<const Tensor> inputs,
                                               std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[0], inputs[1]});
  const Tensor y = kernel_result(outputs[0], format);
  const Tensor x = kernel_operand(inputs[0]);
  const Tensor weight = kernel_operand(inputs[1]);
  TENON_DISPATCH(y.device(), conv_transpose2d(x, weight, bias_or_none(inputs), options_, y));
  return {finished(y, format)};
}

Saved ConvTranspose2dOp::saved(IndexMask needs_grad) const { return saved_operands(needs_grad); }

std::vector<Tensor> ConvTranspose2dOp::backward(const BackwardContext& context,
                                                std::span<const Tensor> grad_outputs) const {
  const Tensor& grad = grad_outputs[0];
  std::vector<Tensor> result(context.input_count());
  if (context.needs_grad(0)) {
    result[0] =
        conv_transpose2d_grad_x(grad, context.input(1), context.input_spec(0).shape, options_);
  }
  if (context.needs_grad(1)) {
    result[1] =
        conv_transpose2d_grad_weight(grad, context.input(0), context.input_spec(1).shape, options_);
  }
  if (result.size() > 2 && context.needs_grad(2)) result[2] = sum_to_channels(grad);
  return result;
}

// ---- conv2d_weight_grad -------------------------------------------------------------------------

Attributes Conv2dWeightGradOp::attributes() const {
  Attributes result = attributes_of(options_);
  result.insert(result.begin(), Attribute{"kernel", to_list(kernel_)});
  return result;
}

std::vector<TensorSpec> Conv2dWeightGradOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = inputs[0];
  const TensorSpec& grad = inputs[1];
  check_images(name(), x);
  TENON_CHECK(grad.shape.size() == 4 && grad.dtype == x.dtype, name(),
              ": grad_out must be [N, Cout, H', W'] and of the dtype of x ", x, ", got ", grad);
  TENON_CHECK(in_range(kernel_, 1), name(), ": kernel must be at least 1, got ", kernel_);
  const Pair size = conv_output(name(), x.shape, kernel_, options_);
  TENON_CHECK(grad.shape == Shape({x.shape[0], grad.shape[1], size.h, size.w}), name(),
              ": grad_out must be [", x.shape[0], ", Cout, ", size.h, ", ", size.w, "] for x ", x,
              ", got ", grad);
  TENON_CHECK(x.shape[1] % options_.groups == 0 && grad.shape[1] % options_.groups == 0 &&
                  grad.shape[1] > 0,
              name(), ": groups=", options_.groups, " does not divide the channels of x ", x,
              " or grad_out ", grad);
  return {{{grad.shape[1], x.shape[1] / options_.groups, kernel_.h, kernel_.w}, x.dtype, x.device}};
}

std::vector<Tensor> Conv2dWeightGradOp::forward(std::span<const Tensor> inputs,
                                                std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[0], inputs[1]});
  const Tensor grad_weight = kernel_result(outputs[0], format);
  const Tensor x = kernel_operand(inputs[0]);
  const Tensor grad = kernel_operand(inputs[1]);
  TENON_DISPATCH(x.device(), conv2d_weight_grad(x, grad, options_, grad_weight));
  return {finished(grad_weight, format)};
}

Saved Conv2dWeightGradOp::saved(IndexMask needs_grad) const { return saved_operands(needs_grad); }

std::vector<Tensor> Conv2dWeightGradOp::backward(const BackwardContext& context,
                                                 std::span<const Tensor> grad_outputs) const {
  const Tensor& weight = grad_outputs[0];
  std::vector<Tensor> result(2);
  if (context.needs_grad(0)) {
    result[0] = conv_transpose2d(context.input(1), weight, {},
                                 adjoint(options_, kernel_, context.input_spec(0).shape));
  }
  if (context.needs_grad(1)) result[1] = conv2d(context.input(0), weight, {}, options_);
  return result;
}

// ---- conv2d_backward ----------------------------------------------------------------------------

Attributes Conv2dBackwardOp::attributes() const {
  Attributes result = attributes_of(options_);
  result.insert(result.begin(), Attribute{"kernel", to_list(kernel_)});
  result.push_back({"grad_bias", bias_});
  return result;
}

std::vector<TensorSpec> Conv2dBackwardOp::infer(std::span<const TensorSpec> inputs) const {
  std::vector<TensorSpec> result =
      Conv2dWeightGradOp(kernel_, options_).infer(inputs.subspan(0, 2));
  if (inputs.size() > 2) {
    TENON_CHECK(inputs[2] == result[0], name(), ": weight must be ", result[0], ", got ",
                inputs[2]);
    result.insert(result.begin(), inputs[0]);
  }
  if (bias_) result.push_back({{inputs[1].shape[1]}, inputs[1].dtype, inputs[1].device});
  return result;
}

std::vector<Tensor> Conv2dBackwardOp::forward(std::span<const Tensor> inputs,
                                              std::span<const TensorSpec> outputs) const {
  const bool data = inputs.size() > 2;
  const MemoryFormat weight_format = result_format({inputs[0], inputs[1]});
  const MemoryFormat x_format = result_format({inputs.back(), inputs[1]});
  const Tensor x = kernel_operand(inputs[0]);
  const Tensor grad = kernel_operand(inputs[1]);
  const Tensor weight = data ? kernel_operand(inputs[2]) : Tensor();
  std::size_t next = 0;
  const Tensor grad_x = data ? kernel_result(outputs[next++], x_format) : Tensor();
  const Tensor grad_weight = kernel_result(outputs[next++], weight_format);
  const Tensor grad_bias = bias_ ? tenon::detail::make_empty(outputs[next++]) : Tensor();
  TENON_DISPATCH_CPU(x.device(),
                     conv2d_backward(x, weight, grad, options_, grad_x, grad_weight, grad_bias));
  std::vector<Tensor> results;
  if (data) results.push_back(finished(grad_x, x_format));
  results.push_back(finished(grad_weight, weight_format));
  if (bias_) results.push_back(grad_bias);
  return results;
}

// ---- the functions ------------------------------------------------------------------------------

Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dOptions& options) {
  return apply_convolution(Conv2dOp(options), x, weight, bias);
}

Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const ConvTranspose2dOptions& options) {
  return apply_convolution(ConvTranspose2dOp(options), x, weight, bias);
}

Tensor conv2d_weight_grad(const Tensor& x, const Tensor& grad_out, Pair kernel,
                          const Conv2dOptions& options) {
  return apply(Conv2dWeightGradOp(kernel, options), {x, grad_out});
}

Attributes attributes_of(const ConvTranspose2dOptions& options) {
  return {{"stride", to_list(options.stride)},
          {"padding", to_list(options.padding)},
          {"output_padding", to_list(options.output_padding)},
          {"dilation", to_list(options.dilation)},
          {"groups", options.groups}};
}

TensorSpec infer_conv_transpose2d(std::string_view op, const ConvTranspose2dOptions& options,
                                  std::span<const TensorSpec> inputs) {
  check_operands(op, inputs, "[Cin, Cout/groups, kH, kW]");
  check_options(op, options.stride, options.padding, options.dilation, options.groups);
  const Shape& x = inputs[0].shape;
  const Shape& weight = inputs[1].shape;
  const Pair& extra = options.output_padding;
  TENON_CHECK(in_range(extra, 0), op, ": output_padding must be at least 0, got ", extra);
  TENON_CHECK((extra.h < options.stride.h || extra.h < options.dilation.h) &&
                  (extra.w < options.stride.w || extra.w < options.dilation.w),
              op, ": output_padding must be smaller than the stride or the dilation, got ", extra,
              " with stride ", options.stride, " and dilation ", options.dilation);
  TENON_CHECK(x[1] == weight[0], op, ": x ", x, " has ", x[1], " channels, weight ", weight,
              " needs ", weight[0]);
  TENON_CHECK(x[1] % options.groups == 0, op, ": groups=", options.groups, " does not divide the ",
              x[1], " input channels of x ", x);
  const auto size = [](std::int64_t in, std::int64_t kernel, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation, std::int64_t add) {
    return (in - 1) * stride - 2 * padding + dilation * (kernel - 1) + add + 1;
  };
  const std::int64_t height =
      size(x[2], weight[2], options.stride.h, options.padding.h, options.dilation.h, extra.h);
  const std::int64_t width =
      size(x[3], weight[3], options.stride.w, options.padding.w, options.dilation.w, extra.w);
  TENON_CHECK(height > 0 && width > 0, op, ": the output would be ", Pair{height, width}, " for x ",
              x, ", weight ", weight, ", padding ", options.padding, "; use less padding");
  const std::int64_t channels = weight[1] * options.groups;
  check_bias(op, inputs, channels);
  return {{x[0], channels, height, width}, inputs[0].dtype, inputs[0].device};
}

// With an output_padding of the stride or more (allowed below the dilation), conv2d over the output
// has more positions than x, of which x is the first part.

Tensor conv_transpose2d_grad_x(const Tensor& grad_out, const Tensor& weight, const Shape& x_shape,
                               const ConvTranspose2dOptions& options) {
  Tensor grad = conv2d(grad_out, weight, {}, adjoint(options));
  for (const std::int64_t dim : {2, 3}) {
    if (grad.size(dim) != x_shape[dim]) grad = grad.narrow(dim, 0, x_shape[dim]);
  }
  return grad;
}

Tensor conv_transpose2d_grad_weight(const Tensor& grad_out, const Tensor& x,
                                    const Shape& weight_shape,
                                    const ConvTranspose2dOptions& options) {
  Tensor padded = x;
  const Pair more{options.output_padding.h / options.stride.h,
                  options.output_padding.w / options.stride.w};
  for (const std::int64_t dim : {2, 3}) {
    const std::int64_t rows = dim == 2 ? more.h : more.w;
    if (rows == 0) continue;
    Shape shape = padded.shape();
    shape[dim] += rows;
    padded = embed(padded, shape, dim, 0, 1);
  }
  return conv2d_weight_grad(grad_out, padded, {weight_shape[2], weight_shape[3]}, adjoint(options));
}

Tensor sum_to_channels(const Tensor& grad_out) {
  return sum_to(grad_out, {1, grad_out.size(1), 1, 1}).reshape({grad_out.size(1)});
}

}  // namespace tenon::ops
