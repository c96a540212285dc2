// The one elementwise kernel: target[i] = function(inputs[i]…) over strided, broadcast operands.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <tuple>
#include <utility>

#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/loop_nest.h"

namespace tenon::cuda {

inline constexpr int kElementwiseThreads = 256;

/// `tenon::detail::LoopNest` as a kernel argument. The last dimension is the innermost.
template <int kOperands>
struct DeviceNest {
  int dims;
  std::uint32_t shape[kMaxDims];
  std::uint32_t strides[kOperands][kMaxDims];
  std::byte* base[kOperands];

  explicit DeviceNest(const tenon::detail::LoopNest<kOperands>& nest)
      : dims(static_cast<int>(nest.shape.size())) {
    for (int d = 0; d < dims; ++d) {
      shape[d] = static_cast<std::uint32_t>(nest.shape[d]);
      for (int k = 0; k < kOperands; ++k) {
        strides[k][d] = static_cast<std::uint32_t>(nest.strides[k][d]);
      }
    }
    for (int k = 0; k < kOperands; ++k) base[k] = nest.base[k];
  }

  /// Offsets in elements of all operands at row-major position `position`.
  __device__ void offsets_at(std::uint32_t position, std::uint32_t (&offsets)[kOperands]) const {
#pragma unroll
    for (int k = 0; k < kOperands; ++k) offsets[k] = 0;
    for (int d = dims - 1; d > 0; --d) {
      const std::uint32_t rest = position / shape[d];
      const std::uint32_t index = position - rest * shape[d];
#pragma unroll
      for (int k = 0; k < kOperands; ++k) offsets[k] += index * strides[k][d];
      position = rest;
    }
#pragma unroll
    for (int k = 0; k < kOperands; ++k) offsets[k] += position * strides[k][0];
  }
};

/// `kCount` neighbouring elements, loaded and stored as one.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

/// Loads `kCount` elements along the innermost dimension: one pack, or one element repeated.
template <class T, int kCount>
__device__ Pack<T, kCount> load_pack(const std::byte* base, std::uint32_t offset,
                                     std::uint32_t stride) {
  const T* source = reinterpret_cast<const T*>(base) + offset;
  Pack<T, kCount> pack;
  if (kCount > 1 && stride == 1) {
    pack = *reinterpret_cast<const Pack<T, kCount>*>(source);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) pack.values[i] = source[i * stride];
  }
  return pack;
}

template <int kCount, class Function, class Out, class... Ins, std::size_t... kIns>
__device__ void elementwise_at(const DeviceNest<1 + sizeof...(Ins)>& nest, std::uint32_t position,
                               const Function& function, std::index_sequence<kIns...>) {
  std::uint32_t offsets[1 + sizeof...(Ins)];
  nest.offsets_at(position, offsets);
  const int inner = nest.dims - 1;
  const std::tuple<Pack<Ins, kCount>...> packs{load_pack<Ins, kCount>(
      nest.base[1 + kIns], offsets[1 + kIns], nest.strides[1 + kIns][inner])...};
  Pack<Out, kCount> result;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    result.values[i] = convert<Out>(function(std::get<kIns>(packs).values[i]...));
  }
  Out* target = reinterpret_cast<Out*>(nest.base[0]) + offsets[0];
  if constexpr (kCount > 1) {
    *reinterpret_cast<Pack<Out, kCount>*>(target) = result;
  } else {
    *target = result.values[0];
  }
}

/// Each thread computes `kCount` neighbours; the grid strides over the rest.
template <int kCount, class Function, class Out, class... Ins>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwise_kernel(PreviousKernel previous, const DeviceNest<1 + sizeof...(Ins)> nest,
                       std::uint32_t packs, const Function function) {
  previous.wait();
  const std::uint32_t step = gridDim.x * kElementwiseThreads;
  for (std::uint32_t i = blockIdx.x * kElementwiseThreads + threadIdx.x; i < packs; i += step) {
    elementwise_at<kCount, Function, Out, Ins...>(nest, i * kCount, function,
                                                  std::index_sequence_for<Ins...>());
  }
}

/// True when packs of `count` elements can be used: the innermost dimension is a whole number of
/// packs, and every operand either advances by one from an aligned place or stays where it is.
template <std::size_t kOperands>
bool packs_fit(const tenon::detail::LoopNest<kOperands>& nest, int count) {
  const std::size_t inner = nest.shape.size() - 1;
  if (nest.shape[inner] % count != 0 || nest.strides[0][inner] != 1) return false;
  for (std::size_t k = 0; k < kOperands; ++k) {
    if (nest.strides[k][inner] == 0) continue;
    if (nest.strides[k][inner] != 1) return false;
    const std::size_t bytes = nest.item[k] * static_cast<std::size_t>(count);
    if (reinterpret_cast<std::uintptr_t>(nest.base[k]) % bytes != 0) return false;
    for (std::size_t d = 0; d < inner; ++d) {
      if (nest.strides[k][d] % count != 0) return false;
    }
  }
  return true;
}

/// True when every offset and position fits 32 bits.
template <std::size_t kOperands>
bool fits_32_bits(const tenon::detail::LoopNest<kOperands>& nest) {
  constexpr std::int64_t kLimit = std::int64_t{1} << 31;
  // The grid's last step may run past the end by as much as it strides.
  if (nest.shape.numel() >= kLimit / 2) return false;
  for (const Strides& strides : nest.strides) {
    std::int64_t reach = 0;
    for (std::size_t d = 0; d < strides.size(); ++d) reach += (nest.shape[d] - 1) * strides[d];
    if (reach >= kLimit) return false;
  }
  return true;
}

/// Calls `launch` with pieces of `nest` that 32-bit offsets can address and that cover it once;
/// with the whole nest unless the operands have billions of elements. Divisions, which finding an
/// element's place takes, are several times as fast in 32 bits as in 64.
template <std::size_t kOperands, class Launch>
void for_each_piece(const tenon::detail::LoopNest<kOperands>& nest, const Launch& launch) {
  if (fits_32_bits(nest)) {
    launch(nest);
    return;
  }
  // Halve the dimension that reaches furthest.
  std::size_t widest = 0;
  std::int64_t furthest = -1;
  for (std::size_t d = 0; d < nest.shape.size(); ++d) {
    for (const Strides& strides : nest.strides) {
      const std::int64_t reach = (nest.shape[d] - 1) * strides[d];
      if (reach > furthest) {
        furthest = reach;
        widest = d;
      }
    }
  }
  constexpr std::int64_t kMostInAPack = 16;
  std::int64_t half = nest.shape[widest] / 2;
  if (half > kMostInAPack) half -= half % kMostInAPack;  // so that packs still fit
  tenon::detail::LoopNest<kOperands> first = nest;
  tenon::detail::LoopNest<kOperands> second = nest;
  first.shape[widest] = half;
  second.shape[widest] -= half;
  for (std::size_t k = 0; k < kOperands; ++k) {
    second.base[k] += half * nest.strides[k][widest] * static_cast<std::int64_t>(nest.item[k]);
  }
  for_each_piece(first, launch);
  for_each_piece(second, launch);
}

/// Blocks for `packs` threads' worth of elements.
inline unsigned elementwise_blocks(std::int64_t packs, Device device) {
  const std::int64_t wanted = (packs + kElementwiseThreads - 1) / kElementwiseThreads;
  const std::int64_t most = std::int64_t{properties(device).multiprocessors} * 32;
  return static_cast<unsigned>(std::min(wanted, most));
}

template <int kCount, class Out, class... Ins, class Function>
void launch_elementwise(const tenon::detail::LoopNest<1 + sizeof...(Ins)>& nest,
                        const Function& function, Device device) {
  const std::int64_t packs = nest.shape.numel() / kCount;
  launch<elementwise_kernel<kCount, Function, Out, Ins...>>(
      {elementwise_blocks(packs, device), kElementwiseThreads}, device,
      DeviceNest<1 + sizeof...(Ins)>(nest), static_cast<std::uint32_t>(packs), function);
}

/// target[i] = convert<Out>(function(inputs[i]…)), where each input broadcasts to `target`'s shape
/// and element types are `Out` and `Ins…`. `function` is a `__device__` callable. 16-byte accesses
/// where shapes, strides and alignment allow them.
template <class Out, class... Ins, class Function>
void elementwise(const Tensor& target, const std::array<Tensor, sizeof...(Ins)>& inputs,
                 const Function& function) {
  if (target.numel() == 0) return;
  constexpr std::size_t kOperands = 1 + sizeof...(Ins);
  std::array<const Tensor*, kOperands> operands;
  operands[0] = &target;
  for (std::size_t k = 1; k < kOperands; ++k) operands[k] = &inputs[k - 1];
  const DeviceGuard guard(target.device());
  constexpr int kCount = static_cast<int>(16 / std::max({sizeof(Out), sizeof(Ins)...}));
  for_each_piece(tenon::detail::LoopNest<kOperands>(target.shape(), operands),
                 [&](const tenon::detail::LoopNest<kOperands>& piece) {
                   if (packs_fit(piece, kCount)) {
                     launch_elementwise<kCount, Out, Ins...>(piece, function, target.device());
                   } else {
                     launch_elementwise<1, Out, Ins...>(piece, function, target.device());
                   }
                 });
}

}  // namespace tenon::cuda
