// The fused block: a transposed convolution and the pointwise chain behind it in one op, of which
// neither direction keeps an intermediate.
#pragma once

#include <limits>
#include <string>

#include "tenon/ops/conv.h"

namespace tenon::ops {

/// What happens to y, the convolution's result: clamp(f(y) + add, min, max)·scale, where f is mish
/// or nothing. The defaults of the numbers leave their step out.
struct Epilogue {
  bool mish = true;
  double add = 0.0;
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  double scale = 1.0;
  /// Whether the gradient passes where the value is exactly `min` or `max`: hardtanh stops it
  /// there, clamp lets it through.
  bool gradient_at_bounds = false;

  /// False when both bounds are infinite.
  bool clamps() const;

  bool operator==(const Epilogue&) const = default;
};

/// epilogue(conv_transpose2d(x, weight, bias)) in one pass over the result, with shapes, dtypes,
/// memory formats and errors of `conv_transpose2d`. The backward recomputes y tile by tile from x,
/// weight and bias. Throws `Error` also when min >= max or a number is NaN.
Tensor conv_transpose2d_epilogue(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                 const ConvTranspose2dOptions& options, const Epilogue& epilogue);

/// `conv_transpose2d_epilogue`; inputs (x, weight[, bias]), x with 4 dimensions.
class ConvTranspose2dEpilogueOp : public Op {
 public:
  ConvTranspose2dEpilogueOp(const ConvTranspose2dOptions& options, const Epilogue& epilogue)
      : options_(options), epilogue_(epilogue) {}
  const ConvTranspose2dOptions& options() const { return options_; }
  const Epilogue& epilogue() const { return epilogue_; }
  std::string_view name() const override { return "conv_transpose2d_epilogue"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  /// The inputs only.
  Saved saved(IndexMask needs_grad) const override;
  /// Names what `forward` runs for contiguous tensors of these specs: "cpu fused kernel", "cuda
  /// fused kernel (sm90 k3 s2, 2x64 resident)", "cuda kernels (cuDNN and one pass)".
  std::string kernel(const TensorSpec& x, const TensorSpec& weight, const TensorSpec& z) const;
  /// One `ConvTranspose2dEpilogueBackwardOp`; while the backward itself is recorded, the unfused
  /// ops instead, which have a derivative.
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  ConvTranspose2dOptions options_;
  Epilogue epilogue_;
};

/// Which gradients a fused backward computes.
struct EpilogueGradients {
  bool x = false;
  bool weight = false;
  bool bias = false;

  bool operator==(const EpilogueGradients&) const = default;
};

/// The fused backward; inputs (x, weight[, bias], grad_out), outputs those of grad_x, grad_weight,
/// grad_bias that were asked for, in this order. Has no derivative of its own.
class ConvTranspose2dEpilogueBackwardOp : public Op {
 public:
  ConvTranspose2dEpilogueBackwardOp(const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                                    EpilogueGradients wanted)
      : options_(options), epilogue_(epilogue), wanted_(wanted) {}
  std::string_view name() const override { return "conv_transpose2d_epilogue_backward"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  bool differentiable() const override { return false; }

 private:
  ConvTranspose2dOptions options_;
  Epilogue epilogue_;
  EpilogueGradients wanted_;
};

}  // namespace tenon::ops
