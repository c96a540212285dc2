// Normalisation over the batch. A channels-last x gives channels-last results; the CPU computes
// them in contiguous copies.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// PyTorch's names and defaults.
struct BatchNormOptions {
  /// Normalise by the batch's own statistics and update the running ones; otherwise by the
  /// running ones.
  bool training = false;
  double momentum = 0.1;  ///< weight of the batch in the running statistics
  double eps = 1e-5;      ///< added to the variance

  bool operator==(const BatchNormOptions&) const = default;
};

/// (x − mean) / sqrt(var + eps)·weight + bias for each channel: x [N, C] or [N, C, ...], the rest
/// [C] and of x's dtype; weight and bias may each be undefined, and so may both running statistics
/// in training. In training mean and (biased) variance are the batch's over all dimensions but the
/// second, and the running statistics are updated in place, the variance's with the unbiased one.
/// Throws `Error` when shapes or dtypes do not fit, when a channel has only one value in training,
/// or when running statistics are missing otherwise. (Ioffe and Szegedy 2015, arXiv:1502.03167.)
Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                  const Tensor& weight = {}, const Tensor& bias = {},
                  const BatchNormOptions& options = {});

/// Which of the optional inputs a batch_norm has, in the order in which they follow x.
struct BatchNormInputs {
  bool weight = false;
  bool bias = false;
  bool running = false;  ///< running_mean and running_var

  bool operator==(const BatchNormInputs&) const = default;
};

/// `batch_norm`; inputs (x[, weight][, bias][, running_mean, running_var]); outputs the result, and
/// what the backward needs: [C] mean and 1/sqrt(var + eps) as used.
class BatchNormOp : public Op {
 public:
  BatchNormOp(const BatchNormOptions& options, BatchNormInputs has)
      : options_(options), has_(has) {}
  const BatchNormOptions& options() const { return options_; }
  std::string_view name() const override { return "batch_norm"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  /// One `BatchNormBackwardOp`; while the backward itself is recorded, plain ops instead, which
  /// have a derivative.
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;
  /// In training it changes the running statistics.
  bool pure() const override { return !(options_.training && has_.running); }

 private:
  BatchNormOptions options_;
  BatchNormInputs has_;
};

/// The gradients in two passes over x and grad_out; inputs (x, mean, inverse deviation,
/// grad_out[, weight]), outputs grad_x, grad_weight, grad_bias. Has no derivative of its own.
class BatchNormBackwardOp : public Op {
 public:
  explicit BatchNormBackwardOp(bool training) : training_(training) {}
  std::string_view name() const override { return "batch_norm_backward"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  bool differentiable() const override { return false; }

 private:
  bool training_;
};

}  // namespace tenon::ops
