// The one reduction kernel, for any shape and strides. The order of combination depends on the
// shapes alone, so that results are bitwise the same from run to run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/reduce_shape.h"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/loop_nest.h"
#include "tenon/core/tensor_body.h"

namespace tenon::cuda {

/// A list of dimensions as a kernel argument.
struct DeviceDims {
  int dims;
  bool small;  // positions fit 32 bits, in which divisions are several times as fast
  std::int64_t shape[kMaxDims];
  std::int64_t strides[kMaxDims];

  DeviceDims(const Shape& sizes, const Strides& steps)
      : dims(static_cast<int>(sizes.size())), small(sizes.numel() <= INT32_MAX) {
    std::copy(sizes.begin(), sizes.end(), shape);
    std::copy(steps.begin(), steps.end(), strides);
  }

  /// Offset in elements of row-major position `position`.
  __device__ std::int64_t offset_at(std::int64_t position) const {
    if (dims == 1) return position * strides[0];
    std::int64_t offset = 0;
    if (small) {
      auto rest = static_cast<std::uint32_t>(position);
      for (int d = dims - 1; d >= 0; --d) {
        const auto size = static_cast<std::uint32_t>(shape[d]);
        const std::uint32_t quotient = rest / size;
        offset += (rest - quotient * size) * strides[d];
        rest = quotient;
      }
      return offset;
    }
    for (int d = dims - 1; d >= 0; --d) {
      offset += position % shape[d] * strides[d];
      position /= shape[d];
    }
    return offset;
  }
};

/// Where an element of a reduction comes from.
struct Place {
  std::int64_t result;   // row-major position among the results
  std::int64_t element;  // row-major position among the elements of that result
  std::int64_t offset;   // in the source, in elements
};

/// What each thread of a block has found is combined over the rows of its column: the result is
/// in row 0. Thread i has column i % columns and row i / columns, of which there are a power of
/// two.
template <class State, class Reducer>
__device__ State combine_rows(State state, int columns, const Reducer& reducer) {
  __shared__ State shared[kReduceThreads];
  shared[threadIdx.x] = state;
  const int row = static_cast<int>(threadIdx.x) / columns;
  for (int half = kReduceThreads / columns / 2; half > 0; half /= 2) {
    __syncthreads();
    if (row < half) {
      shared[threadIdx.x] =
          reducer.combine(shared[threadIdx.x], shared[threadIdx.x + half * columns]);
    }
  }
  return shared[threadIdx.x];
}

/// Where there is one chunk, finish(result, combination of its elements) for every result;
/// otherwise partial[chunk, result] = combination of the chunk's elements of that result. `Reducer`
/// has `identity()`, `map(value, Place) -> State` and `combine(State, State)`.
template <class T, class State, class Reducer, class Finish>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(PreviousKernel previous, const T* source, DeviceDims kept, DeviceDims summed,
                  ReduceShape shape, Reducer reducer, Finish finish, State* partial) {
  previous.wait();
  const int column = static_cast<int>(threadIdx.x) % shape.columns;
  const int row = static_cast<int>(threadIdx.x) / shape.columns;
  const int rows = kReduceThreads / shape.columns;
  const std::int64_t result = std::int64_t{blockIdx.x} * shape.columns + column;
  const std::int64_t begin = std::int64_t{blockIdx.y} * shape.chunk;
  const std::int64_t end =
      begin + shape.chunk < shape.elements ? begin + shape.chunk : shape.elements;
  State state = reducer.identity();
  if (result < shape.results) {
    const std::int64_t base = kept.offset_at(result);
#pragma unroll 4
    for (std::int64_t i = begin + row; i < end; i += rows) {
      const std::int64_t offset = base + summed.offset_at(i);
      state = reducer.combine(state, reducer.map(source[offset], Place{result, i, offset}));
    }
  }
  state = combine_rows(state, shape.columns, reducer);
  if (row != 0 || result >= shape.results) return;
  if (shape.chunks == 1) {
    finish(result, state);
  } else {
    partial[blockIdx.y * shape.results + result] = state;
  }
}

/// Results of a block of `finish_kernel`; its other threads share the chunks of each.
inline constexpr int kFinishColumns = 8;

/// finish(result, combination of its chunks) for every result.
template <class State, class Reducer, class Finish>
__global__ void __launch_bounds__(kReduceThreads)
    finish_kernel(PreviousKernel previous, const State* partial, std::int64_t results,
                  std::int64_t chunks, Reducer reducer, Finish finish) {
  previous.wait();
  const int row = static_cast<int>(threadIdx.x) / kFinishColumns;
  const std::int64_t result =
      std::int64_t{blockIdx.x} * kFinishColumns + threadIdx.x % kFinishColumns;
  State state = reducer.identity();
  if (result < results) {
    for (std::int64_t c = row; c < chunks; c += kReduceThreads / kFinishColumns) {
      state = reducer.combine(state, partial[c * results + result]);
    }
  }
  state = combine_rows(state, kFinishColumns, reducer);
  if (row == 0 && result < results) finish(result, state);
}

/// Reduces `source` (elements of type T) to one `State` for each position that `nest` keeps, in
/// row-major order, and calls `finish(position, state)` on the device for each.
template <class T, class State, class Reducer, class Finish>
void reduce(const Tensor& source, const tenon::detail::ReductionNest& nest, const Reducer& reducer,
            const Finish& finish) {
  const Device device = source.device();
  const DeviceGuard guard(device);
  const std::int64_t results = nest.kept.numel();
  if (results == 0) return;
  const ReduceShape shape = reduce_shape(
      results, nest.summed.numel(),
      {.results = nest.kept_source.back() == 1, .elements = nest.summed_source.back() == 1});
  std::shared_ptr<Storage> scratch;
  State* partial = nullptr;
  if (shape.chunks > 1) {
    scratch =
        Storage::allocate(static_cast<std::size_t>(shape.chunks * results) * sizeof(State), device);
    partial = reinterpret_cast<State*>(scratch->data());
  }
  const auto tiles = static_cast<unsigned>((results + shape.columns - 1) / shape.columns);
  launch<reduce_kernel<T, State, Reducer, Finish>>(
      {dim3(tiles, static_cast<unsigned>(shape.chunks)), kReduceThreads}, device,
      static_cast<const T*>(source.raw_data()), DeviceDims(nest.kept, nest.kept_source),
      DeviceDims(nest.summed, nest.summed_source), shape, reducer, finish, partial);
  if (shape.chunks == 1) return;
  const auto blocks = static_cast<unsigned>((results + kFinishColumns - 1) / kFinishColumns);
  launch<finish_kernel<State, Reducer, Finish>>({blocks, kReduceThreads}, device, partial, results,
                                                shape.chunks, reducer, finish);
}

}  // namespace tenon::cuda
