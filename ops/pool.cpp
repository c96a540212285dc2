#include "tenon/ops/pool.h"

#include "tenon/ops/cpu/pool.h"
#include "tenon/ops/cuda/pool.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/image_format.h"

namespace tenon::ops {
namespace {

constexpr std::int64_t kMaxSize = std::int64_t{1} << 40;

bool in_range(Pair pair, std::int64_t low) {
  return pair.h >= low && pair.w >= low && pair.h <= kMaxSize && pair.w <= kMaxSize;
}

std::vector<std::int64_t> to_list(Pair pair) { return {pair.h, pair.w}; }

void check_images(std::string_view op, const TensorSpec& x) {
  TENON_CHECK(x.shape.size() == 4, op, ": x must be [N, C, H, W] or [C, H, W], got ", x, " (",
              x.shape.size(), " dimensions)");
  TENON_CHECK(is_floating(x.dtype), op, ": needs a floating dtype, got ", x);
  TENON_CHECK(x.shape[1] > 0 && x.shape[2] > 0 && x.shape[3] > 0, op,
              ": only the batch may be empty, got x ", x);
}

/// PyTorch's rule: the last window must begin inside the image or its left padding.
std::int64_t output_size(std::int64_t size, std::int64_t kernel, std::int64_t stride,
                         std::int64_t padding, std::int64_t dilation, bool ceil_mode) {
  const std::int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  if (room < 0) return 0;
  std::int64_t count = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  if (ceil_mode && (count - 1) * stride >= size + padding) --count;
  return count;
}

Pair infer_output(std::string_view op, const TensorSpec& x, Pair kernel, Pair stride, Pair padding,
                  Pair dilation, bool ceil_mode) {
  check_images(op, x);
  TENON_CHECK(in_range(kernel, 1), op, ": kernel must be at least 1, got ", kernel);
  TENON_CHECK(in_range(stride, 1), op, ": stride must be at least 1, got ", stride);
  TENON_CHECK(in_range(dilation, 1), op, ": dilation must be at least 1, got ", dilation);
  TENON_CHECK(in_range(padding, 0) && padding.h <= kernel.h / 2 && padding.w <= kernel.w / 2, op,
              ": padding must be between 0 and half the kernel ", kernel, ", got ", padding);
  const Pair size{output_size(x.shape[2], kernel.h, stride.h, padding.h, dilation.h, ceil_mode),
                  output_size(x.shape[3], kernel.w, stride.w, padding.w, dilation.w, ceil_mode)};
  TENON_CHECK(size.h > 0 && size.w > 0, op, ": kernel ", kernel, " with dilation ", dilation,
              " does not fit into x ", x, " with padding ", padding);
  return size;
}

Shape with_size(const Shape& shape, Pair size) { return {shape[0], shape[1], size.h, size.w}; }

template <class OpType>
std::vector<Tensor> call_batched(OpType op, const Tensor& x) {
  const std::vector<Tensor> inputs{x.dim() == 3 ? x.unsqueeze(0) : x};
  std::vector<Tensor> outputs = call(std::make_shared<const OpType>(std::move(op)), inputs);
  if (x.dim() == 3) outputs[0] = outputs[0].squeeze(0);
  return outputs;
}

/// That `places` [N, C, h, w] belongs to planes of `planes` [N, C, ...].
void check_places(std::string_view op, const TensorSpec& planes, const TensorSpec& places) {
  check_images(op, planes);
  TENON_CHECK(places.dtype == DType::Int64 && places.shape.size() == 4 &&
                  places.shape[0] == planes.shape[0] && places.shape[1] == planes.shape[1],
              op, ": places must be int64[N, C, h, w] for ", planes, ", got ", places);
}

}  // namespace

// ---- max_pool2d ---------------------------------------------------------------------------------

Attributes MaxPool2dOp::attributes() const {
  return {{"kernel", to_list(kernel_)},
          {"stride", to_list(options_.stride.value_or(kernel_))},
          {"padding", to_list(options_.padding)},
          {"dilation", to_list(options_.dilation)},
          {"ceil_mode", options_.ceil_mode}};
}

std::vector<TensorSpec> MaxPool2dOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = inputs[0];
  const Pair size = infer_output(name(), x, kernel_, options_.stride.value_or(kernel_),
                                 options_.padding, options_.dilation, options_.ceil_mode);
  const Shape y = with_size(x.shape, size);
  return {{y, x.dtype, x.device}, {y, DType::Int64, x.device}};
}

std::vector<Tensor> MaxPool2dOp::forward(std::span<const Tensor> inputs,
                                         std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[0]});
  const Tensor y = kernel_result(outputs[0], format);
  const Tensor places = kernel_result(outputs[1], format);
  const Tensor x = kernel_operand(inputs[0]);
  const Pair stride = options_.stride.value_or(kernel_);
  TENON_DISPATCH(x.device(), max_pool2d(x, kernel_, stride, options_, y, places));
  return {finished(y, format), finished(places, format)};
}

Saved MaxPool2dOp::saved(IndexMask /*needs_grad*/) const { return {.outputs = index_bit(1)}; }

std::vector<Tensor> MaxPool2dOp::backward(const BackwardContext& context,
                                          std::span<const Tensor> grad_outputs) const {
  const Shape& x = context.input_spec(0).shape;
  return {apply(PlaneScatterOp({x[2], x[3]}), {grad_outputs[0], context.output(1)})};
}

Attributes PlaneScatterOp::attributes() const { return {{"size", to_list(size_)}}; }

std::vector<TensorSpec> PlaneScatterOp::infer(std::span<const TensorSpec> inputs) const {
  check_places(name(), inputs[0], inputs[1]);
  TENON_CHECK(inputs[0].shape == inputs[1].shape && in_range(size_, 1), name(),
              ": values and places differ: ", inputs[0], " and ", inputs[1]);
  return {{with_size(inputs[0].shape, size_), inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> PlaneScatterOp::forward(std::span<const Tensor> inputs,
                                            std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[1]});
  const Tensor plane = kernel_result(outputs[0], format);
  const Tensor places = kernel_operand(inputs[1]);
  const Tensor values = inputs[0].contiguous(kernel_format(plane.device(), format));
  TENON_DISPATCH(plane.device(), plane_scatter(values, places, plane));
  return {finished(plane, format)};
}

Saved PlaneScatterOp::saved(IndexMask /*needs_grad*/) const { return {.inputs = index_bit(1)}; }

std::vector<Tensor> PlaneScatterOp::backward(const BackwardContext& context,
                                             std::span<const Tensor> grad_outputs) const {
  return {apply(PlaneGatherOp(), {grad_outputs[0], context.input(1)}), Tensor()};
}

std::vector<TensorSpec> PlaneGatherOp::infer(std::span<const TensorSpec> inputs) const {
  check_places(name(), inputs[0], inputs[1]);
  return {{inputs[1].shape, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> PlaneGatherOp::forward(std::span<const Tensor> inputs,
                                           std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[1]});
  const Tensor values = kernel_result(outputs[0], format);
  const Tensor places = kernel_operand(inputs[1]);
  const Tensor plane = inputs[0].contiguous(kernel_format(values.device(), format));
  TENON_DISPATCH(values.device(), plane_gather(plane, places, values));
  return {finished(values, format)};
}

Saved PlaneGatherOp::saved(IndexMask /*needs_grad*/) const { return {.inputs = index_bit(1)}; }

std::vector<Tensor> PlaneGatherOp::backward(const BackwardContext& context,
                                            std::span<const Tensor> grad_outputs) const {
  const Shape& plane = context.input_spec(0).shape;
  return {apply(PlaneScatterOp({plane[2], plane[3]}), {grad_outputs[0], context.input(1)}),
          Tensor()};
}

// ---- avg_pool2d ---------------------------------------------------------------------------------

Attributes AvgPool2dOp::attributes() const {
  return {{"kernel", to_list(kernel_)},
          {"stride", to_list(options_.stride.value_or(kernel_))},
          {"padding", to_list(options_.padding)},
          {"ceil_mode", options_.ceil_mode},
          {"count_include_pad", options_.count_include_pad}};
}

std::vector<TensorSpec> AvgPool2dOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = inputs[0];
  const Pair size = infer_output(name(), x, kernel_, options_.stride.value_or(kernel_),
                                 options_.padding, 1, options_.ceil_mode);
  return {{with_size(x.shape, size), x.dtype, x.device}};
}

std::vector<Tensor> AvgPool2dOp::forward(std::span<const Tensor> inputs,
                                         std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[0]});
  const Tensor y = kernel_result(outputs[0], format);
  const Tensor x = kernel_operand(inputs[0]);
  const Pair stride = options_.stride.value_or(kernel_);
  TENON_DISPATCH(x.device(), avg_pool2d(x, kernel_, stride, options_, y));
  return {finished(y, format)};
}

std::vector<Tensor> AvgPool2dOp::backward(const BackwardContext& context,
                                          std::span<const Tensor> grad_outputs) const {
  const Shape& x = context.input_spec(0).shape;
  return {apply(AvgPool2dBackwardOp({x[2], x[3]}, kernel_, options_), {grad_outputs[0]})};
}

Attributes AvgPool2dBackwardOp::attributes() const {
  Attributes result = AvgPool2dOp(kernel_, options_).attributes();
  result.insert(result.begin(), Attribute{"size", to_list(size_)});
  return result;
}

std::vector<TensorSpec> AvgPool2dBackwardOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& grad = inputs[0];
  check_images(name(), grad);
  const TensorSpec x{with_size(grad.shape, size_), grad.dtype, grad.device};
  const Pair size = infer_output(name(), x, kernel_, options_.stride.value_or(kernel_),
                                 options_.padding, 1, options_.ceil_mode);
  TENON_CHECK(size == Pair(grad.shape[2], grad.shape[3]), name(), ": grad_out must be ", size,
              " for an image of ", size_, ", got ", grad);
  return {x};
}

std::vector<Tensor> AvgPool2dBackwardOp::forward(std::span<const Tensor> inputs,
                                                 std::span<const TensorSpec> outputs) const {
  const MemoryFormat format = result_format({inputs[0]});
  const Tensor grad_x = kernel_result(outputs[0], format);
  const Tensor grad = kernel_operand(inputs[0]);
  const Pair stride = options_.stride.value_or(kernel_);
  TENON_DISPATCH(grad.device(), avg_pool2d_backward(grad, kernel_, stride, options_, grad_x));
  return {finished(grad_x, format)};
}

std::vector<Tensor> AvgPool2dBackwardOp::backward(const BackwardContext& /*context*/,
                                                  std::span<const Tensor> grad_outputs) const {
  return {apply(AvgPool2dOp(kernel_, options_), {grad_outputs[0]})};
}

Tensor max_pool2d(const Tensor& x, Pair kernel, const MaxPool2dOptions& options) {
  return call_batched(MaxPool2dOp(kernel, options), x)[0];
}

Tensor avg_pool2d(const Tensor& x, Pair kernel, const AvgPool2dOptions& options) {
  return call_batched(AvgPool2dOp(kernel, options), x)[0];
}

}  // namespace tenon::ops
