#include "tenon/ops/dropout.h"

#include "tenon/core/random.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cpu/dropout.h"
#include "tenon/ops/cuda/dropout.h"
#include "tenon/ops/dispatch.h"

namespace tenon::ops {
namespace {

/// 0 where everything is dropped: the mask alone makes the zeros then.
double scale_for(double p) { return p < 1.0 ? 1.0 / (1.0 - p) : 0.0; }

}  // namespace

Tensor dropout(const Tensor& x, double p, bool training) {
  TENON_CHECK(p >= 0 && p <= 1, "dropout: p must be in [0, 1], got ", p);
  if (!training) return x;
  return apply(DropoutOp(p), {x});
}

std::vector<TensorSpec> DropoutOp::infer(std::span<const TensorSpec> inputs) const {
  TENON_CHECK(is_floating(inputs[0].dtype), "dropout: needs a floating dtype, got ", inputs[0]);
  return {inputs[0], {inputs[0].shape, DType::UInt8, inputs[0].device}};
}

std::vector<Tensor> DropoutOp::forward(std::span<const Tensor> inputs,
                                       std::span<const TensorSpec> outputs) const {
  const Tensor y = tenon::detail::make_elementwise(outputs[0], inputs);
  // Contiguous whatever x is: an element is dropped by its index, not by where it lies.
  const Tensor mask = tenon::detail::make_empty(outputs[1]);
  Generator& generator = default_generator();
  const auto blocks = static_cast<std::uint64_t>((mask.numel() + 3) / 4);
  const std::uint64_t first = generator.advance(blocks);
  TENON_DISPATCH(outputs[0].device, keep_mask(mask, p_, generator.seed(), first));
  TENON_DISPATCH(outputs[0].device, mask_scale(inputs[0], mask, scale_for(p_), y));
  return {y, mask};
}

Saved DropoutOp::saved(IndexMask) const { return {.outputs = index_bit(1)}; }

std::vector<Tensor> DropoutOp::backward(const BackwardContext& context,
                                        std::span<const Tensor> grad_outputs) const {
  return {apply(MaskScaleOp(scale_for(p_)), {grad_outputs[0], context.output(1)})};
}

std::vector<TensorSpec> MaskScaleOp::infer(std::span<const TensorSpec> inputs) const {
  TENON_CHECK(is_floating(inputs[0].dtype), "mask_scale: needs a floating dtype, got ", inputs[0]);
  TENON_CHECK(inputs[1].dtype == DType::UInt8 && inputs[1].shape == inputs[0].shape,
              "mask_scale: the mask of ", inputs[0], " must be uint8 of its shape, got ",
              inputs[1]);
  return {inputs[0]};
}

std::vector<Tensor> MaskScaleOp::forward(std::span<const Tensor> inputs,
                                         std::span<const TensorSpec> outputs) const {
  const Tensor y = tenon::detail::make_elementwise(outputs[0], inputs);
  TENON_DISPATCH(outputs[0].device, mask_scale(inputs[0], inputs[1], scale_, y));
  return {y};
}

Saved MaskScaleOp::saved(IndexMask) const { return {.inputs = index_bit(1)}; }

std::vector<Tensor> MaskScaleOp::backward(const BackwardContext& context,
                                          std::span<const Tensor> grad_outputs) const {
  return {apply(MaskScaleOp(scale_), {grad_outputs[0], context.input(1)}), {}};
}

}  // namespace tenon::ops
