// How a reduction is cut into blocks. Apart from the kernel, so that it can be tested without a
// GPU.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace tenon::cuda {

inline constexpr int kReduceThreads = 256;

/// `columns` neighbouring results a block, the block's other threads sharing the elements of each;
/// and `chunks` blocks along the elements, whose results a second kernel combines.
struct ReduceShape {
  std::int64_t results;
  std::int64_t elements;  // of each result
  std::int64_t chunk;     // elements of one block's share
  std::int64_t chunks;
  int columns;  // a power of two, at most 32
};

/// Which neighbours of a reduction are neighbours in memory.
struct ReduceNeighbours {
  bool results;
  bool elements;  // of one result
};

/// The cut for at least one result. It depends on nothing but the arguments, so that additions have
/// one order, from run to run and from device to device.
inline ReduceShape reduce_shape(std::int64_t results, std::int64_t elements,
                                ReduceNeighbours adjacent) {
  constexpr std::int64_t kMostColumns = 32;
  constexpr std::int64_t kBlocks = 4 * 132;  // fill the chip
  constexpr std::int64_t kMostAlone = 32;    // elements of a thread where there is one chunk
  constexpr std::int64_t kLeast = 4;         // where there are several: loads under way at a time
  ReduceShape shape{results, elements, elements, 1, 1};
  // Neighbouring threads must read neighbouring elements: along the results when those are adjacent
  // in memory, otherwise along the elements of one result.
  if (adjacent.results || (!adjacent.elements && elements < kMostColumns)) {
    const auto wide = static_cast<std::uint64_t>(std::min(results, kMostColumns));
    shape.columns = static_cast<int>(std::bit_ceil(wide));
  }
  const std::int64_t rows = kReduceThreads / shape.columns;
  const std::int64_t tiles = (results + shape.columns - 1) / shape.columns;
  // The second kernel must be worth its launch.
  if (elements <= kMostAlone * rows || tiles > kBlocks / 2) return shape;
  const std::int64_t wanted = std::min(elements / (kLeast * rows), kBlocks / tiles);
  shape.chunk = (elements + wanted - 1) / wanted;
  shape.chunks = (elements + shape.chunk - 1) / shape.chunk;
  return shape;
}

}  // namespace tenon::cuda
