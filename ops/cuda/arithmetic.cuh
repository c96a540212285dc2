// The functions of two numbers that elementwise arithmetic is made of, on the device.
#pragma once

#include <cstdint>
#include <type_traits>

#include "tenon/ops/binary.h"

namespace tenon::ops::cuda {

struct Add {
  template <class C>
  __device__ C operator()(C a, C b) const {
    return a + b;
  }
};

struct Sub {
  template <class C>
  __device__ C operator()(C a, C b) const {
    return a - b;
  }
};

struct Mul {
  template <class C>
  __device__ C operator()(C a, C b) const {
    return a * b;
  }
};

struct Div {
  template <class C>
  __device__ C operator()(C a, C b) const {
    return a / b;
  }
};

/// base^exponent; integers wrap around, and a negative exponent truncates the fraction.
struct Pow {
  template <class C>
  __device__ C operator()(C base, C exponent) const {
    if constexpr (std::is_integral_v<C>) {
      if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0;
      std::uint64_t result = 1;
      std::uint64_t factor = static_cast<std::uint64_t>(base);
      for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) result *= factor;
        factor *= factor;
      }
      return static_cast<C>(result);
    } else {
      return ::pow(base, exponent);
    }
  }
};

struct Maximum {
  template <class C>
  __device__ C operator()(C a, C b) const {
    return a > b || a != a ? a : b;
  }
};

struct Minimum {
  template <class C>
  __device__ C operator()(C a, C b) const {
    return a < b || a != a ? a : b;
  }
};

/// Any of them on integers, chosen as the kernel runs. Div is not defined there.
struct IntegerBinary {
  BinaryKind kind;
  __device__ std::int64_t operator()(std::int64_t a, std::int64_t b) const {
    switch (kind) {
      case BinaryKind::Add:
        return Add()(a, b);
      case BinaryKind::Sub:
        return Sub()(a, b);
      case BinaryKind::Mul:
        return Mul()(a, b);
      case BinaryKind::Maximum:
        return Maximum()(a, b);
      case BinaryKind::Minimum:
        return Minimum()(a, b);
      default:
        return Pow()(a, b);
    }
  }
};

}  // namespace tenon::ops::cuda
