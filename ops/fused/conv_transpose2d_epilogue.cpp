#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

#include <cmath>

#include "tenon/core/autograd.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/activation.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/compare.h"
#include "tenon/ops/conv_rules.h"
#include "tenon/ops/cpu/fused/conv_transpose2d_epilogue.h"
#include "tenon/ops/cuda/fused/conv_transpose2d_epilogue.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/image_format.h"

namespace tenon::ops {
namespace {

void append(Attributes& attributes, const Epilogue& epilogue) {
  attributes.push_back({"mish", epilogue.mish});
  attributes.push_back({"add", epilogue.add});
  attributes.push_back({"min", epilogue.min});
  attributes.push_back({"max", epilogue.max});
  attributes.push_back({"scale", epilogue.scale});
  attributes.push_back({"gradient_at_bounds", epilogue.gradient_at_bounds});
}

void check_epilogue(std::string_view op, const Epilogue& epilogue) {
  TENON_CHECK(!std::isnan(epilogue.add) && !std::isnan(epilogue.scale), op,
              ": add and scale must not be NaN, got ", epilogue.add, " and ", epilogue.scale);
  TENON_CHECK(epilogue.min < epilogue.max, op, ": min must be below max, got min=", epilogue.min,
              " and max=", epilogue.max);
}

Tensor optional_contiguous(std::span<const Tensor> inputs, std::size_t i, bool there) {
  return there ? inputs[i].contiguous() : Tensor();
}

/// The gradient of y from that of z, in ops that have a derivative.
Tensor epilogue_gradient(const Epilogue& epilogue, const Tensor& y, const Tensor& grad_out) {
  Tensor value = y;
  Tensor slope;  // mish'(y)
  if (epilogue.mish) {
    const Tensor gate = tanh(softplus(y));
    value = mul(y, gate);
    slope = add(gate, mul(mul(y, sigmoid(y)), sub(1, mul(gate, gate))));
  }
  Tensor grad = mul(grad_out, epilogue.scale);
  if (epilogue.clamps()) {
    const Tensor shifted = add(value, epilogue.add);
    const bool at_bounds = epilogue.gradient_at_bounds;
    const Tensor above = at_bounds ? ge(shifted, epilogue.min) : gt(shifted, epilogue.min);
    const Tensor below = at_bounds ? le(shifted, epilogue.max) : lt(shifted, epilogue.max);
    grad = mul(grad, logical_and(above, below).to(grad.dtype()));
  }
  return epilogue.mish ? mul(grad, slope) : grad;
}

}  // namespace

bool Epilogue::clamps() const {
  return min != -std::numeric_limits<double>::infinity() ||
         max != std::numeric_limits<double>::infinity();
}

Attributes ConvTranspose2dEpilogueOp::attributes() const {
  Attributes result = attributes_of(options_);
  append(result, epilogue_);
  return result;
}

std::vector<TensorSpec> ConvTranspose2dEpilogueOp::infer(std::span<const TensorSpec> inputs) const {
  check_epilogue(name(), epilogue_);
  return {infer_conv_transpose2d(name(), options_, inputs)};
}

std::vector<Tensor> ConvTranspose2dEpilogueOp::forward(std::span<const Tensor> inputs,
                                                       std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[0], inputs[1]});
  const Tensor z = kernel_result(outputs[0], format);
  const Tensor x = kernel_operand(inputs[0]);
  const Tensor weight = kernel_operand(inputs[1]);
  const Tensor bias = optional_contiguous(inputs, 2, inputs.size() > 2);
  TENON_DISPATCH(z.device(), conv_transpose2d_epilogue(x, weight, bias, options_, epilogue_, z));
  return {finished(z, format)};
}

Saved ConvTranspose2dEpilogueOp::saved(IndexMask /*needs_grad*/) const {
  return {.inputs = index_bit(0) | index_bit(1) | index_bit(2)};
}

std::string ConvTranspose2dEpilogueOp::kernel([[maybe_unused]] const TensorSpec& x,
                                              [[maybe_unused]] const TensorSpec& weight,
                                              [[maybe_unused]] const TensorSpec& z) const {
#ifdef TENON_WITH_CUDA
  if (x.device.is_cuda()) {
    return cuda::conv_transpose2d_epilogue_kernel(x, weight.shape, z.shape, options_, epilogue_) +
           ", backward " +
           cuda::conv_transpose2d_epilogue_backward_kernels(x, weight.shape, z.shape, options_,
                                                            epilogue_);
  }
#endif
  return "cpu fused kernel";
}

std::vector<Tensor> ConvTranspose2dEpilogueOp::backward(
    const BackwardContext& context, std::span<const Tensor> grad_outputs) const {
  const std::size_t count = context.input_count();
  const bool has_bias = count > 2;
  const EpilogueGradients wanted{.x = context.needs_grad(0),
                                 .weight = context.needs_grad(1),
                                 .bias = has_bias && context.needs_grad(2)};
  const Tensor x = context.input(0);
  const Tensor weight = context.input(1);
  const Tensor bias = has_bias ? context.input(2) : Tensor();
  std::vector<Tensor> result(count);
  if (grad_enabled()) {
    const Tensor y = conv_transpose2d(x, weight, bias, options_);
    const Tensor grad = epilogue_gradient(epilogue_, y, grad_outputs[0]);
    if (wanted.x) result[0] = conv_transpose2d_grad_x(grad, weight, x.shape(), options_);
    if (wanted.weight) {
      result[1] = conv_transpose2d_grad_weight(grad, x, weight.shape(), options_);
    }
    if (wanted.bias) result[2] = sum_to_channels(grad);
    return result;
  }
  std::vector<Tensor> inputs{x, weight};
  if (has_bias) inputs.push_back(bias);
  inputs.push_back(grad_outputs[0]);
  const std::vector<Tensor> gradients =
      call(std::make_shared<const ConvTranspose2dEpilogueBackwardOp>(options_, epilogue_, wanted),
           inputs);
  std::size_t next = 0;
  if (wanted.x) result[0] = gradients[next++];
  if (wanted.weight) result[1] = gradients[next++];
  if (wanted.bias) result[2] = gradients[next++];
  return result;
}

Attributes ConvTranspose2dEpilogueBackwardOp::attributes() const {
  Attributes result = attributes_of(options_);
  append(result, epilogue_);
  result.push_back({"grad_x", wanted_.x});
  result.push_back({"grad_weight", wanted_.weight});
  result.push_back({"grad_bias", wanted_.bias});
  return result;
}

std::vector<TensorSpec> ConvTranspose2dEpilogueBackwardOp::infer(
    std::span<const TensorSpec> inputs) const {
  check_epilogue(name(), epilogue_);
  const TensorSpec y =
      infer_conv_transpose2d(name(), options_, inputs.subspan(0, inputs.size() - 1));
  TENON_CHECK(inputs.back() == y, name(), ": grad_out must be ", y, ", got ", inputs.back());
  TENON_CHECK(!wanted_.bias || inputs.size() == 4, name(),
              ": there is no bias to want a gradient of");
  std::vector<TensorSpec> result;
  if (wanted_.x) result.push_back(inputs[0]);
  if (wanted_.weight) result.push_back(inputs[1]);
  if (wanted_.bias) result.push_back(inputs[2]);
  return result;
}

std::vector<Tensor> ConvTranspose2dEpilogueBackwardOp::forward(
    std::span<const Tensor> inputs, std::span<const TensorSpec> outputs) const {
  const Tensor x = kernel_operand(inputs[0]);
  const Tensor weight = kernel_operand(inputs[1]);
  const Tensor bias = optional_contiguous(inputs, 2, inputs.size() == 4);
  const Tensor grad_out = kernel_operand(inputs.back());
  // The formats that the unfused gradients have.
  const MemoryFormat x_format = result_format({inputs.back(), inputs[1]});
  const MemoryFormat weight_format = result_format({inputs.back(), inputs[0]});
  std::size_t next = 0;
  const Tensor grad_x = wanted_.x ? kernel_result(outputs[next++], x_format) : Tensor();
  const Tensor grad_weight =
      wanted_.weight ? kernel_result(outputs[next++], weight_format) : Tensor();
  const Tensor grad_bias = wanted_.bias ? tenon::detail::make_empty(outputs[next++]) : Tensor();
  TENON_DISPATCH(x.device(),
                 conv_transpose2d_epilogue_backward(x, weight, bias, grad_out, options_, epilogue_,
                                                    grad_x, grad_weight, grad_bias));
  std::vector<Tensor> results;
  if (wanted_.x) results.push_back(finished(grad_x, x_format));
  if (wanted_.weight) results.push_back(finished(grad_weight, weight_format));
  if (wanted_.bias) results.push_back(grad_bias);
  return results;
}

Tensor conv_transpose2d_epilogue(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                 const ConvTranspose2dOptions& options, const Epilogue& epilogue) {
  const ConvTranspose2dEpilogueOp op(options, epilogue);
  const Tensor batch = x.dim() == 3 ? x.unsqueeze(0) : x;
  const Tensor z = bias.defined() ? apply(op, {batch, weight, bias}) : apply(op, {batch, weight});
  return x.dim() == 3 ? z.squeeze(0) : z;
}

}  // namespace tenon::ops
