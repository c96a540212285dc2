#include "tenon/ops/norm.h"

#include "tenon/core/autograd.h"
#include "tenon/core/structural.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/cpu/norm.h"
#include "tenon/ops/cuda/norm.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/image_format.h"
#include "tenon/ops/unary.h"

namespace tenon::ops {
namespace {

/// Where the optional inputs are.
struct Positions {
  std::size_t weight, bias, running, count;

  explicit Positions(BatchNormInputs has)
      : weight(1),
        bias(weight + (has.weight ? 1 : 0)),
        running(bias + (has.bias ? 1 : 0)),
        count(running + (has.running ? 2 : 0)) {}
};

/// The dtype in which statistics are kept.
DType statistics_dtype(DType dtype) {
  return dtype == DType::Float64 ? DType::Float64 : DType::Float32;
}

/// [1, C, 1, ...] to broadcast over x.
Shape channel_shape(const Shape& x) {
  Shape shape = Shape::filled(x.size(), 1);
  shape[1] = x[1];
  return shape;
}

Tensor as_channels(const Tensor& values, const Shape& x) {
  return values.reshape(channel_shape(x));
}

/// The gradients of x, weight and bias in ops that have a derivative.
std::vector<Tensor> differentiable_backward(const Tensor& x, const Tensor& weight,
                                            const Tensor& mean, const Tensor& inverse,
                                            const Tensor& grad, const BatchNormOptions& options) {
  const Shape shape = channel_shape(x.shape());
  const double count = static_cast<double>(x.numel()) / static_cast<double>(x.size(1));
  const auto average = [&](const Tensor& values) { return div(sum_to(values, shape), count); };
  const Tensor center = options.training ? average(x) : as_channels(mean, x.shape());
  const Tensor distance = sub(x, center);
  const Tensor scale = options.training ? rsqrt(add(average(mul(distance, distance)), options.eps))
                                        : as_channels(inverse, x.shape());
  const Tensor normal = mul(distance, scale);
  Tensor grad_x = grad;
  if (options.training) {
    grad_x = sub(sub(grad, average(grad)), mul(normal, average(mul(grad, normal))));
  }
  grad_x = mul(grad_x, scale);
  if (weight.defined()) grad_x = mul(grad_x, as_channels(weight, x.shape()));
  const Shape channels{x.size(1)};
  return {grad_x, sum_to(mul(grad, normal), shape).reshape(channels),
          sum_to(grad, shape).reshape(channels)};
}

}  // namespace

Attributes BatchNormOp::attributes() const {
  return {{"training", options_.training},
          {"momentum", options_.momentum},
          {"eps", options_.eps},
          {"weight", has_.weight},
          {"bias", has_.bias},
          {"running", has_.running}};
}

std::vector<TensorSpec> BatchNormOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = inputs[0];
  TENON_CHECK(x.shape.size() >= 2, "batch_norm: x must be [N, C] or [N, C, ...], got ", x);
  TENON_CHECK(is_floating(x.dtype), "batch_norm: needs a floating dtype, got ", x);
  TENON_CHECK(options_.eps >= 0, "batch_norm: eps must be at least 0, got ", options_.eps);
  TENON_CHECK(options_.training || has_.running,
              "batch_norm: running_mean and running_var are needed unless training");
  const std::int64_t channels = x.shape[1];
  for (std::size_t i = 1; i < inputs.size(); ++i) {
    TENON_CHECK(inputs[i].shape == Shape{channels} && inputs[i].dtype == x.dtype,
                "batch_norm: weight, bias and running statistics must be ",
                TensorSpec{{channels}, x.dtype, x.device}, " for x ", x, ", got ", inputs[i]);
  }
  if (options_.training) {
    TENON_CHECK(channels == 0 || x.shape.numel() / channels > 1,
                "batch_norm: training needs more than one value for each channel, got x ", x,
                "; use a larger batch or eval()");
  }
  const TensorSpec statistics{{channels}, statistics_dtype(x.dtype), x.device};
  return {x, statistics, statistics};
}

std::vector<Tensor> BatchNormOp::forward(std::span<const Tensor> inputs,
                                         std::span<const TensorSpec> outputs) const {
  const Positions at(has_);
  const MemoryFormat format = result_format({inputs[0]});
  const Tensor x = kernel_operand(inputs[0]);
  const Tensor weight = has_.weight ? inputs[at.weight].contiguous() : Tensor();
  const Tensor bias = has_.bias ? inputs[at.bias].contiguous() : Tensor();
  const Tensor running_mean = has_.running ? inputs[at.running] : Tensor();
  const Tensor running_var = has_.running ? inputs[at.running + 1] : Tensor();
  const Tensor y = kernel_result(outputs[0], format);
  const Tensor mean = detail::make_empty(outputs[1]);
  const Tensor inverse = detail::make_empty(outputs[2]);
  if (options_.training) {
    TENON_DISPATCH(x.device(), batch_statistics(x, options_.eps, options_.momentum, running_mean,
                                                running_var, mean, inverse));
    if (has_.running) {
      tenon::detail::bump_version(running_mean);
      tenon::detail::bump_version(running_var);
    }
  } else {
    TENON_DISPATCH(x.device(),
                   running_statistics(running_mean, running_var, options_.eps, mean, inverse));
  }
  TENON_DISPATCH(x.device(), normalize(x, mean, inverse, weight, bias, y));
  return {finished(y, format), mean, inverse};
}

Saved BatchNormOp::saved(IndexMask /*needs_grad*/) const {
  return {.inputs = index_bit(0) | (has_.weight ? index_bit(1) : kNoIndices),
          .outputs = index_bit(1) | index_bit(2)};
}

std::vector<Tensor> BatchNormOp::backward(const BackwardContext& context,
                                          std::span<const Tensor> grad_outputs) const {
  const Positions at(has_);
  const Tensor x = context.input(0);
  const Tensor weight = has_.weight ? context.input(at.weight) : Tensor();
  const Tensor mean = context.output(1);
  const Tensor inverse = context.output(2);
  std::vector<Tensor> gradients;
  if (grad_enabled()) {
    gradients = differentiable_backward(x, weight, mean.detach().to(x.dtype()),
                                        inverse.detach().to(x.dtype()), grad_outputs[0], options_);
  } else {
    std::vector<Tensor> inputs{x, mean, inverse, grad_outputs[0]};
    if (has_.weight) inputs.push_back(weight);
    gradients = call(std::make_shared<const BatchNormBackwardOp>(options_.training), inputs);
  }
  std::vector<Tensor> result(at.count);
  result[0] = gradients[0];
  if (has_.weight) result[at.weight] = gradients[1];
  if (has_.bias) result[at.bias] = gradients[2];
  return result;
}

Attributes BatchNormBackwardOp::attributes() const { return {{"training", training_}}; }

std::vector<TensorSpec> BatchNormBackwardOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = inputs[0];
  TENON_CHECK(x.shape.size() >= 2 && is_floating(x.dtype) && inputs[3] == x, name(),
              ": grad_out must be like x ", x, ", got ", inputs[3]);
  const TensorSpec channels{{x.shape[1]}, x.dtype, x.device};
  for (const std::size_t i : {1, 2}) {
    const TensorSpec statistics{channels.shape, statistics_dtype(x.dtype), x.device};
    TENON_CHECK(inputs[i] == statistics, name(), ": statistics must be ", statistics, ", got ",
                inputs[i]);
  }
  TENON_CHECK(inputs.size() < 5 || inputs[4] == channels, name(), ": weight must be ", channels,
              ", got ", inputs.back());
  return {x, channels, channels};
}

std::vector<Tensor> BatchNormBackwardOp::forward(std::span<const Tensor> inputs,
                                                 std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[0]});
  const Tensor grad_x = kernel_result(outputs[0], format);
  const Tensor grad_weight = detail::make_empty(outputs[1]);
  const Tensor grad_bias = detail::make_empty(outputs[2]);
  const Tensor x = kernel_operand(inputs[0]);
  const Tensor grad_out = inputs[3].contiguous(kernel_format(x.device(), format));
  const Tensor weight = inputs.size() > 4 ? inputs[4].contiguous() : Tensor();
  TENON_DISPATCH(x.device(), batch_norm_backward(x, inputs[1], inputs[2], grad_out, weight,
                                                 training_, grad_x, grad_weight, grad_bias));
  return {finished(grad_x, format), grad_weight, grad_bias};
}

Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor& weight, const Tensor& bias, const BatchNormOptions& options) {
  TENON_CHECK(running_mean.defined() == running_var.defined(),
              "batch_norm: running_mean and running_var come together or not at all");
  std::vector<Tensor> inputs{x};
  if (weight.defined()) inputs.push_back(weight);
  if (bias.defined()) inputs.push_back(bias);
  if (running_mean.defined()) {
    inputs.push_back(running_mean);
    inputs.push_back(running_var);
  }
  const BatchNormInputs has{
      .weight = weight.defined(), .bias = bias.defined(), .running = running_mean.defined()};
  return call(std::make_shared<const BatchNormOp>(options, has), inputs)[0];
}

}  // namespace tenon::ops
