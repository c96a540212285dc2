#include "tenon/core/cuda/fault.cuh"
#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/gather.h"
#include "tenon/ops/split.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;
using tenon::cuda::current_stream;
using tenon::cuda::IndexCheck;
using tenon::cuda::PreviousKernel;

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

/// Elements are only moved, so that one instance serves all dtypes of a size.
template <class Bits>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(PreviousKernel previous, const Bits* x, std::int64_t size,
                  const std::int64_t* index, std::int64_t count, std::int64_t picked,
                  std::int64_t inner, IndexCheck check, Bits* out) {
  previous.wait();
  const std::int64_t element = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (element >= count) return;
  const std::int64_t at = index[element];
  const std::int64_t outer = element / (picked * inner);
  out[element] =
      check.passes(at, size) ? x[(outer * size + at) * inner + element % inner] : Bits(0);
}

template <class Bits>
void gather_typed(const Tensor& x, std::size_t dim, const Tensor& index, const Tensor& out) {
  const Split picked(index.shape(), dim);
  const Device device = x.device();
  const std::int64_t count = index.numel();
  tenon::cuda::launch<gather_kernel<Bits>>(
      {blocks_for(count), kThreads}, device, static_cast<const Bits*>(x.raw_data()),
      Split(x.shape(), dim).length, index.data<std::int64_t>(), count, picked.length, picked.inner,
      IndexCheck{tenon::cuda::fault_slot(device), "gather: index"},
      static_cast<Bits*>(out.raw_data()));
}

/// Threads that are enough to fill a GPU.
constexpr std::int64_t kEnoughThreads = 1 << 15;
constexpr std::int64_t kMostParts = 1024;

/// Into how many parts, a power of two, each of `columns` is cut.
std::int64_t parts_of_a_column(std::int64_t columns, std::int64_t picked) {
  std::int64_t parts = 1;
  while (parts < kMostParts && parts * columns < kEnoughThreads && parts < picked) parts *= 2;
  return parts;
}

/// One thread adds what goes into its part of a column (o, ·, i) of the result, the places that are
/// `part` modulo `parts`, in the order of m: sums are the same from run to run, and as on the CPU.
/// The threads of one column read the same indices at the same time.
template <class T>
__global__ void __launch_bounds__(kThreads)
    scatter_add_kernel(const T* __restrict__ x, const std::int64_t* __restrict__ index,
                       std::int64_t columns, std::int64_t parts, std::int64_t picked,
                       std::int64_t inner, std::int64_t size, IndexCheck check,
                       T* __restrict__ out) {
  using C = compute_type<T>;
  const std::int64_t thread = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t column = thread / parts;
  const std::int64_t part = thread % parts;
  if (column >= columns) return;
  const std::int64_t outer = column / inner;
  const std::int64_t first = outer * picked * inner + column % inner;
  T* target = out + outer * size * inner + column % inner;
#pragma unroll 4
  for (std::int64_t m = 0; m < picked; ++m) {
    const std::int64_t at = index[first + m * inner];
    if ((at & (parts - 1)) != part || !check.passes(at, size)) continue;
    T& sum = target[at * inner];
    sum = convert<T>(convert<C>(sum) + convert<C>(x[first + m * inner]));
  }
}

}  // namespace

void gather(const Tensor& x, std::size_t dim, const Tensor& index, const Tensor& out) {
  if (out.numel() == 0) return;
  const tenon::cuda::DeviceGuard guard(x.device());
  switch (item_size(x.dtype())) {
    case 1:
      return gather_typed<std::uint8_t>(x, dim, index, out);
    case 2:
      return gather_typed<std::uint16_t>(x, dim, index, out);
    case 4:
      return gather_typed<std::uint32_t>(x, dim, index, out);
    default:
      return gather_typed<std::uint64_t>(x, dim, index, out);
  }
}

void scatter_add(const Tensor& x, std::size_t dim, const Tensor& index, const Tensor& out) {
  if (out.numel() == 0 && x.numel() == 0) return;
  const Device device = x.device();
  const tenon::cuda::DeviceGuard guard(device);
  const Split picked(index.shape(), dim);
  const std::int64_t columns = picked.outer * picked.inner;
  const std::int64_t parts = parts_of_a_column(columns, picked.length);
  tenon::cuda::visit_device_floating(x.dtype(), "scatter_add", [&]<class T>() {
    const auto bytes = static_cast<std::size_t>(out.numel()) * sizeof(T);
    TENON_CUDA_CHECK(cudaMemsetAsync(out.raw_data(), 0, bytes, current_stream(device)));
    if (x.numel() == 0) return;
    tenon::cuda::launch<scatter_add_kernel<T>>(
        {blocks_for(columns * parts), kThreads}, device, static_cast<const T*>(x.raw_data()),
        index.data<std::int64_t>(), columns, parts, picked.length, picked.inner,
        Split(out.shape(), dim).length,
        IndexCheck{tenon::cuda::fault_slot(device), "scatter_add: index"},
        static_cast<T*>(out.raw_data()));
  });
}

}  // namespace tenon::ops::cuda
