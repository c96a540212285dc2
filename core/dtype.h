// Element types, their names and PyTorch's promotion rules; and `Scalar`, a number without a
// tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <string_view>
#include <type_traits>
#include <utility>

#include "tenon/core/error.h"

namespace Eigen {
struct half;
struct bfloat16;
}  // namespace Eigen

namespace tenon {

/// Storage types of 16 bits. Incomplete here to keep Eigen out of this header; include
/// "tenon/core/half.h" to read or write their values.
using float16 = Eigen::half;
using bfloat16 = Eigen::bfloat16;

/// Element type of a tensor.
enum class DType : std::uint8_t { Bool, UInt8, Int64, Float16, BFloat16, Float32, Float64 };

/// Bytes one element takes.
std::size_t item_size(DType dtype);
/// PyTorch's name without the prefix: "float32", "bool", …
std::string_view name(DType dtype);
/// True for the four floating types.
bool is_floating(DType dtype);
/// The type that PyTorch's `torch.promote_types` gives for two tensors of at least one dimension.
DType promote_types(DType a, DType b);
/// The dtype called `name`; throws `Error` listing the known names.
DType parse_dtype(std::string_view name);

std::ostream& operator<<(std::ostream& out, DType dtype);

namespace detail {
template <class T>
struct DTypeOf;
// clang-format off
template <> struct DTypeOf<bool> { static constexpr DType value = DType::Bool; };
template <> struct DTypeOf<std::uint8_t> { static constexpr DType value = DType::UInt8; };
template <> struct DTypeOf<std::int64_t> { static constexpr DType value = DType::Int64; };
template <> struct DTypeOf<float16> { static constexpr DType value = DType::Float16; };
template <> struct DTypeOf<bfloat16> { static constexpr DType value = DType::BFloat16; };
template <> struct DTypeOf<float> { static constexpr DType value = DType::Float32; };
template <> struct DTypeOf<double> { static constexpr DType value = DType::Float64; };
// clang-format on
}  // namespace detail

/// The `DType` of the C++ type `T`.
template <class T>
inline constexpr DType dtype_of = detail::DTypeOf<std::remove_cv_t<T>>::value;

/// Calls `visitor.template operator()<T>()` with the C++ type of `dtype`, any of the seven.
template <class Visitor>
decltype(auto) visit_dtype(DType dtype, Visitor&& visitor) {
  switch (dtype) {
    case DType::Bool:
      return visitor.template operator()<bool>();
    case DType::UInt8:
      return visitor.template operator()<std::uint8_t>();
    case DType::Int64:
      return visitor.template operator()<std::int64_t>();
    case DType::Float16:
      return visitor.template operator()<float16>();
    case DType::BFloat16:
      return visitor.template operator()<bfloat16>();
    case DType::Float32:
      return visitor.template operator()<float>();
    case DType::Float64:
      return visitor.template operator()<double>();
  }
  detail::fail("unknown dtype");
}

/// Like `visit_dtype` for the floating types; throws `Error` naming `op` for any other.
template <class Visitor>
decltype(auto) visit_floating(DType dtype, std::string_view op, Visitor&& visitor) {
  switch (dtype) {
    case DType::Float16:
      return visitor.template operator()<float16>();
    case DType::BFloat16:
      return visitor.template operator()<bfloat16>();
    case DType::Float32:
      return visitor.template operator()<float>();
    case DType::Float64:
      return visitor.template operator()<double>();
    default:
      detail::fail(detail::concat(op, ": needs a floating dtype, got ", name(dtype)));
  }
}

/// A number given to an op in place of a tensor. Remembers whether it was written as a bool, an
/// integer or a real, because type promotion depends on it (`int64_tensor + 1` stays int64,
/// `int64_tensor + 1.5` becomes float32; a scalar never widens a dtype of its own category).
class Scalar {
 public:
  enum class Kind : std::uint8_t { Bool, Int, Real };

  Scalar(bool value) : kind_(Kind::Bool), integer_(value), real_(value) {}  // NOLINT(implicit)
  template <class T>
  requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
      Scalar(T value)  // NOLINT(implicit): numbers convert silently, as in PyTorch
      : kind_(std::is_integral_v<T> ? Kind::Int : Kind::Real),
        integer_(static_cast<std::int64_t>(std::is_integral_v<T> ? value : T{})),
        real_(static_cast<double>(value)) {}

  Kind kind() const { return kind_; }
  /// The value as a double (exact for reals and for integers below 2^53).
  double to_double() const { return real_; }
  /// The value as an integer; reals are truncated toward zero as by a C++ cast.
  std::int64_t to_int64() const {
    return kind_ == Kind::Real ? static_cast<std::int64_t>(real_) : integer_;
  }
  bool operator==(const Scalar&) const = default;

 private:
  Kind kind_;
  std::int64_t integer_;
  double real_;
};

/// The dtype of `tensor_dtype` combined with a scalar of `kind`: the tensor's own unless the
/// scalar is of a higher category (bool < integer < real).
DType promote_with_scalar(DType tensor_dtype, Scalar::Kind kind);

std::ostream& operator<<(std::ostream& out, const Scalar& scalar);

}  // namespace tenon
