#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/fused/epilogue.cuh"
#include "tenon/ops/cuda/fused/epilogue_pass.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;
using tenon::cuda::Pack;

constexpr int kThreads = 256;

/// Packs a thread loads before it uses the first: enough bytes in flight to hide the latency of
/// memory.
constexpr int kUnroll = 4;

/// The tensor [N·C planes, pixels] in packs, cut into blocks of at most kThreads·kUnroll packs of
/// one plane; small planes share a block's threads no further than that.
struct PlaneGrid {
  std::int64_t planes;
  std::int64_t pixels;  // of a plane, in packs
  std::int64_t channels;
  std::int64_t parts;  // blocks a plane

  PlaneGrid(const Tensor& data, int count)
      : planes(data.shape()[0] * data.shape()[1]),
        pixels(data.shape()[2] * data.shape()[3] / count),
        channels(data.shape()[1]),
        parts((pixels + kThreads * kUnroll - 1) / (kThreads * kUnroll)) {}

  unsigned blocks() const { return static_cast<unsigned>(planes * parts); }
};

/// True when rows of planes can be read in packs of `count`.
bool planes_pack(const Tensor& data, int count) {
  const auto bytes = static_cast<std::uintptr_t>(count) * item_size(data.dtype());
  return data.shape()[2] * data.shape()[3] % count == 0 &&
         reinterpret_cast<std::uintptr_t>(data.raw_data()) % bytes == 0;
}

template <class T, int kCount, class Chain>
__global__ void __launch_bounds__(kThreads)
    epilogue_kernel(T* data, const T* bias, PlaneGrid grid, Chain chain) {
  using C = compute_type<T>;
  const std::int64_t plane = blockIdx.x / grid.parts;
  const std::int64_t first = blockIdx.x % grid.parts * (kThreads * kUnroll) + threadIdx.x;
  const C shift = bias == nullptr ? C(0) : convert<C>(bias[plane % grid.channels]);
  auto* packs = reinterpret_cast<Pack<T, kCount>*>(data) + plane * grid.pixels;
  Pack<T, kCount> loaded[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const std::int64_t i = first + u * kThreads;
    if (i < grid.pixels) loaded[u] = packs[i];
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const std::int64_t i = first + u * kThreads;
    if (i >= grid.pixels) break;
#pragma unroll
    for (T& value : loaded[u].values) value = convert<T>(chain(convert<C>(value) + shift));
    packs[i] = loaded[u];
  }
}

/// As above for the gradient; partial[block] is the sum of the gradients that the block wrote.
template <class T, int kCount, class Chain>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(T* data, const T* bias, const T* grad_out, PlaneGrid grid, Chain chain,
                    compute_type<T>* partial) {
  using C = compute_type<T>;
  const std::int64_t plane = blockIdx.x / grid.parts;
  const std::int64_t first = blockIdx.x % grid.parts * (kThreads * kUnroll) + threadIdx.x;
  const C shift = bias == nullptr ? C(0) : convert<C>(bias[plane % grid.channels]);
  auto* packs = reinterpret_cast<Pack<T, kCount>*>(data) + plane * grid.pixels;
  const auto* grads = reinterpret_cast<const Pack<T, kCount>*>(grad_out) + plane * grid.pixels;
  Pack<T, kCount> y[kUnroll];
  Pack<T, kCount> g[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const std::int64_t i = first + u * kThreads;
    if (i < grid.pixels) {
      y[u] = packs[i];
      g[u] = grads[i];
    }
  }
  C sum(0);
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const std::int64_t i = first + u * kThreads;
    if (i >= grid.pixels) break;
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      const C grad = chain.gradient(convert<C>(y[u].values[k]) + shift, convert<C>(g[u].values[k]));
      y[u].values[k] = convert<T>(grad);
      sum += grad;
    }
    packs[i] = y[u];
  }
  if (partial == nullptr) return;
  __shared__ C sums[kThreads];
  sums[threadIdx.x] = sum;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) partial[blockIdx.x] = sums[0];
}

/// Calls `launch.template operator()<T, kCount>(chain)` for the dtype, the pack size that fits and
/// the chain.
template <class Launch>
void with_types(const Tensor& data, bool packs_fit, const Epilogue& epilogue, Launch&& launch) {
  tenon::cuda::visit_device_floating(data.dtype(), "conv_transpose2d_epilogue", [&]<class T>() {
    constexpr int kCount = static_cast<int>(16 / sizeof(T));
    using C = compute_type<T>;
    const auto with_count = [&](auto chain) {
      if (packs_fit && planes_pack(data, kCount)) {
        launch.template operator()<T, kCount>(chain);
      } else {
        launch.template operator()<T, 1>(chain);
      }
    };
    if (epilogue.mish) {
      with_count(MishClampScale<C, true>(epilogue));
    } else {
      with_count(MishClampScale<C, false>(epilogue));
    }
  });
}

template <class T>
T* pointer(const Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.raw_data()) : nullptr;
}

}  // namespace

void epilogue_pass(const Tensor& data, const Tensor& bias, const Epilogue& epilogue) {
  if (data.numel() == 0) return;
  const tenon::cuda::DeviceGuard guard(data.device());
  const cudaStream_t stream = tenon::cuda::current_stream(data.device());
  with_types(data, true, epilogue, [&]<class T, int kCount>(auto chain) {
    const PlaneGrid grid(data, kCount);
    epilogue_kernel<T, kCount>
        <<<grid.blocks(), kThreads, 0, stream>>>(pointer<T>(data), pointer<T>(bias), grid, chain);
    TENON_CUDA_CHECK(cudaGetLastError());
  });
}

void epilogue_gradient_pass(const Tensor& data, const Tensor& bias, const Tensor& grad_out,
                            const Epilogue& epilogue, const Tensor& grad_bias) {
  if (data.numel() == 0) {
    if (grad_bias.defined()) kernels::fill(grad_bias, 0);
    return;
  }
  const Device device = data.device();
  const tenon::cuda::DeviceGuard guard(device);
  const cudaStream_t stream = tenon::cuda::current_stream(device);
  const bool packs_fit = reinterpret_cast<std::uintptr_t>(grad_out.raw_data()) % 16 == 0;
  with_types(data, packs_fit, epilogue, [&]<class T, int kCount>(auto chain) {
    using C = compute_type<T>;
    const PlaneGrid grid(data, kCount);
    Tensor partial;
    if (grad_bias.defined()) {
      const DType sum_dtype = sizeof(C) == 8 ? DType::Float64 : DType::Float32;
      partial = tenon::detail::make_empty(
          {{data.shape()[0], grid.channels, grid.parts}, sum_dtype, device});
    }
    gradient_kernel<T, kCount><<<grid.blocks(), kThreads, 0, stream>>>(
        pointer<T>(data), pointer<T>(bias), pointer<T>(grad_out), grid, chain, pointer<C>(partial));
    TENON_CUDA_CHECK(cudaGetLastError());
    if (!grad_bias.defined()) return;
    const Tensor sum = tenon::detail::make_empty({{1, grid.channels, 1}, partial.dtype(), device});
    kernels::sum_to(partial, sum);
    kernels::copy(tenon::detail::make_view(sum, {grid.channels}, {1}, 0), grad_bias);
  });
}

}  // namespace tenon::ops::cuda
