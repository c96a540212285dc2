// Completes `float16` and `bfloat16`: include where their values are converted or computed with.
#pragma once

#include <Eigen/Core>

#include "tenon/core/dtype.h"

namespace tenon {

static_assert(sizeof(float16) == 2 && sizeof(bfloat16) == 2);

namespace detail {
template <class T>
struct ComputeType {
  using type = T;
};
template <>
struct ComputeType<float16> {
  using type = float;
};
template <>
struct ComputeType<bfloat16> {
  using type = float;
};
}  // namespace detail

/// The type in which arithmetic on `T` is done: float for the 16-bit types, otherwise `T`.
template <class T>
using compute_type = typename detail::ComputeType<T>::type;

}  // namespace tenon
