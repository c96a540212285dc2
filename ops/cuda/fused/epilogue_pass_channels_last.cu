#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/channels_last.cuh"
#include "tenon/ops/cuda/fused/epilogue.cuh"
#include "tenon/ops/cuda/fused/epilogue_pass.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;

template <class T, class Chain>
struct Apply {
  using C = compute_type<T>;
  const T* bias;  // may be null
  Chain chain;

  __device__ T operator()(T y, std::int64_t /*pixel*/, std::int64_t channel) const {
    const C shift = bias == nullptr ? C(0) : convert<C>(bias[channel]);
    return convert<T>(chain(convert<C>(y) + shift));
  }
};

/// data[image, pixel, channel] = the gradient there, from grad_out[image, channel, pixel], and
/// partial[image, pixel tile, channel] = the sum of those of a tile unless it is null.
template <class T, int kPack, class Chain>
__global__ void __launch_bounds__(kTileThreads)
    gradient_kernel(const T* grad_out, T* data, const T* bias, TileGrid grid, Chain chain,
                    compute_type<T>* partial) {
  using C = compute_type<T>;
  using tenon::cuda::Pack;
  __shared__ TileValues<T> grads;
  __shared__ C sums[kTileThreads / (kTile / kPack)][kTile];
  const Tile<kPack> tile(grid);
  load_tile<T, kPack>(grad_out, grid, tile, grads);
  const std::int64_t channel = tile.first_row + tile.along;
  const bool inside = channel < grid.rows;
  C shift[kPack];
  C sum[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i) {
    shift[i] = bias == nullptr || !inside ? C(0) : convert<C>(bias[channel + i]);
    sum[i] = C(0);
  }
  T* image = data + tile.image * grid.rows * grid.columns + channel;
#pragma unroll
  for (int p = tile.line; p < kTile; p += Tile<kPack>::kLines) {
    const std::int64_t pixel = tile.first_column + p;
    if (!inside || pixel >= grid.columns) continue;
    auto* at = reinterpret_cast<Pack<T, kPack>*>(image + pixel * grid.rows);
    Pack<T, kPack> pack = *at;
#pragma unroll
    for (int i = 0; i < kPack; ++i) {
      const C grad = chain.gradient(convert<C>(pack.values[i]) + shift[i],
                                    convert<C>(grads[p][tile.along + i]));
      pack.values[i] = convert<T>(grad);
      sum[i] += grad;
    }
    *at = pack;
  }
  if (partial == nullptr) return;
#pragma unroll
  for (int i = 0; i < kPack; ++i) sums[tile.line][tile.along + i] = sum[i];
  __syncthreads();
  const int column = static_cast<int>(threadIdx.x);
  if (column >= kTile || tile.first_row + column >= grid.rows) return;
  C total(0);
#pragma unroll
  for (int line = 0; line < Tile<kPack>::kLines; ++line) total += sums[line][column];
  const std::int64_t pixel_tile = tile.first_column / kTile;
  partial[(tile.image * grid.column_tiles + pixel_tile) * grid.rows + tile.first_row + column] =
      total;
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
  const TileGrid grid(z.shape()[0], z.shape()[2] * z.shape()[3], z.shape()[1]);
  with_types(z, epilogue, [&]<class T>(auto chain) {
    const Apply<T, decltype(chain)> apply{pointer<const T>(bias), chain};
    launch_transpose(pointer<const T>(y), pointer<T>(z), grid, apply, z.device());
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
  const std::int64_t channels = data.shape()[1];
  const TileGrid grid(data.shape()[0], channels, data.shape()[2] * data.shape()[3]);
  const cudaStream_t stream = tenon::cuda::current_stream(device);
  with_types(data, epilogue, [&]<class T>(auto chain) {
    using C = compute_type<T>;
    constexpr int kPack = static_cast<int>(16 / sizeof(T));
    Tensor partial;
    if (grad_bias.defined()) {
      const DType sum_dtype = sizeof(C) == 8 ? DType::Float64 : DType::Float32;
      partial = tenon::detail::make_empty(
          {{grid.images * grid.column_tiles, channels}, sum_dtype, device});
    }
    const T* grads = pointer<const T>(grad_out);
    T* values = pointer<T>(data);
    const T* shifts = pointer<const T>(bias);
    if (grid.packs(kPack) && is_aligned(grads) && is_aligned(values)) {
      gradient_kernel<T, kPack><<<grid.blocks(), kTileThreads, 0, stream>>>(
          grads, values, shifts, grid, chain, pointer<C>(partial));
    } else {
      gradient_kernel<T, 1><<<grid.blocks(), kTileThreads, 0, stream>>>(grads, values, shifts, grid,
                                                                        chain, pointer<C>(partial));
    }
    TENON_CUDA_CHECK(cudaGetLastError());
    if (!grad_bias.defined()) return;
    const Tensor sum = tenon::detail::make_empty({{channels}, partial.dtype(), device});
    kernels::sum_to(partial, sum);
    kernels::copy(sum, grad_bias);
  });
}

}  // namespace tenon::ops::cuda
