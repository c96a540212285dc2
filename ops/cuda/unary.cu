#include "tenon/ops/cuda/map.cuh"
#include "tenon/ops/cuda/unary.h"

namespace tenon::ops::cuda {
namespace {

struct Neg {
  template <class C>
  __device__ C operator()(C x) const {
    return -x;
  }
};

struct Abs {
  template <class C>
  __device__ C operator()(C x) const {
    if constexpr (std::is_integral_v<C>) {
      return x < 0 ? -x : x;
    } else {
      return ::fabs(x);
    }
  }
};

struct Sign {
  template <class C>
  __device__ C operator()(C x) const {
    return x > C(0) ? C(1) : x < C(0) ? C(-1) : C(0);
  }
};

struct Square {
  template <class C>
  __device__ C operator()(C x) const {
    return x * x;
  }
};

struct Floor {
  template <class C>
  __device__ C operator()(C x) const {
    return ::floor(x);
  }
};

struct Exp {
  template <class C>
  __device__ C operator()(C x) const {
    return ::exp(x);
  }
};

struct Log {
  template <class C>
  __device__ C operator()(C x) const {
    return ::log(x);
  }
};

struct Sqrt {
  template <class C>
  __device__ C operator()(C x) const {
    return ::sqrt(x);
  }
};

struct Rsqrt {
  template <class C>
  __device__ C operator()(C x) const {
    return C(1) / ::sqrt(x);
  }
};

struct Reciprocal {
  template <class C>
  __device__ C operator()(C x) const {
    return C(1) / x;
  }
};

struct Sin {
  template <class C>
  __device__ C operator()(C x) const {
    return ::sin(x);
  }
};

struct Cos {
  template <class C>
  __device__ C operator()(C x) const {
    return ::cos(x);
  }
};

struct IntegerUnary {
  UnaryKind kind;
  __device__ std::int64_t operator()(std::int64_t x) const {
    switch (kind) {
      case UnaryKind::Neg:
        return Neg()(x);
      case UnaryKind::Abs:
        return Abs()(x);
      case UnaryKind::Sign:
        return Sign()(x);
      case UnaryKind::Square:
        return Square()(x);
      default:  // Floor
        return x;
    }
  }
};

}  // namespace

void unary(UnaryKind kind, const Tensor& x, const Tensor& y) {
  if (!is_floating(x.dtype())) {
    TENON_CHECK(kind <= UnaryKind::Floor, "unary: needs a floating dtype, got ", x.dtype());
    return map_integer<1>({x}, y, IntegerUnary{kind});
  }
  switch (kind) {
    case UnaryKind::Neg:
      return map_floating<1>({x}, y, Neg());
    case UnaryKind::Abs:
      return map_floating<1>({x}, y, Abs());
    case UnaryKind::Sign:
      return map_floating<1>({x}, y, Sign());
    case UnaryKind::Square:
      return map_floating<1>({x}, y, Square());
    case UnaryKind::Floor:
      return map_floating<1>({x}, y, Floor());
    case UnaryKind::Exp:
      return map_floating<1>({x}, y, Exp());
    case UnaryKind::Log:
      return map_floating<1>({x}, y, Log());
    case UnaryKind::Sqrt:
      return map_floating<1>({x}, y, Sqrt());
    case UnaryKind::Rsqrt:
      return map_floating<1>({x}, y, Rsqrt());
    case UnaryKind::Reciprocal:
      return map_floating<1>({x}, y, Reciprocal());
    case UnaryKind::Sin:
      return map_floating<1>({x}, y, Sin());
    case UnaryKind::Cos:
      return map_floating<1>({x}, y, Cos());
  }
}

}  // namespace tenon::ops::cuda
