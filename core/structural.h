// The ops that the engine itself needs to be closed under differentiation: views, copies, the
// adjoints of both, and the sum of two gradients. Most are reached through Tensor's methods.
#pragma once

#include "tenon/core/op.h"

namespace tenon {

/// Sums `x` down to `shape`, the adjoint of `expand`: `shape` must broadcast to that of `x`. Floats
/// of 16 bits are summed in float32.
Tensor sum_to(const Tensor& x, const Shape& shape);

/// a + b for tensors of equal shape, dtype and device: how gradients accumulate.
Tensor accumulate(const Tensor& a, const Tensor& b);

/// A tensor of `shape` that is zero but for elements start, start + step, … of `dim`, which are
/// those of `x`: the adjoint of `slice`.
Tensor embed(const Tensor& x, const Shape& shape, std::int64_t dim, std::int64_t start,
             std::int64_t step);

// The op classes, for those who match or rewrite graphs.

/// Tensor::reshape. A view where strides allow it, otherwise a copy.
class ReshapeOp : public Op {
 public:
  /// `shape` may hold one -1.
  explicit ReshapeOp(const Shape& shape) : shape_(shape) {}
  const Shape& shape() const { return shape_; }
  std::string_view name() const override { return "reshape"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Shape shape_;
};

/// Tensor::permute and transpose.
class PermuteOp : public Op {
 public:
  explicit PermuteOp(const Shape& dims) : dims_(dims) {}
  const Shape& dims() const { return dims_; }
  std::string_view name() const override { return "permute"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Shape dims_;
};

/// Tensor::slice, narrow and select: `length` elements of `dim`, `step` apart, from `start`.
class SliceOp : public Op {
 public:
  SliceOp(std::int64_t dim, std::int64_t start, std::int64_t length, std::int64_t step)
      : dim_(dim), start_(start), length_(length), step_(step) {}
  std::string_view name() const override { return "slice"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  std::int64_t dim_;
  std::int64_t start_;
  std::int64_t length_;
  std::int64_t step_;
};

/// `embed`.
class EmbedOp : public Op {
 public:
  EmbedOp(const Shape& shape, std::int64_t dim, std::int64_t start, std::int64_t step)
      : shape_(shape), dim_(dim), start_(start), step_(step) {}
  std::string_view name() const override { return "embed"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Shape shape_;
  std::int64_t dim_;
  std::int64_t start_;
  std::int64_t step_;
};

/// Tensor::expand.
class ExpandOp : public Op {
 public:
  explicit ExpandOp(const Shape& shape) : shape_(shape) {}
  std::string_view name() const override { return "expand"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Shape shape_;
};

/// `sum_to`.
class SumToOp : public Op {
 public:
  explicit SumToOp(const Shape& shape) : shape_(shape) {}
  std::string_view name() const override { return "sum_to"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Shape shape_;
};

/// Tensor::to, clone and contiguous: a copy of that dtype on that device, in that memory format.
class CopyOp : public Op {
 public:
  CopyOp(DType dtype, Device device, MemoryFormat format = MemoryFormat::Preserve)
      : dtype_(dtype), device_(device), format_(format) {}
  std::string_view name() const override { return "copy"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  DType dtype_;
  Device device_;
  MemoryFormat format_;
};

/// Tensor::contiguous and Tensor::to(MemoryFormat) in a trace, where the strides are not known yet:
/// each run finds out whether a copy is needed.
class FormatOp : public Op {
 public:
  /// What must hold for the input to be returned as it is.
  enum class Unless : std::uint8_t { IsContiguous, IsSuggested };

  FormatOp(MemoryFormat format, Unless unless) : format_(format), unless_(unless) {}
  std::string_view name() const override {
    return unless_ == Unless::IsContiguous ? "contiguous" : "to_format";
  }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  MemoryFormat format_;
  Unless unless_;
};

/// Tensor::detach.
class DetachOp : public Op {
 public:
  std::string_view name() const override { return "detach"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  bool differentiable() const override { return false; }
};

/// `accumulate`.
class AccumulateOp : public Op {
 public:
  std::string_view name() const override { return "accumulate"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;
};

}  // namespace tenon
