// The one reduction kernel, for any shape and strides. The order of combination depends on the
// shapes alone, so that results are bitwise the same from run to run.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/loop_nest.h"
#include "tenon/core/tensor_body.h"

namespace tenon::cuda {

/// A list of dimensions as a kernel argument.
struct DeviceDims {
  int dims;
  std::int64_t shape[kMaxDims];
  std::int64_t strides[kMaxDims];

  DeviceDims(const Shape& sizes, const Strides& steps) : dims(static_cast<int>(sizes.size())) {
    std::copy(sizes.begin(), sizes.end(), shape);
    std::copy(steps.begin(), steps.end(), strides);
  }

  /// Offset in elements of row-major position `position`.
  __device__ std::int64_t offset_at(std::int64_t position) const {
    if (dims == 1) return position * strides[0];
    std::int64_t offset = 0;
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

inline constexpr int kReduceThreads = 256;

/// How a reduction is cut into blocks: `columns` neighbouring results a block, the block's other
/// threads sharing the elements of each; and `chunks` blocks along the elements.
struct ReduceShape {
  std::int64_t results;
  std::int64_t elements;
  std::int64_t chunk;  // elements of one block's share
  int columns;         // a power of two, at most 32
};

/// partial[chunk, result] = combination of the chunk's elements of that result. `Reducer` has
/// `identity()`, `map(value, Place) -> State` and `combine(State, State)`.
template <class T, class State, class Reducer>
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(PreviousKernel previous, const T* source, DeviceDims kept, DeviceDims summed,
                  ReduceShape shape, Reducer reducer, State* partial) {
  __shared__ State shared[kReduceThreads];
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
  shared[threadIdx.x] = state;
  for (int half = rows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (row < half) {
      shared[threadIdx.x] =
          reducer.combine(shared[threadIdx.x], shared[threadIdx.x + half * shape.columns]);
    }
  }
  if (row == 0 && result < shape.results) {
    partial[blockIdx.y * shape.results + result] = shared[column];
  }
}

/// finish(result, combination of its chunks) for every result.
template <class State, class Reducer, class Finish>
__global__ void __launch_bounds__(kReduceThreads)
    finish_kernel(PreviousKernel previous, const State* partial, std::int64_t results,
                  std::int64_t chunks, Reducer reducer, Finish finish) {
  previous.wait();
  const std::int64_t result = std::int64_t{blockIdx.x} * kReduceThreads + threadIdx.x;
  if (result >= results) return;
  State state = partial[result];
  for (std::int64_t c = 1; c < chunks; ++c) {
    state = reducer.combine(state, partial[c * results + result]);
  }
  finish(result, state);
}

/// Reduces `source` (elements of type T) to one `State` for each position that `nest` keeps, in
/// row-major order, and calls `finish(position, state)` on the device for each.
template <class T, class State, class Reducer, class Finish>
void reduce(const Tensor& source, const tenon::detail::ReductionNest& nest, const Reducer& reducer,
            const Finish& finish) {
  const Device device = source.device();
  const DeviceGuard guard(device);
  ReduceShape shape{nest.kept.numel(), nest.summed.numel(), 0, 1};
  if (shape.results == 0) return;
  // Neighbouring threads must read neighbouring elements: along the results when those are
  // adjacent in memory, otherwise along the elements of one result.
  if (nest.kept_source.back() == 1 || (nest.summed_source.back() != 1 && shape.elements < 32)) {
    shape.columns = 32;
  }
  const std::int64_t tiles = (shape.results + shape.columns - 1) / shape.columns;
  // Enough blocks to fill the chip when there are few results, each with enough to do.
  const std::int64_t wanted = std::max<std::int64_t>(1, 4 * 132 / tiles);
  const std::int64_t rows = kReduceThreads / shape.columns;
  const std::int64_t chunks = std::clamp<std::int64_t>(shape.elements / (16 * rows), 1, wanted);
  shape.chunk = (shape.elements + chunks - 1) / chunks;
  const auto scratch =
      Storage::allocate(static_cast<std::size_t>(chunks * shape.results) * sizeof(State), device);
  State* partial = reinterpret_cast<State*>(scratch->data());
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(chunks));
  launch<reduce_kernel<T, State, Reducer>>(
      {grid, kReduceThreads}, device, static_cast<const T*>(source.raw_data()),
      DeviceDims(nest.kept, nest.kept_source), DeviceDims(nest.summed, nest.summed_source), shape,
      reducer, partial);
  const auto blocks = static_cast<unsigned>((shape.results + kReduceThreads - 1) / kReduceThreads);
  launch<finish_kernel<State, Reducer, Finish>>({blocks, kReduceThreads}, device, partial,
                                                shape.results, chunks, reducer, finish);
}

}  // namespace tenon::cuda
