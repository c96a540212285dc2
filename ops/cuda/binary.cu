#include "tenon/ops/cuda/arithmetic.cuh"
#include "tenon/ops/cuda/binary.h"
#include "tenon/ops/cuda/map.cuh"

namespace tenon::ops::cuda {
void binary(BinaryKind kind, const Tensor& a, const Tensor& b, const Tensor& out) {
  if (!is_floating(out.dtype())) {
    TENON_CHECK(kind != BinaryKind::Div, "div: needs a floating dtype, got ", out.dtype());
    return map_integer<2>({a, b}, out, IntegerBinary{kind});
  }
  switch (kind) {
    case BinaryKind::Add:
      return map_floating<2>({a, b}, out, Add());
    case BinaryKind::Sub:
      return map_floating<2>({a, b}, out, Sub());
    case BinaryKind::Mul:
      return map_floating<2>({a, b}, out, Mul());
    case BinaryKind::Div:
      return map_floating<2>({a, b}, out, Div());
    case BinaryKind::Pow:
      return map_floating<2>({a, b}, out, Pow());
    case BinaryKind::Maximum:
      return map_floating<2>({a, b}, out, Maximum());
    case BinaryKind::Minimum:
      return map_floating<2>({a, b}, out, Minimum());
  }
}

}  // namespace tenon::ops::cuda
