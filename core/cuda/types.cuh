// Element types on the device, and conversions between them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <string_view>
#include <type_traits>

#include "tenon/core/dtype.h"

namespace tenon::cuda {

/// Like `tenon::visit_dtype`, with the device's 16-bit types.
template <class Visitor>
decltype(auto) visit_device_dtype(DType dtype, Visitor&& visitor) {
  switch (dtype) {
    case DType::Bool:
      return visitor.template operator()<bool>();
    case DType::UInt8:
      return visitor.template operator()<std::uint8_t>();
    case DType::Int64:
      return visitor.template operator()<std::int64_t>();
    case DType::Float16:
      return visitor.template operator()<__half>();
    case DType::BFloat16:
      return visitor.template operator()<__nv_bfloat16>();
    case DType::Float32:
      return visitor.template operator()<float>();
    case DType::Float64:
      return visitor.template operator()<double>();
  }
  tenon::detail::fail("unknown dtype");
}

/// The same for the floating types; throws `Error` naming `op` for any other.
template <class Visitor>
decltype(auto) visit_device_floating(DType dtype, std::string_view op, Visitor&& visitor) {
  switch (dtype) {
    case DType::Float16:
      return visitor.template operator()<__half>();
    case DType::BFloat16:
      return visitor.template operator()<__nv_bfloat16>();
    case DType::Float32:
      return visitor.template operator()<float>();
    case DType::Float64:
      return visitor.template operator()<double>();
    default:
      tenon::detail::fail(
          tenon::detail::concat(op, ": needs a floating dtype, got ", tenon::name(dtype)));
  }
}

template <class T>
inline constexpr bool is_half_type = std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>;

/// The type in which arithmetic on `T` is done: float for the 16-bit types, otherwise `T`.
template <class T>
using compute_type = std::conditional_t<is_half_type<T>, float, T>;

__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

/// `value` as `To`, rounded to nearest even; nonzero numbers and NaN become true.
template <class To, class From>
__device__ To convert(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (is_half_type<From>) {
    return convert<To>(to_float(value));
  } else if constexpr (std::is_same_v<To, bool>) {
    return value != From(0);
  } else if constexpr (std::is_same_v<To, __half>) {
    return __float2half_rn(static_cast<float>(value));
  } else if constexpr (std::is_same_v<To, __nv_bfloat16>) {
    return __float2bfloat16_rn(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

}  // namespace tenon::cuda
