// How channels, or rows of a matrix, are shared out among calls of a kernel.
#pragma once

#include <cstdint>

namespace tenon::ops::cpu::simd {

/// Blocks of at most as many channels as a kernel takes, whose sizes differ by one at most.
struct ChannelBlocks {
  std::int64_t channels;
  std::int64_t count;

  ChannelBlocks(std::int64_t all, int most) : channels(all), count((all + most - 1) / most) {}
  std::int64_t first(std::int64_t block) const { return channels * block / count; }
  int size(std::int64_t block) const { return static_cast<int>(first(block + 1) - first(block)); }
};

}  // namespace tenon::ops::cpu::simd
