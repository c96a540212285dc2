// How channels, or rows of a matrix, are shared out among calls of a kernel.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tenon::ops::cpu::simd {

/// Blocks of at most as many channels as a kernel takes; the first ones may be larger by one.
class ChannelBlocks {
 public:
  ChannelBlocks(std::int64_t channels, std::int64_t most)
      : count((channels + most - 1) / most),
        least_(count > 0 ? channels / count : 0),
        larger_(channels - least_ * count) {}
  std::int64_t first(std::int64_t block) const { return block * least_ + std::min(block, larger_); }
  int size(std::int64_t block) const {
    return static_cast<int>(least_ + (block < larger_ ? 1 : 0));
  }

  const std::int64_t count;

 private:
  std::int64_t least_;
  std::int64_t larger_;
};

}  // namespace tenon::ops::cpu::simd
