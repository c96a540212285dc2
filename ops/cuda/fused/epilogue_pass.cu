#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/launch.cuh"
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

/// Batches of kUnroll packs that a thread of a channels-last pass takes.
constexpr int kBatches = 4;

/// Channels-last data as [pixels, packs of channels]. A block takes `columns` neighbouring packs of
/// kBatches·kUnroll·rows pixels, `rows` of them at a time; a thread stays with its channels.
struct PixelGrid {
  std::int64_t pixels;
  std::int64_t packs;    // of a pixel
  std::int64_t columns;  // a power of two, at most 32
  std::int64_t rows;     // kThreads / columns
  std::int64_t tiles;    // blocks along the packs
  std::int64_t chunks;   // blocks along the pixels

  PixelGrid(const Tensor& data, int count)
      : pixels(data.shape()[0] * data.shape()[2] * data.shape()[3]),
        packs(data.shape()[1] / count),
        columns(1) {
    while (columns < packs && columns < 32) columns *= 2;
    rows = kThreads / columns;
    tiles = (packs + columns - 1) / columns;
    const std::int64_t chunk = rows * kUnroll * kBatches;
    chunks = (pixels + chunk - 1) / chunk;
  }

  unsigned blocks() const { return static_cast<unsigned>(tiles * chunks); }
};

/// This thread's place in a `PixelGrid`.
struct PixelPlace {
  std::int64_t pack, pixel, chunk;
  int row;

  __device__ explicit PixelPlace(const PixelGrid& grid)
      : pack(blockIdx.x % grid.tiles * grid.columns + threadIdx.x % grid.columns),
        chunk(blockIdx.x / grid.tiles),
        row(static_cast<int>(threadIdx.x / grid.columns)) {
    pixel = chunk * (grid.rows * kUnroll * kBatches) + row;
  }
};

template <class T, int kCount>
__device__ void load_shifts(const T* bias, const PixelPlace& at, compute_type<T> (&shift)[kCount]) {
  using C = compute_type<T>;
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    shift[k] = bias == nullptr ? C(0) : convert<C>(bias[at.pack * kCount + k]);
  }
}

/// `epilogue_kernel` on channels-last data.
template <class T, int kCount, class Chain>
__global__ void __launch_bounds__(kThreads)
    epilogue_last_kernel(T* data, const T* bias, PixelGrid grid, Chain chain) {
  using C = compute_type<T>;
  const PixelPlace at(grid);
  if (at.pack >= grid.packs) return;
  C shift[kCount];
  load_shifts<T, kCount>(bias, at, shift);
  auto* packs = reinterpret_cast<Pack<T, kCount>*>(data) + at.pack;
  for (int batch = 0; batch < kBatches; ++batch) {
    const std::int64_t first = at.pixel + batch * kUnroll * grid.rows;
    Pack<T, kCount> loaded[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t pixel = first + u * grid.rows;
      if (pixel < grid.pixels) loaded[u] = packs[pixel * grid.packs];
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t pixel = first + u * grid.rows;
      if (pixel >= grid.pixels) return;
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        loaded[u].values[k] = convert<T>(chain(convert<C>(loaded[u].values[k]) + shift[k]));
      }
      packs[pixel * grid.packs] = loaded[u];
    }
  }
}

/// `gradient_kernel` on channels-last data; partial[chunk, channel] is the sum of a block's rows.
template <class T, int kCount, class Chain>
__global__ void __launch_bounds__(kThreads)
    gradient_last_kernel(T* data, const T* bias, const T* grad_out, PixelGrid grid, Chain chain,
                         compute_type<T>* partial) {
  using C = compute_type<T>;
  __shared__ C sums[kThreads][kCount];
  const PixelPlace at(grid);
  const bool inside = at.pack < grid.packs;
  C shift[kCount];
  C sum[kCount]{};
  if (inside) load_shifts<T, kCount>(bias, at, shift);
  auto* packs = reinterpret_cast<Pack<T, kCount>*>(data) + at.pack;
  const auto* grads = reinterpret_cast<const Pack<T, kCount>*>(grad_out) + at.pack;
  for (int batch = 0; inside && batch < kBatches; ++batch) {
    const std::int64_t first = at.pixel + batch * kUnroll * grid.rows;
    Pack<T, kCount> y[kUnroll];
    Pack<T, kCount> g[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t pixel = first + u * grid.rows;
      if (pixel < grid.pixels) {
        y[u] = packs[pixel * grid.packs];
        g[u] = grads[pixel * grid.packs];
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const std::int64_t pixel = first + u * grid.rows;
      if (pixel >= grid.pixels) break;
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        const C grad =
            chain.gradient(convert<C>(y[u].values[k]) + shift[k], convert<C>(g[u].values[k]));
        y[u].values[k] = convert<T>(grad);
        sum[k] += grad;
      }
      packs[pixel * grid.packs] = y[u];
    }
  }
  if (partial == nullptr) return;
#pragma unroll
  for (int k = 0; k < kCount; ++k) sums[threadIdx.x][k] = sum[k];
  for (int half = static_cast<int>(grid.rows) / 2; half > 0; half /= 2) {
    __syncthreads();
    if (at.row >= half) continue;
#pragma unroll
    for (int k = 0; k < kCount; ++k) {
      sums[threadIdx.x][k] += sums[threadIdx.x + half * static_cast<int>(grid.columns)][k];
    }
  }
  if (at.row != 0 || !inside) return;
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    partial[(at.chunk * grid.packs + at.pack) * kCount + k] = sums[threadIdx.x][k];
  }
}

/// Whether the passes take `data` as channels-last, which one channel is not worth.
bool is_channels_last(const Tensor& data) {
  return data.shape()[1] > 1 && data.is_contiguous(MemoryFormat::ChannelsLast);
}

/// True when the channels of a pixel can be read in packs of `count`.
bool pixels_pack(const Tensor& data, int count) {
  const auto bytes = static_cast<std::uintptr_t>(count) * item_size(data.dtype());
  return data.shape()[1] % count == 0 &&
         reinterpret_cast<std::uintptr_t>(data.raw_data()) % bytes == 0;
}

/// Calls `launch.template operator()<T, kCount>(chain)` for the dtype, the pack size that fits and
/// the chain.
template <class Launch>
void with_types(const Tensor& data, bool packs_fit, const Epilogue& epilogue, Launch&& launch) {
  tenon::cuda::visit_device_floating(data.dtype(), "conv_transpose2d_epilogue", [&]<class T>() {
    constexpr int kCount = static_cast<int>(16 / sizeof(T));
    using C = compute_type<T>;
    const auto with_count = [&](auto chain) {
      if (packs_fit &&
          (is_channels_last(data) ? pixels_pack(data, kCount) : planes_pack(data, kCount))) {
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
  with_types(data, true, epilogue, [&]<class T, int kCount>(auto chain) {
    using Chain = decltype(chain);
    if (is_channels_last(data)) {
      const PixelGrid grid(data, kCount);
      tenon::cuda::launch<epilogue_last_kernel<T, kCount, Chain>>({grid.blocks(), kThreads},
                                                                  data.device(), pointer<T>(data),
                                                                  pointer<T>(bias), grid, chain);
    } else {
      const PlaneGrid grid(data, kCount);
      tenon::cuda::launch<epilogue_kernel<T, kCount, Chain>>({grid.blocks(), kThreads},
                                                             data.device(), pointer<T>(data),
                                                             pointer<T>(bias), grid, chain);
    }
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
  const bool packs_fit = reinterpret_cast<std::uintptr_t>(grad_out.raw_data()) % 16 == 0;
  with_types(data, packs_fit, epilogue, [&]<class T, int kCount>(auto chain) {
    using C = compute_type<T>;
    const auto run = [&]<auto kKernel>(const auto& grid, const Shape& sums) {
      Tensor partial;  // sums of y's gradient
      if (grad_bias.defined()) {
        const DType sum_dtype = sizeof(C) == 8 ? DType::Float64 : DType::Float32;
        partial = tenon::detail::make_empty({sums, sum_dtype, device});
      }
      tenon::cuda::launch<kKernel>({grid.blocks(), kThreads}, device, pointer<T>(data),
                                   pointer<T>(bias), pointer<T>(grad_out), grid, chain,
                                   pointer<C>(partial));
      if (!grad_bias.defined()) return;
      const std::int64_t channels = data.shape()[1];
      const Tensor sum = tenon::detail::make_empty({{1, channels, 1}, partial.dtype(), device});
      kernels::sum_to(partial, sum);
      kernels::copy(tenon::detail::make_view(sum, {channels}, {1}, 0), grad_bias);
    };
    if (is_channels_last(data)) {
      const PixelGrid grid(data, kCount);
      run.template operator()<gradient_last_kernel<T, kCount, decltype(chain)>>(
          grid, {grid.chunks, data.shape()[1], 1});
    } else {
      const PlaneGrid grid(data, kCount);
      run.template operator()<gradient_kernel<T, kCount, decltype(chain)>>(
          grid, {data.shape()[0], grid.channels, grid.parts});
    }
  });
}

}  // namespace tenon::ops::cuda
