// Pooling over windows of an image. A channels-last x gives channels-last results, forward and
// backward; the CPU computes them in contiguous copies.
#pragma once

#include "tenon/core/op.h"
#include "tenon/ops/pair.h"

namespace tenon::ops {

/// PyTorch's names and defaults.
struct MaxPool2dOptions {
  OptionalPair stride = std::nullopt;  ///< the kernel size when not given
  Pair padding = 0;                    ///< with −∞, at most half the kernel
  Pair dilation = 1;
  bool ceil_mode = false;  ///< round the output's size up instead of down

  bool operator==(const MaxPool2dOptions&) const = default;
};

/// PyTorch's names and defaults.
struct AvgPool2dOptions {
  OptionalPair stride = std::nullopt;  ///< the kernel size when not given
  Pair padding = 0;                    ///< with zeros, at most half the kernel
  bool ceil_mode = false;              ///< round the output's size up instead of down
  bool count_include_pad = true;       ///< whether padding counts in the divisor

  bool operator==(const AvgPool2dOptions&) const = default;
};

/// The largest element of each window: x [N, C, H, W] or [C, H, W], floating -> [N, C, H', W']
/// with H' = floor or ceil((H + 2·padding − dilation·(kernel − 1) − 1) / stride) + 1. A window with
/// a NaN gives NaN. The gradient goes to the element that won, the first among equals. Throws
/// `Error` when the sizes do not fit.
Tensor max_pool2d(const Tensor& x, Pair kernel, const MaxPool2dOptions& options = {});

/// The mean of each window: x [N, C, H, W] or [C, H, W], floating -> [N, C, H', W'], sizes as
/// `max_pool2d` without dilation. Throws `Error` when the sizes do not fit.
Tensor avg_pool2d(const Tensor& x, Pair kernel, const AvgPool2dOptions& options = {});

/// `max_pool2d`; input x with 4 dimensions; outputs the values and, int64, where in the H·W plane
/// each was found.
class MaxPool2dOp : public Op {
 public:
  MaxPool2dOp(Pair kernel, const MaxPool2dOptions& options) : kernel_(kernel), options_(options) {}
  std::string_view name() const override { return "max_pool2d"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Pair kernel_;
  MaxPool2dOptions options_;
};

/// Adds the elements of inputs (values [N, C, h, w], places [N, C, h, w] int64) into zeros
/// [N, C, height, width] at their places in the plane: max_pool2d's gradient.
class PlaneScatterOp : public Op {
 public:
  explicit PlaneScatterOp(Pair size) : size_(size) {}
  std::string_view name() const override { return "plane_scatter"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Pair size_;
};

/// Reads inputs (plane [N, C, H, W], places [N, C, h, w] int64) at the places: the adjoint of
/// `PlaneScatterOp`.
class PlaneGatherOp : public Op {
 public:
  std::string_view name() const override { return "plane_gather"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;
};

/// `avg_pool2d`; input x with 4 dimensions.
class AvgPool2dOp : public Op {
 public:
  AvgPool2dOp(Pair kernel, const AvgPool2dOptions& options) : kernel_(kernel), options_(options) {}
  std::string_view name() const override { return "avg_pool2d"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Pair kernel_;
  AvgPool2dOptions options_;
};

/// The adjoint of `AvgPool2dOp` on images of `size`; input grad_out [N, C, h, w].
class AvgPool2dBackwardOp : public Op {
 public:
  AvgPool2dBackwardOp(Pair size, Pair kernel, const AvgPool2dOptions& options)
      : size_(size), kernel_(kernel), options_(options) {}
  std::string_view name() const override { return "avg_pool2d_backward"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Pair size_;
  Pair kernel_;
  AvgPool2dOptions options_;
};

}  // namespace tenon::ops
