#include "tenon/ops/promotion.h"

#include <array>
#include <optional>

namespace tenon::ops {
namespace {

std::optional<DType> widen(std::optional<DType> known, DType next) {
  return known.has_value() ? promote_types(*known, next) : next;
}

/// What `dominant` becomes in the company of a 0-dimensional tensor's dtype.
DType combine(DType dominant, DType minor) {
  if (dominant == DType::Bool || (!is_floating(dominant) && is_floating(minor))) {
    return promote_types(dominant, minor);
  }
  return dominant;
}

}  // namespace

DType result_type(std::span<const Tensor> tensors) {
  TENON_CHECK(!tensors.empty(), "result_type: needs at least one tensor");
  std::optional<DType> dimensioned;
  std::optional<DType> zero_dimensional;
  for (const Tensor& tensor : tensors) {
    std::optional<DType>& known = tensor.dim() > 0 ? dimensioned : zero_dimensional;
    known = widen(known, tensor.dtype());
  }
  if (!dimensioned.has_value()) return *zero_dimensional;
  if (!zero_dimensional.has_value()) return *dimensioned;
  return combine(*dimensioned, *zero_dimensional);
}

DType result_type(const Tensor& a, const Tensor& b) {
  if (a.dtype() == b.dtype()) return a.dtype();
  const std::array<Tensor, 2> both{a, b};
  return result_type(std::span<const Tensor>(both));
}

DType result_type(const Tensor& x, Scalar scalar) {
  return promote_with_scalar(x.dtype(), scalar.kind());
}

DType floating_type(DType dtype) { return is_floating(dtype) ? dtype : DType::Float32; }

}  // namespace tenon::ops
