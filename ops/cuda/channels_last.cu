#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/channels_last.cuh"
#include "tenon/ops/cuda/channels_last.h"

namespace tenon::ops::cuda {
namespace {

template <class T>
struct Unchanged {
  __device__ Unchanged of(const ChannelShare<T>& /*share*/, bool /*wide*/) const { return *this; }
  __device__ typename PassTiling<T>::Unit operator()(typename PassTiling<T>::Unit unit,
                                                     int /*i*/) const {
    return unit;
  }
};

template <class T>
struct WithBias {
  using C = tenon::cuda::compute_type<T>;
  using Unit = typename PassTiling<T>::Unit;

  struct Mapped {
    Shifts<T> shifts;

    __device__ Unit operator()(const Unit& y, int i) const {
      C values[PassTiling<T>::kUnit];
#pragma unroll
      for (int e = 0; e < PassTiling<T>::kUnit; ++e) {
        values[e] = tenon::cuda::convert<C>(y.values[e]) + shifts.values[i];
      }
      return rounded<T>(values);
    }
  };

  const T* bias;
  bool wide_bias;

  __device__ Mapped of(const ChannelShare<T>& share, bool wide) const {
    return {Shifts<T>(bias, share, wide && wide_bias)};
  }
};

/// target = source, source in planar and target in channels-last memory.
template <class T>
__global__ void __launch_bounds__(PassTiling<T>::kThreads)
    to_channels_last_kernel(const tenon::cuda::PreviousKernel previous, const T* source, T* target,
                            ImageGrid grid) {
  using Layout = PassTiling<T>;
  using Share = ChannelShare<T>;
  __shared__ alignas(16) typename ImageTile<T>::Units units;
  const ImageTile<T> tile(grid);
  previous.wait();
  load_planes(source, grid, tile, units);
  __syncthreads();
  const Share share(grid, tile);
#pragma unroll
  for (int round = 0; round < Share::kUnitRounds; ++round) {
    typename Layout::Wide packs[Layout::kUnit];
#pragma unroll
    for (int i = 0; i < Layout::kPack; ++i) {
      const auto unit = share.unit(units, round, i);
#pragma unroll
      for (int e = 0; e < Layout::kUnit; ++e) packs[e].values[i] = unit.values[e];
    }
#pragma unroll
    for (int e = 0; e < Layout::kUnit; ++e) {
      const std::int64_t pixel = share.pixel(tile, round, e);
      if (pixel >= grid.pixels) continue;
      share.store(target + pixel * grid.channels + share.channel, packs[e], grid.wide_channels);
    }
  }
}

}  // namespace

Tensor empty_channels_last(const TensorSpec& spec) {
  return tenon::detail::make_empty(spec, MemoryFormat::ChannelsLast);
}

Tensor to_channels_last(const Tensor& x) {
  if (x.is_contiguous(MemoryFormat::ChannelsLast)) {
    return tenon::detail::with_strides_of(x, MemoryFormat::ChannelsLast);
  }
  const Tensor target = empty_channels_last(x.spec());
  if (x.numel() == 0) return target;
  const tenon::cuda::DeviceGuard guard(x.device());
  const ImageGrid grid(target, x);
  tenon::cuda::visit_device_floating(x.dtype(), "channels_last", [&]<class T>() {
    tenon::cuda::launch<to_channels_last_kernel<T>>({grid.blocks<T>(), PassTiling<T>::kThreads},
                                                    x.device(), static_cast<const T*>(x.raw_data()),
                                                    static_cast<T*>(target.raw_data()), grid);
  });
  return target;
}

void from_channels_last(const Tensor& source, const Tensor& bias, const Tensor& target) {
  if (target.numel() == 0) return;
  const tenon::cuda::DeviceGuard guard(target.device());
  const ImageGrid grid(source, target);
  tenon::cuda::visit_device_floating(target.dtype(), "channels_last", [&]<class T>() {
    if (!bias.defined()) {
      launch_to_planes<T>(source, target, grid, Unchanged<T>());
      return;
    }
    const Tensor shifts = bias.contiguous();
    launch_to_planes<T>(
        source, target, grid,
        WithBias<T>{static_cast<const T*>(shifts.raw_data()), is_aligned(shifts.raw_data())});
  });
}

}  // namespace tenon::ops::cuda
