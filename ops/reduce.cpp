#include "tenon/ops/reduce.h"

#include <algorithm>

#include "tenon/core/structural.h"
#include "tenon/ops/binary.h"
#include "tenon/ops/unary.h"

namespace tenon::ops {
namespace {

bool is_half(DType dtype) { return dtype == DType::Float16 || dtype == DType::BFloat16; }

/// The number of elements that are reduced to one.
double reduced_count(const Shape& x, const Shape& dims, std::string_view op) {
  const Shape kept = reduced_shape(x, dims, true, op);
  double count = 1;
  for (std::size_t d = 0; d < x.size(); ++d) {
    if (kept[d] != x[d] || x[d] == 0) count *= static_cast<double>(x[d]);
  }
  return count;
}

}  // namespace

Shape reduced_shape(const Shape& x, const Shape& dims, bool keepdim, std::string_view op) {
  Shape marked = Shape::filled(x.size(), dims.empty() ? 1 : 0);
  for (std::int64_t dim : dims) {
    const std::size_t d = normalize_dim(dim, x.size(), op);
    if (x.empty()) continue;
    TENON_CHECK(marked[d] == 0, op, ": dimension ", dim, " appears twice in ", dims);
    marked[d] = 1;
  }
  Shape result;
  for (std::size_t d = 0; d < x.size(); ++d) {
    if (marked[d] == 0) {
      result.push_back(x[d]);
    } else if (keepdim) {
      result.push_back(1);
    }
  }
  return result;
}

Tensor sum(const Tensor& x, const Shape& dims, bool keepdim) {
  const Tensor wide = is_floating(x.dtype()) ? x : x.to(DType::Int64);
  const Tensor result = sum_to(wide, reduced_shape(x.shape(), dims, true, "sum"));
  return keepdim ? result : result.reshape(reduced_shape(x.shape(), dims, false, "sum"));
}

Tensor mean(const Tensor& x, const Shape& dims, bool keepdim) {
  TENON_CHECK(is_floating(x.dtype()), "mean: needs a floating dtype, got ", x.dtype(),
              "; convert with to()");
  if (is_half(x.dtype())) return mean(x.to(DType::Float32), dims, keepdim).to(x.dtype());
  return sum(x, dims, keepdim) / reduced_count(x.shape(), dims, "mean");
}

Tensor var(const Tensor& x, const Shape& dims, double correction, bool keepdim) {
  TENON_CHECK(is_floating(x.dtype()), "var: needs a floating dtype, got ", x.dtype(),
              "; convert with to()");
  if (is_half(x.dtype())) {
    return var(x.to(DType::Float32), dims, correction, keepdim).to(x.dtype());
  }
  const double count = reduced_count(x.shape(), dims, "var");
  const Tensor deviation = x - mean(x, dims, true);
  return sum(square(deviation), dims, keepdim) / std::max(0.0, count - correction);
}

}  // namespace tenon::ops
