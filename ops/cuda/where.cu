#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/ops/cuda/where.h"

namespace tenon::ops::cuda {
namespace {

struct Select {
  template <class Bits>
  __device__ Bits operator()(bool condition, Bits x, Bits y) const {
    return condition ? x : y;
  }
};

/// Elements are only moved, so that one instance serves all dtypes of a size.
template <class Bits>
void where_typed(const Tensor& condition, const Tensor& x, const Tensor& y, const Tensor& out) {
  tenon::cuda::elementwise<Bits, bool, Bits, Bits>(out, {condition, x, y}, Select());
}

}  // namespace

void where(const Tensor& condition, const Tensor& x, const Tensor& y, const Tensor& out) {
  switch (item_size(out.dtype())) {
    case 1:
      return where_typed<std::uint8_t>(condition, x, y, out);
    case 2:
      return where_typed<std::uint16_t>(condition, x, y, out);
    case 4:
      return where_typed<std::uint32_t>(condition, x, y, out);
    default:
      return where_typed<std::uint64_t>(condition, x, y, out);
  }
}

}  // namespace tenon::ops::cuda
