// Matrix products.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// The matrix product of `a` and `b` with torch.matmul's rules: [m, k] x [k, n] -> [m, n]; a
/// vector is taken as a row on the left, as a column on the right, and that dimension is dropped
/// again (two vectors give their inner product); further leading dimensions are a batch and
/// broadcast. Both have the same floating dtype, and 16-bit types are summed in float32. Operands
/// may be transposed or otherwise strided views: they are read as they lie. Throws `Error` when
/// the inner sizes or the dtypes differ, or an operand has no dimension.
Tensor matmul(const Tensor& a, const Tensor& b);

/// x·weightᵀ + bias: x [..., in], weight [out, in], bias [out] (or undefined) -> [..., out], as
/// torch.nn.functional.linear. Same dtype rules as `matmul`.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

/// `matmul`.
class MatmulOp : public Op {
 public:
  std::string_view name() const override { return "matmul"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;
};

/// `linear`; inputs (x, weight[, bias]).
class LinearOp : public Op {
 public:
  std::string_view name() const override { return "linear"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;
};

}  // namespace tenon::ops
