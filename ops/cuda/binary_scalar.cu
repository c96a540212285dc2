#include "tenon/ops/cuda/arithmetic.cuh"
#include "tenon/ops/cuda/binary.h"
#include "tenon/ops/cuda/map.cuh"
#include "tenon/ops/cuda/unary.h"

namespace tenon::ops::cuda {
namespace {

/// x -> function(x, scalar)
template <class Function, class C>
struct WithSecond {
  Function function;
  C scalar;
  __device__ C operator()(C x) const { return function(x, scalar); }
};

/// x -> function(scalar, x)
template <class Function, class C>
struct WithFirst {
  Function function;
  C scalar;
  __device__ C operator()(C x) const { return function(scalar, x); }
};

struct Cube {
  template <class C>
  __device__ C operator()(C x) const {
    return x * x * x;
  }
};

template <class Function>
void with_second(const Tensor& x, Scalar scalar, const Tensor& out) {
  map_floating_made<1>({x}, out, [scalar]<class C>() {
    return WithSecond<Function, C>{Function(), scalar_as<C>(scalar)};
  });
}

template <class Function>
void with_first(const Tensor& x, Scalar scalar, const Tensor& out) {
  map_floating_made<1>({x}, out, [scalar]<class C>() {
    return WithFirst<Function, C>{Function(), scalar_as<C>(scalar)};
  });
}

/// x^exponent, with the exponents that need no logarithm computed without one.
void power_scalar(const Tensor& x, Scalar exponent, const Tensor& out) {
  const double e = exponent.to_double();
  if (e == 1) return with_second<Mul>(x, 1, out);
  if (e == 2) return unary(UnaryKind::Square, x, out);
  if (e == 3) return map_floating<1>({x}, out, Cube());
  if (e == -1) return unary(UnaryKind::Reciprocal, x, out);
  with_second<Pow>(x, exponent, out);
}

void integer_scalar(BinaryKind kind, const Tensor& x, Scalar scalar, bool reversed,
                    const Tensor& out) {
  TENON_CHECK(kind != BinaryKind::Div, "div: needs a floating dtype, got ", out.dtype());
  const std::int64_t value = scalar.to_int64();
  if (reversed) {
    map_integer<1>({x}, out, WithFirst<IntegerBinary, std::int64_t>{{kind}, value});
  } else {
    map_integer<1>({x}, out, WithSecond<IntegerBinary, std::int64_t>{{kind}, value});
  }
}

}  // namespace

void binary_scalar(BinaryKind kind, const Tensor& x, Scalar scalar, bool reversed,
                   const Tensor& out) {
  TENON_CHECK(kind != BinaryKind::Maximum && kind != BinaryKind::Minimum,
              "maximum and minimum have no scalar form");
  if (!is_floating(out.dtype())) return integer_scalar(kind, x, scalar, reversed, out);
  switch (kind) {
    case BinaryKind::Add:
      return with_second<Add>(x, scalar, out);
    case BinaryKind::Sub:
      return reversed ? with_first<Sub>(x, scalar, out) : with_second<Sub>(x, scalar, out);
    case BinaryKind::Mul:
      return with_second<Mul>(x, scalar, out);
    case BinaryKind::Div:
      return reversed ? with_first<Div>(x, scalar, out) : with_second<Div>(x, scalar, out);
    case BinaryKind::Pow:
      return reversed ? with_first<Pow>(x, scalar, out) : power_scalar(x, scalar, out);
    case BinaryKind::Maximum:
    case BinaryKind::Minimum:
      return;
  }
}

}  // namespace tenon::ops::cuda
