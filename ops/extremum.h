// Largest and smallest elements, and where they are. Inputs in another memory format are worked on
// as contiguous copies, and results are contiguous.
#pragma once

#include <utility>

#include "tenon/core/op.h"

namespace tenon::ops {

/// Which end of the order is looked for.
enum class Extreme { Max, Min };

/// The extreme values over dimensions (all, if none are named). Equal extremes share the gradient.
class ExtremumOp : public Op {
 public:
  ExtremumOp(Extreme extreme, const Shape& dims, bool keepdim)
      : extreme_(extreme), dims_(dims), keepdim_(keepdim) {}
  Extreme extreme() const { return extreme_; }
  /// "amax" or "amin".
  std::string_view name() const override { return extreme_ == Extreme::Max ? "amax" : "amin"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Extreme extreme_;
  Shape dims_;
  bool keepdim_;
};

/// Values and positions (int64) of the extremes along one dimension. The gradient goes to the
/// element at the position.
class IndexedExtremumOp : public Op {
 public:
  IndexedExtremumOp(Extreme extreme, std::int64_t dim, bool keepdim)
      : extreme_(extreme), dim_(dim), keepdim_(keepdim) {}
  Extreme extreme() const { return extreme_; }
  /// "max" or "min".
  std::string_view name() const override { return extreme_ == Extreme::Max ? "max" : "min"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  Extreme extreme_;
  std::int64_t dim_;
  bool keepdim_;
};

// NaN wins over every number. All throw `Error` when there is nothing to choose from: a dimension
// of size 0, or no elements at all.

/// Largest values over `dims` (all, if none are given); equal ones share the gradient.
Tensor amax(const Tensor& x, const Shape& dims = {}, bool keepdim = false);
/// Smallest values, likewise.
Tensor amin(const Tensor& x, const Shape& dims = {}, bool keepdim = false);
/// The largest element, 0-dimensional; equal ones share the gradient.
Tensor max(const Tensor& x);
/// The smallest element, likewise.
Tensor min(const Tensor& x);
/// The largest values along `dim` and the positions of their first occurrences (int64), to which
/// the gradient goes.
std::pair<Tensor, Tensor> max(const Tensor& x, std::int64_t dim, bool keepdim = false);
/// The smallest values and their positions, likewise.
std::pair<Tensor, Tensor> min(const Tensor& x, std::int64_t dim, bool keepdim = false);
/// Position (int64) of the first largest element in row-major order.
Tensor argmax(const Tensor& x);
/// Positions of the first largest elements along `dim`.
Tensor argmax(const Tensor& x, std::int64_t dim, bool keepdim = false);
/// Position of the first smallest element in row-major order.
Tensor argmin(const Tensor& x);
/// Positions of the first smallest elements along `dim`.
Tensor argmin(const Tensor& x, std::int64_t dim, bool keepdim = false);

}  // namespace tenon::ops
