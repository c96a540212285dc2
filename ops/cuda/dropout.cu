#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/philox.cuh"
#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/dropout.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;
using tenon::cuda::Pack;

/// A word below the threshold drops: of 2^32 equally likely words, p·2^32 are.
struct Keep {
  std::uint64_t threshold;
  __device__ std::uint8_t value(std::uint32_t word) const { return word >= threshold ? 1 : 0; }
  __device__ Pack<std::uint8_t, 4> operator()(uint4 words) const {
    return {value(words.x), value(words.y), value(words.z), value(words.w)};
  }
};

template <class C>
struct MaskScale {
  C factor;
  template <class T>
  __device__ C operator()(T x, std::uint8_t kept) const {
    return convert<C>(x) * (static_cast<C>(kept) * factor);
  }
};

}  // namespace

void keep_mask(const Tensor& mask, double p, std::uint64_t seed, std::uint64_t first_block) {
  tenon::cuda::fill_from_philox<std::uint8_t>(mask, seed, first_block,
                                              Keep{static_cast<std::uint64_t>(p * 0x1p32)});
}

void mask_scale(const Tensor& x, const Tensor& mask, double scale, const Tensor& y) {
  tenon::cuda::visit_device_floating(x.dtype(), "mask_scale", [&]<class T>() {
    using C = compute_type<T>;
    tenon::cuda::elementwise<T, T, std::uint8_t>(y, {x, mask}, MaskScale<C>{static_cast<C>(scale)});
  });
}

}  // namespace tenon::ops::cuda
