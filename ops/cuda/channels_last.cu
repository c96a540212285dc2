#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/channels_last.cuh"
#include "tenon/ops/cuda/channels_last.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;

template <class T>
struct SameValue {
  __device__ T operator()(T value, std::int64_t /*channel*/) const { return value; }
};

template <class T>
struct Widened {
  __device__ compute_type<T> operator()(T value, std::int64_t, std::int64_t) const {
    return convert<compute_type<T>>(value);
  }
};

}  // namespace

Tensor empty_channels_last(const TensorSpec& spec) {
  const Tensor memory = tenon::detail::make_empty(spec);
  const std::int64_t channels = spec.shape[1];
  const std::int64_t width = spec.shape[3];
  return tenon::detail::make_view(
      memory, spec.shape, {channels * spec.shape[2] * width, 1, channels * width, channels}, 0);
}

Tensor to_channels_last(const Tensor& x) {
  const Tensor target = empty_channels_last(x.spec());
  if (x.numel() == 0) return target;
  const tenon::cuda::DeviceGuard guard(x.device());
  const TileGrid grid(x.shape());
  tenon::cuda::visit_device_floating(x.dtype(), "to_channels_last", [&]<class T>() {
    gather_channels_kernel<T>
        <<<grid.blocks(), TileGrid::threads(), 0, tenon::cuda::current_stream(x.device())>>>(
            static_cast<const T*>(x.raw_data()), static_cast<T*>(target.raw_data()), grid,
            Widened<T>(), nullptr);
    TENON_CUDA_CHECK(cudaGetLastError());
  });
  return target;
}

void from_channels_last(const Tensor& source, const Tensor& target) {
  if (target.numel() == 0) return;
  const tenon::cuda::DeviceGuard guard(target.device());
  const TileGrid grid(target.shape());
  tenon::cuda::visit_device_floating(target.dtype(), "from_channels_last", [&]<class T>() {
    spread_channels_kernel<T>
        <<<grid.blocks(), TileGrid::threads(), 0, tenon::cuda::current_stream(target.device())>>>(
            static_cast<const T*>(source.raw_data()), static_cast<T*>(target.raw_data()), grid,
            SameValue<T>());
    TENON_CUDA_CHECK(cudaGetLastError());
  });
}

}  // namespace tenon::ops::cuda
