#include "tenon/ops/loss.h"

#include <vector>

#include "tenon/core/tensor_body.h"
#include "tenon/ops/activation.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/compare.h"
#include "tenon/ops/cpu/loss.h"
#include "tenon/ops/cuda/loss.h"
#include "tenon/ops/difference_loss.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/gather.h"
#include "tenon/ops/promotion.h"
#include "tenon/ops/reduce.h"
#include "tenon/ops/softmax.h"
#include "tenon/ops/unary.h"
#include "tenon/ops/where.h"

namespace tenon::ops {
namespace {

Tensor reduce(const Tensor& losses, Reduction reduction) {
  switch (reduction) {
    case Reduction::None:
      return losses;
    case Reduction::Mean:
      return mean(losses);
    case Reduction::Sum:
      return sum(losses);
  }
  return losses;
}

/// Σ losses / Σ weights, in at least float32: neither sum need fit a 16-bit float.
Tensor weighted_mean(const Tensor& losses, const Tensor& weights) {
  const DType dtype = losses.dtype();
  const DType wide = promote_types(dtype, DType::Float32);
  return (sum(losses.to(wide)) / sum(weights.to(wide))).to(dtype);
}

void check_equal_shapes(std::string_view op, const Tensor& x, const Tensor& target) {
  TENON_CHECK(x.shape() == target.shape(), op, ": the input is ", x.shape(), " but the target is ",
              target.shape(), "; use expand() if that is meant");
}

/// [N, ...] of the input [N, C, ...].
Shape sample_shape(const Shape& x) {
  Shape result = x;
  result.erase(1);
  return result;
}

/// Losses and weights of the samples.
std::vector<Tensor> nll(const Tensor& x, const Tensor& target, const Tensor& weight,
                        std::int64_t ignore_index) {
  std::vector<Tensor> inputs{x, target};
  if (weight.defined()) inputs.push_back(weight.to(x.dtype()));
  return call(std::make_shared<const NllLossOp>(ignore_index), inputs);
}

/// -Σ over the classes of weight·x, for weights [C].
Tensor smoothed(const Tensor& x, const Tensor& weight) {
  if (!weight.defined()) return -sum(x, {1});
  Shape shape = Shape::filled(x.dim(), 1);
  shape[1] = x.size(1);
  return -sum(x * weight.to(x.dtype()).reshape(shape), {1});
}

}  // namespace

// ---- negative log likelihood --------------------------------------------------------------------

std::vector<TensorSpec> NllLossOp::infer(std::span<const TensorSpec> inputs) const {
  const TensorSpec& x = inputs[0];
  const TensorSpec& target = inputs[1];
  TENON_CHECK(is_floating(x.dtype), "nll_loss: needs a floating dtype, got ", x.dtype);
  TENON_CHECK(target.dtype == DType::Int64, "nll_loss: target classes must be int64, got ",
              target.dtype);
  TENON_CHECK(x.shape.size() >= 2, "nll_loss: the input must be [N, C, ...], got ", x.shape);
  const Shape samples = sample_shape(x.shape);
  TENON_CHECK(target.shape == samples, "nll_loss: for an input ", x.shape, " the target must be ",
              samples, ", got ", target.shape);
  if (inputs.size() == 3) {
    TENON_CHECK(inputs[2].shape == Shape{x.shape[1]} && inputs[2].dtype == x.dtype,
                "nll_loss: the weight must be ", x.dtype, Shape{x.shape[1]}, ", got ", inputs[2]);
  }
  return {{samples, x.dtype, x.device}, {samples, x.dtype, x.device}};
}

std::vector<Tensor> NllLossOp::forward(std::span<const Tensor> inputs,
                                       std::span<const TensorSpec> outputs) const {
  const Tensor loss = tenon::detail::make_empty(outputs[0]);
  const Tensor used = tenon::detail::make_empty(outputs[1]);
  const Tensor weight = inputs.size() == 3 ? inputs[2].contiguous() : Tensor();
  TENON_DISPATCH(loss.device(), nll_loss(inputs[0].contiguous(), inputs[1].contiguous(), weight,
                                         ignore_index_, loss, used));
  return {loss, used};
}

Saved NllLossOp::saved(IndexMask) const {
  return {.inputs = index_bit(1), .outputs = index_bit(1)};
}

std::vector<Tensor> NllLossOp::backward(const BackwardContext& context,
                                        std::span<const Tensor> grad_outputs) const {
  std::vector<Tensor> grads(context.input_count());
  if (context.needs_grad(0)) {
    const Tensor target = context.input(1);
    const Tensor index = where(eq(target, ignore_index_), 0, target).unsqueeze(1);
    // The weights are 0 where the target is ignored, so that class 0 gets nothing there.
    const Tensor grad = -(grad_outputs[0] * context.output(1).detach()).unsqueeze(1);
    grads[0] = scatter_add(grad, 1, index, context.input_spec(0).shape[1]);
  }
  return grads;
}

Tensor nll_loss(const Tensor& x, const Tensor& target, const NllOptions& options) {
  if (x.dim() == 1) {
    const Tensor loss = nll_loss(x.unsqueeze(0), target.unsqueeze(0), options);
    return options.reduction == Reduction::None ? loss.reshape({}) : loss;
  }
  const std::vector<Tensor> samples = nll(x, target, options.weight, options.ignore_index);
  if (options.reduction == Reduction::Mean) return weighted_mean(samples[0], samples[1].detach());
  return reduce(samples[0], options.reduction);
}

// ---- cross entropy ------------------------------------------------------------------------------

namespace {

/// For targets that are class probabilities.
Tensor soft_cross_entropy(const Tensor& x, const Tensor& target,
                          const CrossEntropyOptions& options) {
  check_equal_shapes("cross_entropy", x, target);
  const double classes = static_cast<double>(x.size(1));
  const Tensor goal = options.label_smoothing == 0 ? target
                                                   : target * (1 - options.label_smoothing) +
                                                         options.label_smoothing / classes;
  const Tensor losses = smoothed(log_softmax(x, 1) * goal, options.weight);
  return reduce(losses, options.reduction);
}

}  // namespace

Tensor cross_entropy(const Tensor& x, const Tensor& target, const CrossEntropyOptions& options) {
  TENON_CHECK(x.dim() >= 1, "cross_entropy: the input must be [N, C, ...] or [C], got a scalar");
  TENON_CHECK(options.label_smoothing >= 0 && options.label_smoothing <= 1,
              "cross_entropy: label_smoothing must lie in [0, 1], got ", options.label_smoothing);
  if (x.dim() == 1) {
    const Tensor loss = cross_entropy(x.unsqueeze(0), target.unsqueeze(0), options);
    return options.reduction == Reduction::None ? loss.reshape({}) : loss;
  }
  if (is_floating(target.dtype())) return soft_cross_entropy(x, target, options);

  const Tensor log_probability = log_softmax(x, 1);
  const std::vector<Tensor> samples =
      nll(log_probability, target, options.weight, options.ignore_index);
  Tensor losses = samples[0];
  if (options.label_smoothing > 0) {
    const Tensor even =
        masked_fill(smoothed(log_probability, options.weight), eq(target, options.ignore_index), 0);
    losses = losses * (1 - options.label_smoothing) +
             even * (options.label_smoothing / static_cast<double>(x.size(1)));
  }
  if (options.reduction == Reduction::Mean) return weighted_mean(losses, samples[1].detach());
  return reduce(losses, options.reduction);
}

// ---- elementwise losses -------------------------------------------------------------------------

namespace {

/// Whether `DifferenceLossOp` computes it.
bool is_one_op(const Tensor& x, const Tensor& target, Reduction reduction) {
  return reduction != Reduction::None && x.dtype() == target.dtype() && is_floating(x.dtype());
}

}  // namespace

Tensor mse_loss(const Tensor& x, const Tensor& target, Reduction reduction) {
  check_equal_shapes("mse_loss", x, target);
  if (is_one_op(x, target, reduction)) {
    return apply(DifferenceLossOp(DifferenceLossKind::Squared, reduction), {x, target});
  }
  return reduce(square(x - target), reduction);
}

Tensor l1_loss(const Tensor& x, const Tensor& target, Reduction reduction) {
  check_equal_shapes("l1_loss", x, target);
  if (is_one_op(x, target, reduction)) {
    return apply(DifferenceLossOp(DifferenceLossKind::Absolute, reduction), {x, target});
  }
  return reduce(abs(x - target), reduction);
}

Tensor bce_with_logits(const Tensor& x, const Tensor& target, const BceOptions& options) {
  check_equal_shapes("bce_with_logits", x, target);
  const Tensor log_probability = log_sigmoid(x);
  const Tensor positive = options.pos_weight.defined()
                              ? ((options.pos_weight - 1) * target + 1) * log_probability
                              : log_probability;
  Tensor losses = (1 - target) * x - positive;
  if (options.weight.defined()) losses = losses * options.weight;
  return reduce(losses, options.reduction);
}

}  // namespace tenon::ops
