// Two-dimensional convolutions: conv2d, its data gradient conv_transpose2d, and its weight
// gradient. Each is bilinear, and the derivatives of each are the other two, so that the family is
// closed under differentiation.
//
// A result is channels-last where one of its two operands (x and weight, x and grad_out) suggests
// that format, as PyTorch's are. On a GPU such data is not converted in TF32 and 16 bits; in true
// float32 and float64, and on the CPU, convolutions work on contiguous copies.
#pragma once

#include "tenon/core/op.h"
#include "tenon/ops/pair.h"

namespace tenon::ops {

/// PyTorch's names and defaults.
struct Conv2dOptions {
  Pair stride = 1;
  Pair padding = 0;
  Pair dilation = 1;
  std::int64_t groups = 1;

  bool operator==(const Conv2dOptions&) const = default;
};

/// PyTorch's names and defaults.
struct ConvTranspose2dOptions {
  Pair stride = 1;
  Pair padding = 0;
  Pair output_padding = 0;  ///< rows and columns added at the bottom and the right of the output
  Pair dilation = 1;
  std::int64_t groups = 1;

  bool operator==(const ConvTranspose2dOptions&) const = default;
};

/// Cross-correlation: x [N, Cin, H, W] or [Cin, H, W], weight [Cout, Cin/groups, kH, kW], bias
/// [Cout] or undefined -> [N, Cout, H', W'] with
/// H' = floor((H + 2·padding − dilation·(kH − 1) − 1) / stride) + 1.
/// All have one floating dtype; 16-bit types are summed in float32. An empty batch gives an empty
/// result. Throws `Error` naming the shapes when they do not fit or the result would be empty.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              const Conv2dOptions& options = {});

/// The transposed convolution: x [N, Cin, H, W] or [Cin, H, W], weight [Cin, Cout/groups, kH, kW],
/// bias [Cout] or undefined -> [N, Cout, H', W'] with
/// H' = (H − 1)·stride − 2·padding + dilation·(kH − 1) + output_padding + 1.
/// Dtypes and errors as `conv2d`; output_padding must be below the stride or the dilation.
Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
                        const ConvTranspose2dOptions& options = {});

/// The gradient of conv2d's weight: x [N, Cin, H, W], grad_out [N, Cout, H', W'] (the shape of
/// conv2d's result) -> [Cout, Cin/groups, kernel.h, kernel.w].
Tensor conv2d_weight_grad(const Tensor& x, const Tensor& grad_out, Pair kernel,
                          const Conv2dOptions& options = {});

/// `conv2d`; inputs (x, weight[, bias]), x with 4 dimensions.
class Conv2dOp : public Op {
 public:
  explicit Conv2dOp(const Conv2dOptions& options) : options_(options) {}
  const Conv2dOptions& options() const { return options_; }
  std::string_view name() const override { return "conv2d"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Conv2dOptions options_;
};

/// `conv_transpose2d`; inputs (x, weight[, bias]), x with 4 dimensions.
class ConvTranspose2dOp : public Op {
 public:
  explicit ConvTranspose2dOp(const ConvTranspose2dOptions& options) : options_(options) {}
  const ConvTranspose2dOptions& options() const { return options_; }
  std::string_view name() const override { return "conv_transpose2d"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  ConvTranspose2dOptions options_;
};

/// `conv2d_weight_grad`; inputs (x, grad_out).
class Conv2dWeightGradOp : public Op {
 public:
  Conv2dWeightGradOp(Pair kernel, const Conv2dOptions& options)
      : kernel_(kernel), options_(options) {}
  std::string_view name() const override { return "conv2d_weight_grad"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Pair kernel_;
  Conv2dOptions options_;
};

/// The gradients of `conv2d` that its backward wants on the CPU, in one op, so that kernels read
/// their operands once: inputs (x, grad_out[, weight]) -> ([grad_x,] grad_weight[, grad_bias]),
/// grad_x where there is a weight. Has no backward: recorded gradients are made of other ops.
class Conv2dBackwardOp : public Op {
 public:
  Conv2dBackwardOp(Pair kernel, const Conv2dOptions& options, bool bias)
      : kernel_(kernel), options_(options), bias_(bias) {}
  std::string_view name() const override { return "conv2d_backward"; }
  bool differentiable() const override { return false; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;

 private:
  Pair kernel_;
  Conv2dOptions options_;
  bool bias_;
};

}  // namespace tenon::ops
