#include <limits>

#include "tenon/core/cuda/reduce.cuh"
#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/extremum.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;

/// The value that every other one beats or equals.
template <class C>
C weakest(Extreme extreme) {
  using Limits = std::numeric_limits<C>;
  if constexpr (Limits::has_infinity) {
    return extreme == Extreme::Max ? -Limits::infinity() : Limits::infinity();
  } else {
    return extreme == Extreme::Max ? Limits::min() : Limits::max();
  }
}

/// Whether `a` is the further of two values. NaN is further than any number.
template <class C>
__device__ bool is_further(Extreme extreme, C a, C b) {
  return (extreme == Extreme::Max ? a > b : a < b) || (a != a && b == b);
}

template <class T>
struct ExtremeValue {
  using State = compute_type<T>;
  Extreme extreme;
  State start;
  __device__ State identity() const { return start; }
  __device__ State map(T value, const tenon::cuda::Place&) const { return convert<State>(value); }
  __device__ State combine(State a, State b) const { return is_further(extreme, b, a) ? b : a; }
};

template <class C>
struct Candidate {
  C value;
  std::int64_t index;
};

/// Of equals, and of NaNs, the one with the smallest index wins, in whichever order they meet.
template <class T>
struct ExtremePosition {
  using C = compute_type<T>;
  using State = Candidate<C>;
  Extreme extreme;
  C start;
  __device__ State identity() const { return {start, INT64_MAX}; }
  __device__ State map(T value, const tenon::cuda::Place& place) const {
    return {convert<C>(value), place.element};
  }
  __device__ State combine(State a, State b) const {
    if (is_further(extreme, b.value, a.value)) return b;
    if (is_further(extreme, a.value, b.value)) return a;
    return a.index <= b.index ? a : b;
  }
};

template <class T>
struct StoreValue {
  T* values;
  __device__ void operator()(std::int64_t position, compute_type<T> value) const {
    values[position] = convert<T>(value);
  }
};

template <class T>
struct StoreCandidate {
  T* values;
  std::int64_t* indices;
  __device__ void operator()(std::int64_t position, Candidate<compute_type<T>> best) const {
    values[position] = convert<T>(best.value);
    indices[position] = best.index;
  }
};

tenon::detail::ReductionNest nest_along(const Tensor& x, std::size_t dim) {
  Shape kept = x.shape();
  if (!kept.empty()) kept[dim] = 1;
  return tenon::detail::ReductionNest(x, kept);
}

}  // namespace

void extremum(Extreme extreme, const Tensor& x, std::size_t dim, const Tensor& values) {
  if (values.numel() == 0) return;
  tenon::cuda::visit_device_dtype(x.dtype(), [&]<class T>() {
    using Reducer = ExtremeValue<T>;
    using State = typename Reducer::State;
    tenon::cuda::reduce<T, State>(x, nest_along(x, dim), Reducer{extreme, weakest<State>(extreme)},
                                  StoreValue<T>{static_cast<T*>(values.raw_data())});
  });
}

void indexed_extremum(Extreme extreme, const Tensor& x, std::size_t dim, const Tensor& values,
                      const Tensor& indices) {
  if (values.numel() == 0) return;
  tenon::cuda::visit_device_dtype(x.dtype(), [&]<class T>() {
    using Reducer = ExtremePosition<T>;
    tenon::cuda::reduce<T, typename Reducer::State>(
        x, nest_along(x, dim), Reducer{extreme, weakest<compute_type<T>>(extreme)},
        StoreCandidate<T>{static_cast<T*>(values.raw_data()), indices.data<std::int64_t>()});
  });
}

}  // namespace tenon::ops::cuda
