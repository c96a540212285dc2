#include "tenon/ops/cpu/gather.h"

#include <algorithm>
#include <string_view>

#include "tenon/core/half.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/split.h"

namespace tenon::ops::cpu {
namespace {

void check_index(std::string_view op, std::int64_t value, std::int64_t size) {
  TENON_CHECK(value >= 0 && value < size, op, ": index ", value, " is outside [0, ", size, ")");
}

/// Outer positions for one thread at a time.
std::int64_t grain(std::int64_t elements) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, elements));
}

}  // namespace

void gather(const Tensor& x, std::size_t dim, const Tensor& index, const Tensor& out) {
  const Split source(x.shape(), dim);
  const Split picked(index.shape(), dim);
  const std::int64_t* at = index.data<std::int64_t>();
  const std::int64_t inner = picked.inner;
  visit_dtype(x.dtype(), [&]<class T>() {
    const T* in = static_cast<const T*>(x.raw_data());
    T* result = static_cast<T*>(out.raw_data());
    auto outer_range = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = begin; o < end; ++o) {
        for (std::int64_t j = 0; j < picked.length * inner; ++j) {
          const std::int64_t element = o * picked.length * inner + j;
          check_index("gather", at[element], source.length);
          result[element] = in[(o * source.length + at[element]) * inner + j % inner];
        }
      }
    };
    parallel_for(0, picked.outer, grain(picked.length * inner), outer_range);
  });
}

void scatter_add(const Tensor& x, std::size_t dim, const Tensor& index, const Tensor& out) {
  const Split target(out.shape(), dim);
  const Split picked(index.shape(), dim);
  const std::int64_t* at = index.data<std::int64_t>();
  const std::int64_t inner = picked.inner;
  visit_floating(x.dtype(), "scatter_add", [&]<class T>() {
    const T* in = static_cast<const T*>(x.raw_data());
    T* result = static_cast<T*>(out.raw_data());
    auto outer_range = [&](std::int64_t begin, std::int64_t end) {
      T* first = result + begin * target.length * inner;
      std::fill(first, first + (end - begin) * target.length * inner, T(0));
      for (std::int64_t o = begin; o < end; ++o) {
        for (std::int64_t j = 0; j < picked.length * inner; ++j) {
          const std::int64_t element = o * picked.length * inner + j;
          check_index("scatter_add", at[element], target.length);
          result[(o * target.length + at[element]) * inner + j % inner] += in[element];
        }
      }
    };
    parallel_for(0, target.outer, grain((picked.length + target.length) * inner), outer_range);
  });
}

}  // namespace tenon::ops::cpu
