// Elementwise kernels from functors on compute types, over operands of one dtype.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

using tenon::cuda::compute_type;
using tenon::cuda::convert;
using tenon::cuda::visit_device_dtype;
using tenon::cuda::visit_device_floating;

/// The type in which an elementwise op computes: float for the 16-bit floats, int64 for integers
/// and bool, whose results wrap around or become true when they are not zero.
template <class T>
using map_type = std::conditional_t<std::is_integral_v<T>, std::int64_t, compute_type<T>>;

/// `function` of the operands converted to their compute type.
template <class Function>
struct Lifted {
  Function function;
  template <class... Values>
  __device__ auto operator()(Values... values) const {
    return function(convert<map_type<Values>>(values)...);
  }
};

/// out = function(inputs...) with broadcasting of the inputs, whose elements are `T`.
template <class T, class Out, class Function>
void map_typed(const std::array<Tensor, 1>& inputs, const Tensor& out, const Function& function) {
  tenon::cuda::elementwise<Out, T>(out, inputs, Lifted<Function>{function});
}
template <class T, class Out, class Function>
void map_typed(const std::array<Tensor, 2>& inputs, const Tensor& out, const Function& function) {
  tenon::cuda::elementwise<Out, T, T>(out, inputs, Lifted<Function>{function});
}

/// out = function(inputs...) for the floating dtypes, which all operands share. The function of
/// compute type `C` is `make.template operator()<C>()`.
template <std::size_t kInputs, class Make>
void map_floating_made(const std::array<Tensor, kInputs>& inputs, const Tensor& out,
                       const Make& make) {
  visit_device_floating(out.dtype(), "elementwise", [&]<class T>() {
    map_typed<T, T>(inputs, out, make.template operator()<compute_type<T>>());
  });
}

/// The same with one function object for all compute types.
template <std::size_t kInputs, class Function>
void map_floating(const std::array<Tensor, kInputs>& inputs, const Tensor& out,
                  const Function& function) {
  map_floating_made<kInputs>(inputs, out, [&function]<class C>() { return function; });
}

/// The same for bool and the integer dtypes with one function on int64. Speed matters little
/// there, so that one kernel may decide between several functions as it runs.
template <std::size_t kInputs, class Function>
void map_integer(const std::array<Tensor, kInputs>& inputs, const Tensor& out,
                 const Function& function) {
  switch (out.dtype()) {
    case DType::Bool:
      return map_typed<bool, bool>(inputs, out, function);
    case DType::UInt8:
      return map_typed<std::uint8_t, std::uint8_t>(inputs, out, function);
    case DType::Int64:
      return map_typed<std::int64_t, std::int64_t>(inputs, out, function);
    default:
      tenon::detail::fail(tenon::detail::concat("this elementwise kernel is not defined for ",
                                                tenon::name(out.dtype())));
  }
}

/// A number as the CPU's kernels convert it to the compute type.
template <class C>
C scalar_as(Scalar scalar) {
  if constexpr (std::is_integral_v<C>) {
    return scalar.to_int64();
  } else {
    return static_cast<C>(scalar.to_double());
  }
}

}  // namespace tenon::ops::cuda
