#include <algorithm>
#include <cmath>

#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/softmax.h"
#include "tenon/ops/split.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;
using tenon::cuda::PreviousKernel;

constexpr int kWarp = 32;
constexpr int kThreads = 256;
/// Rows longer than this are shared by a whole block.
constexpr std::int64_t kLongestRowOfAWarp = 2048;

/// The maximum of some elements and Σ e^(x - maximum) over them, found in one pass: when a larger
/// element comes, the sum so far shrinks (Milakov and Gimelshein, "Online normalizer calculation
/// for softmax", 2018).
template <class C>
struct Normalizer {
  C highest;
  C sum;

  /// Of no elements.
  __device__ static Normalizer empty() { return {-static_cast<C>(INFINITY), C(0)}; }

  __device__ void add(C x) {
    const C term = ::exp(-::fabs(x - highest));
    if (x > highest) {
      sum = sum * term + C(1);
      highest = x;
    } else {
      sum += x == highest ? C(1) : term;
    }
  }

  __device__ void add(Normalizer other) {
    const C top = ::fmax(highest, other.highest);
    sum = rescaled(sum, highest, top) + rescaled(other.sum, other.highest, top);
    highest = top;
  }

  /// The sum; NaN when the maximum is infinite, since no quotient is defined then.
  __device__ C total() const { return sum + (highest - highest); }

  __device__ static C rescaled(C sum, C from, C to) {
    return from == to ? sum : sum * ::exp(from - to);
  }
};

/// All lanes' normalizers together, in every lane.
template <class C>
__device__ Normalizer<C> combine_warp(Normalizer<C> mine) {
  constexpr unsigned kAll = 0xffffffff;
  for (int step = kWarp / 2; step > 0; step /= 2) {
    mine.add(Normalizer<C>{__shfl_down_sync(kAll, mine.highest, step),
                           __shfl_down_sync(kAll, mine.sum, step)});
  }
  return {__shfl_sync(kAll, mine.highest, 0), __shfl_sync(kAll, mine.sum, 0)};
}

/// The normalizer of every `stride`-th of the block's `slots`, from `first`.
template <class C>
__device__ Normalizer<C> combine_slots(const Normalizer<C>* slots, int first, int stride,
                                       int count) {
  Normalizer<C> all = slots[first];
  for (int i = 1; i < count; ++i) all.add(slots[first + i * stride]);
  return all;
}

template <class C>
__device__ C normalized(C x, const Normalizer<C>& all, C total, C log_total, bool logarithm) {
  return logarithm ? (x - all.highest) - log_total : ::exp(x - all.highest) / total;
}

/// Rows whose elements are neighbours, `threads_a_row` (a warp or the block) working on each.
template <class T>
__global__ void __launch_bounds__(kThreads)
    softmax_rows_kernel(PreviousKernel previous, const T* x, std::int64_t rows, std::int64_t length,
                        int threads_a_row, bool logarithm, T* y) {
  previous.wait();
  using C = compute_type<T>;
  __shared__ Normalizer<C> slots[kThreads / kWarp];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % threads_a_row;
  const std::int64_t row =
      std::int64_t{blockIdx.x} * (kThreads / threads_a_row) + thread / threads_a_row;
  const bool active = row < rows;
  const T* source = x + row * length;
  auto all = Normalizer<C>::empty();
  if (active) {
#pragma unroll 4
    for (std::int64_t i = lane; i < length; i += threads_a_row) all.add(convert<C>(source[i]));
  }
  all = combine_warp(all);
  if (threads_a_row > kWarp) {
    if (thread % kWarp == 0) slots[thread / kWarp] = all;
    __syncthreads();
    all = combine_slots(slots, 0, 1, kThreads / kWarp);
  }
  if (!active) return;
  const C total = all.total();
  const C log_total = ::log(total);
  T* target = y + row * length;
  for (std::int64_t i = lane; i < length; i += threads_a_row) {
    target[i] = convert<T>(normalized(convert<C>(source[i]), all, total, log_total, logarithm));
  }
}

/// Columns whose elements are `inner` apart: a warp's lanes take neighbouring columns, the block's
/// warps share the elements of each.
template <class T>
__global__ void __launch_bounds__(kThreads)
    softmax_columns_kernel(PreviousKernel previous, const T* x, std::int64_t columns,
                           std::int64_t length, std::int64_t inner, bool logarithm, T* y) {
  previous.wait();
  using C = compute_type<T>;
  __shared__ Normalizer<C> slots[kThreads];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  constexpr int kWarps = kThreads / kWarp;
  const std::int64_t column = std::int64_t{blockIdx.x} * kWarp + lane;
  const bool active = column < columns;
  const std::int64_t start = column / inner * length * inner + column % inner;
  auto all = Normalizer<C>::empty();
  if (active) {
#pragma unroll 4
    for (std::int64_t i = warp; i < length; i += kWarps) {
      all.add(convert<C>(x[start + i * inner]));
    }
  }
  slots[threadIdx.x] = all;
  __syncthreads();
  if (!active) return;
  all = combine_slots(slots, lane, kWarp, kWarps);
  const C total = all.total();
  const C log_total = ::log(total);
  for (std::int64_t i = warp; i < length; i += kWarps) {
    const std::int64_t at = start + i * inner;
    y[at] = convert<T>(normalized(convert<C>(x[at]), all, total, log_total, logarithm));
  }
}

template <class T>
void softmax_typed(const T* x, const Split& split, bool logarithm, T* y, Device device) {
  const auto blocks_of = [](std::int64_t count, std::int64_t a_block) {
    return static_cast<unsigned>((count + a_block - 1) / a_block);
  };
  if (split.inner == 1) {
    const int threads_a_row = split.length <= kLongestRowOfAWarp ? kWarp : kThreads;
    tenon::cuda::launch<softmax_rows_kernel<T>>(
        {blocks_of(split.outer, kThreads / threads_a_row), kThreads}, device, x, split.outer,
        split.length, threads_a_row, logarithm, y);
  } else {
    const std::int64_t columns = split.outer * split.inner;
    tenon::cuda::launch<softmax_columns_kernel<T>>({blocks_of(columns, kWarp), kThreads}, device, x,
                                                   columns, split.length, split.inner, logarithm,
                                                   y);
  }
}

}  // namespace

void softmax(const Tensor& x, std::size_t dim, bool logarithm, const Tensor& y) {
  if (x.numel() == 0) return;
  const tenon::cuda::DeviceGuard guard(x.device());
  tenon::cuda::visit_device_floating(x.dtype(), "softmax", [&]<class T>() {
    softmax_typed(static_cast<const T*>(x.raw_data()), Split(x.shape(), dim), logarithm,
                  static_cast<T*>(y.raw_data()), x.device());
  });
}

}  // namespace tenon::ops::cuda
