#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/channels_last.cuh"
#include "tenon/ops/cuda/fused/epilogue.cuh"
#include "tenon/ops/cuda/fused/epilogue_pass.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;

/// The chain behind the bias, as launch_to_planes wants it.
template <class T, class Chain>
struct Apply {
  using C = compute_type<T>;
  using Unit = typename PassTiling<T>::Unit;

  struct Mapped {
    Shifts<T> shifts;
    const Chain& chain;

    __device__ Unit operator()(const Unit& y, int i) const {
      C values[PassTiling<T>::kUnit];
#pragma unroll
      for (int e = 0; e < PassTiling<T>::kUnit; ++e) {
        values[e] = chain(convert<C>(y.values[e]) + shifts.values[i]);
      }
      return rounded<T>(values);
    }
  };

  const T* bias;  // may be null
  bool wide_bias;
  Chain chain;

  __device__ Mapped of(const ChannelShare<T>& share, bool wide) const {
    return {Shifts<T>(bias, share, wide && wide_bias), chain};
  }
};

/// partial[pixel tile][channel] = the sum over the block of what its threads have summed for their
/// channels, in a fixed order.
template <class T>
__device__ void sum_block(compute_type<T> (&sums)[PassTiling<T>::kPack], const ImageGrid& grid,
                          const ImageTile<T>& tile, compute_type<T>* partial) {
  using Layout = PassTiling<T>;
  constexpr int kWarps = Layout::kThreads / 32;
  __shared__ compute_type<T> of_warps[kWarps][Layout::kChannels];
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < Layout::kPack; ++i) {
#pragma unroll
    for (int step = Layout::kPacks; step < 32; step *= 2) {
      sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], step);
    }
    if (lane < Layout::kPacks) of_warps[threadIdx.x / 32][lane * Layout::kPack + i] = sums[i];
  }
  __syncthreads();
  const int channel = static_cast<int>(threadIdx.x);
  if (channel >= Layout::kChannels || tile.first_channel + channel >= grid.channels) return;
  compute_type<T> total(0);
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) total += of_warps[warp][channel];
  partial[tile.pixel_tile * grid.channels + tile.first_channel + channel] = total;
}

/// data, in channels-last memory, becomes the gradient there, from the planar grad_out;
/// partial[pixel tile][channel] becomes the sum over the tile unless it is null.
template <class T, class Chain>
__global__ void __launch_bounds__(PassTiling<T>::kThreads)
    gradient_kernel(const tenon::cuda::PreviousKernel previous, const T* grad_out, T* data,
                    const T* bias, bool wide_bias, ImageGrid grid, Chain chain,
                    compute_type<T>* partial) {
  using C = compute_type<T>;
  using Layout = PassTiling<T>;
  using Share = ChannelShare<T>;
  __shared__ alignas(16) typename ImageTile<T>::Units units;
  const ImageTile<T> tile(grid);
  const Share share(grid, tile);
  typename Layout::Wide y[Share::kUnitRounds][Layout::kUnit] = {};
  previous.wait();
#pragma unroll
  for (int round = 0; round < Share::kUnitRounds; ++round) {
#pragma unroll
    for (int e = 0; e < Layout::kUnit; ++e) {
      const std::int64_t pixel = share.pixel(tile, round, e);
      if (pixel >= grid.pixels) continue;
      y[round][e] = share.load(data + pixel * grid.channels + share.channel, grid.wide_channels);
    }
  }
  load_planes(grad_out, grid, tile, units);
  const Shifts<T> shifts(bias, share, grid.wide_channels && wide_bias);
  C sums[Layout::kPack] = {};
  __syncthreads();
#pragma unroll
  for (int round = 0; round < Share::kUnitRounds; ++round) {
#pragma unroll
    for (int i = 0; i < Layout::kPack; ++i) {
      const auto unit = share.unit(units, round, i);
#pragma unroll
      for (int e = 0; e < Layout::kUnit; ++e) {
        T& value = y[round][e].values[i];
        const C grad =
            chain.gradient(convert<C>(value) + shifts.values[i], convert<C>(unit.values[e]));
        value = convert<T>(grad);
        sums[i] += share.pixel(tile, round, e) < grid.pixels ? grad : C(0);
      }
    }
#pragma unroll
    for (int e = 0; e < Layout::kUnit; ++e) {
      const std::int64_t pixel = share.pixel(tile, round, e);
      if (pixel >= grid.pixels) continue;
      share.store(data + pixel * grid.channels + share.channel, y[round][e], grid.wide_channels);
    }
  }
  if (partial != nullptr) sum_block<T>(sums, grid, tile, partial);
}

/// Calls `launch.template operator()<T>(chain)` for the dtype and the chain.
template <class Launch>
void with_types(const Tensor& data, const Epilogue& epilogue, Launch&& launch) {
  tenon::cuda::visit_device_floating(data.dtype(), "conv_transpose2d_epilogue", [&]<class T>() {
    using C = compute_type<T>;
    if (epilogue.mish) {
      launch.template operator()<T>(MishClampScale<C, true>(epilogue));
    } else {
      launch.template operator()<T>(MishClampScale<C, false>(epilogue));
    }
  });
}

template <class T>
T* pointer(const Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.raw_data()) : nullptr;
}

}  // namespace

void epilogue_pass_from_channels_last(const Tensor& y, const Tensor& bias, const Epilogue& epilogue,
                                      const Tensor& z) {
  if (z.numel() == 0) return;
  const tenon::cuda::DeviceGuard guard(z.device());
  const ImageGrid grid(y, z);
  with_types(z, epilogue, [&]<class T>(auto chain) {
    const auto* shifts = pointer<const T>(bias);
    const Apply<T, decltype(chain)> apply{shifts, is_aligned(shifts), chain};
    launch_to_planes<T>(y, z, grid, apply);
  });
}

void epilogue_gradient_pass_channels_last(const Tensor& data, const Tensor& bias,
                                          const Tensor& grad_out, const Epilogue& epilogue,
                                          const Tensor& grad_bias) {
  const Device device = data.device();
  const tenon::cuda::DeviceGuard guard(device);
  if (data.numel() == 0) {
    if (grad_bias.defined()) kernels::fill(grad_bias, 0);
    return;
  }
  const ImageGrid grid(data, grad_out);
  with_types(data, epilogue, [&]<class T>(auto chain) {
    using C = compute_type<T>;
    Tensor partial;
    if (grad_bias.defined()) {
      const DType sum_dtype = sizeof(C) == 8 ? DType::Float64 : DType::Float32;
      partial =
          tenon::detail::make_empty({{grid.pixel_tiles<T>(), grid.channels}, sum_dtype, device});
    }
    const auto* shifts = pointer<const T>(bias);
    tenon::cuda::launch<gradient_kernel<T, decltype(chain)>>(
        {grid.blocks<T>(), PassTiling<T>::kThreads}, device, pointer<const T>(grad_out),
        pointer<T>(data), shifts, is_aligned(shifts), grid, chain, pointer<C>(partial));
    if (!grad_bias.defined()) return;
    const Tensor sum = tenon::detail::make_empty({{grid.channels}, partial.dtype(), device});
    kernels::sum_to(partial, sum);
    kernels::copy(sum, grad_bias);
  });
}

}  // namespace tenon::ops::cuda
