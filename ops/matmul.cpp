#include "tenon/ops/matmul.h"

#include "tenon/core/factories.h"
#include "tenon/core/structural.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cpu/matmul.h"
#include "tenon/ops/cuda/matmul.h"
#include "tenon/ops/dispatch.h"

namespace tenon::ops {
namespace {

void check_dtypes(std::string_view op, std::span<const TensorSpec> inputs) {
  for (const TensorSpec& input : inputs) {
    TENON_CHECK(is_floating(input.dtype), op, ": needs floating dtypes, got ", input);
    TENON_CHECK(input.dtype == inputs[0].dtype, op, ": the operands are ", inputs[0], " and ",
                input, "; convert one with to()");
  }
}

/// The matrix that a vector stands for: a row on the left, a column on the right.
Tensor as_left(const Tensor& a) { return a.dim() == 1 ? a.unsqueeze(0) : a; }
Tensor as_right(const Tensor& b) { return b.dim() == 1 ? b.unsqueeze(1) : b; }

/// Without its last two dimensions.
Shape batch_of(const Shape& shape) {
  return Shape(std::span<const std::int64_t>(shape.begin(), shape.size() - 2));
}

Shape with_matrix(Shape batch, std::int64_t rows, std::int64_t columns) {
  batch.push_back(rows);
  batch.push_back(columns);
  return batch;
}

/// [..., k] -> [all of ..., k]
Tensor as_rows(const Tensor& x) {
  Shape lead = x.shape();
  lead.erase(lead.size() - 1);
  return x.reshape({lead.numel(), x.shape().back()});
}

}  // namespace

std::vector<TensorSpec> MatmulOp::infer(std::span<const TensorSpec> inputs) const {
  check_dtypes(name(), inputs);
  Shape a = inputs[0].shape;
  Shape b = inputs[1].shape;
  TENON_CHECK(!a.empty() && !b.empty(), "matmul: operands need at least 1 dimension, got ",
              inputs[0], " and ", inputs[1], "; use mul for a scalar");
  const bool drops_row = a.size() == 1;
  const bool drops_column = b.size() == 1;
  if (drops_row) a.insert(0, 1);
  if (drops_column) b.push_back(1);
  TENON_CHECK(a.back() == b[b.size() - 2], "matmul: inner sizes differ: ", inputs[0], " has ",
              a.back(), " columns, ", inputs[1], " has ", b[b.size() - 2], " rows");
  Shape y =
      with_matrix(broadcast_shapes(batch_of(a), batch_of(b), name()), a[a.size() - 2], b.back());
  if (drops_column) y.erase(y.size() - 1);
  if (drops_row) y.erase(y.size() - (drops_column ? 1 : 2));
  return {{y, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> MatmulOp::forward(std::span<const Tensor> inputs,
                                      std::span<const TensorSpec> outputs) const {
  const Tensor a = as_left(inputs[0]);
  const Tensor b = as_right(inputs[1]);
  const Tensor y = detail::make_empty(outputs[0]);
  const Shape batch = broadcast_shapes(batch_of(a.shape()), batch_of(b.shape()), name());
  const Tensor left = a.expand(with_matrix(batch, a.size(-2), a.size(-1)));
  const Tensor right = b.expand(with_matrix(batch, b.size(-2), b.size(-1)));
  const Tensor result = y.reshape(with_matrix(batch, a.size(-2), b.size(-1)));
  TENON_DISPATCH(y.device(), matmul(left, right, Tensor(), result));
  return {y};
}

Saved MatmulOp::saved(IndexMask needs_grad) const {
  return {.inputs = ((needs_grad & index_bit(0)) != 0 ? index_bit(1) : kNoIndices) |
                    ((needs_grad & index_bit(1)) != 0 ? index_bit(0) : kNoIndices)};
}

std::vector<Tensor> MatmulOp::backward(const BackwardContext& context,
                                       std::span<const Tensor> grad_outputs) const {
  const Shape& a_shape = context.input_spec(0).shape;
  const Shape& b_shape = context.input_spec(1).shape;
  Tensor grad = grad_outputs[0];
  if (b_shape.size() == 1) grad = grad.unsqueeze(-1);
  if (a_shape.size() == 1) grad = grad.unsqueeze(-2);
  Tensor grad_a;
  Tensor grad_b;
  if (context.needs_grad(0)) {
    const Tensor b = as_right(context.input(1));
    const Tensor product = matmul(grad, b.transpose(-1, -2));
    Shape target = a_shape;
    if (target.size() == 1) target.insert(0, 1);
    grad_a = sum_to(product, target).reshape(a_shape);
  }
  if (context.needs_grad(1)) {
    const Tensor a = as_left(context.input(0));
    if (b_shape.size() <= 2) {
      // One b for the whole batch: the sum over the batch is part of the product.
      grad_b = matmul(as_rows(a).transpose(0, 1), as_rows(grad)).reshape(b_shape);
    } else {
      grad_b = sum_to(matmul(a.transpose(-1, -2), grad), b_shape);
    }
  }
  return {grad_a, grad_b};
}

std::vector<TensorSpec> LinearOp::infer(std::span<const TensorSpec> inputs) const {
  check_dtypes(name(), inputs);
  const Shape& x = inputs[0].shape;
  const Shape& weight = inputs[1].shape;
  TENON_CHECK(weight.size() == 2, "linear: weight must be [out, in], got ", inputs[1]);
  TENON_CHECK(!x.empty() && x.back() == weight[1], "linear: x must be [..., ", weight[1],
              "] for weight ", weight, ", got ", inputs[0]);
  if (inputs.size() > 2) {
    TENON_CHECK(inputs[2].shape == Shape{weight[0]}, "linear: bias must be [", weight[0],
                "] for weight ", weight, ", got ", inputs[2]);
  }
  Shape y = x;
  y.back() = weight[0];
  return {{y, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> LinearOp::forward(std::span<const Tensor> inputs,
                                      std::span<const TensorSpec> outputs) const {
  const Tensor x = as_left(inputs[0]);
  const Tensor y = detail::make_empty(outputs[0]);
  const Shape batch = batch_of(x.shape());
  const Tensor weight =
      inputs[1].transpose(0, 1).expand(with_matrix(batch, inputs[1].size(1), inputs[1].size(0)));
  const Tensor result = y.reshape(with_matrix(batch, x.size(-2), inputs[1].size(0)));
  const Tensor bias = inputs.size() > 2 ? inputs[2].contiguous() : Tensor();
  TENON_DISPATCH(y.device(), matmul(x, weight, bias, result));
  return {y};
}

Saved LinearOp::saved(IndexMask needs_grad) const { return MatmulOp().saved(needs_grad); }

std::vector<Tensor> LinearOp::backward(const BackwardContext& context,
                                       std::span<const Tensor> grad_outputs) const {
  const Tensor& grad = grad_outputs[0];
  std::vector<Tensor> result(context.input_count());
  if (context.needs_grad(0)) result[0] = matmul(grad, context.input(1));
  if (context.needs_grad(1)) {
    result[1] = matmul(as_rows(grad).transpose(0, 1), as_rows(context.input(0)));
  }
  if (context.input_count() > 2 && context.needs_grad(2)) {
    result[2] = sum_to(grad, context.input_spec(2).shape);
  }
  return result;
}

Tensor matmul(const Tensor& a, const Tensor& b) { return apply(MatmulOp(), {a, b}); }

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (!bias.defined()) return apply(LinearOp(), {x, weight});
  return apply(LinearOp(), {x, weight, bias});
}

}  // namespace tenon::ops
