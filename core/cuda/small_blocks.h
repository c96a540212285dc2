// Freed small blocks of device memory, kept to be handed out again.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

namespace tenon::cuda {

/// A stack of blocks for each power of two. It owns nothing: it lives as long as the program, and
/// blocks come back until the very end, so that it has no destructor.
class SmallBlocks {
 public:
  static constexpr std::size_t kSmallest = 512;
  static constexpr std::size_t kLargest = std::size_t{64} << 10;

  static bool is_small(std::size_t bytes) { return bytes <= kLargest; }
  /// What is to be allocated for `bytes`, which are small, so that the block can serve others.
  static constexpr std::size_t rounded(std::size_t bytes) {
    return bytes <= kSmallest ? kSmallest : std::bit_ceil(bytes);
  }

  /// How many blocks are kept that serve `bytes`: what a chain of some thousand small ops frees
  /// with its tape.
  static constexpr std::size_t most(std::size_t bytes) {
    return std::max(kFewest, kBytesOfASize / rounded(bytes));
  }

  /// A block of `rounded(bytes)`, or null where none is kept.
  void* take(std::size_t bytes) {
    const std::size_t bin = bin_of(bytes);
    return counts_[bin] == 0 ? nullptr : blocks_[kFirst[bin] + --counts_[bin]];
  }
  /// Keeps `block`, of `rounded(bytes)`; false where enough of that size are kept.
  bool give(void* block, std::size_t bytes) {
    const std::size_t bin = bin_of(bytes);
    if (counts_[bin] == kFirst[bin + 1] - kFirst[bin]) return false;
    blocks_[kFirst[bin] + counts_[bin]++] = block;
    return true;
  }
  /// Calls `release` with every block and keeps none.
  template <class Release>
  void clear(const Release& release) {
    for (std::size_t bin = 0; bin < kBins; ++bin) {
      while (counts_[bin] > 0) release(blocks_[kFirst[bin] + --counts_[bin]]);
    }
  }

 private:
  // 76 MB of all sizes at the most.
  static constexpr std::size_t kFewest = 512;
  static constexpr std::size_t kBytesOfASize = std::size_t{4} << 20;
  static constexpr std::size_t kBins =
      std::countr_zero(kLargest) - std::countr_zero(kSmallest) + std::size_t{1};
  /// Where the blocks of each size begin among all.
  static constexpr std::array<std::size_t, kBins + 1> kFirst = [] {
    std::array<std::size_t, kBins + 1> first{};
    for (std::size_t bin = 0; bin < kBins; ++bin) {
      first[bin + 1] = first[bin] + std::max(kFewest, kBytesOfASize / (kSmallest << bin));
    }
    return first;
  }();

  static std::size_t bin_of(std::size_t bytes) {
    return static_cast<std::size_t>(std::countr_zero(rounded(bytes)) - std::countr_zero(kSmallest));
  }

  std::array<std::size_t, kBins> counts_{};
  std::array<void*, kFirst[kBins]> blocks_{};
};

}  // namespace tenon::cuda
