// Freed small blocks of device memory, kept to be handed out again.
#pragma once

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
  static std::size_t rounded(std::size_t bytes) {
    return bytes <= kSmallest ? kSmallest : std::bit_ceil(bytes);
  }

  /// A block of `rounded(bytes)`, or null where none is kept.
  void* take(std::size_t bytes) {
    Bin& bin = bin_of(bytes);
    return bin.count == 0 ? nullptr : bin.blocks[--bin.count];
  }
  /// Keeps `block`, of `rounded(bytes)`; false where enough of that size are kept.
  bool give(void* block, std::size_t bytes) {
    Bin& bin = bin_of(bytes);
    if (bin.count == kMost) return false;
    bin.blocks[bin.count++] = block;
    return true;
  }
  /// Calls `release` with every block and keeps none.
  template <class Release>
  void clear(const Release& release) {
    for (Bin& bin : bins_) {
      while (bin.count > 0) release(bin.blocks[--bin.count]);
    }
  }

 private:
  static constexpr std::size_t kMost = 512;  // of a size: 64 MB of all sizes at the most
  static constexpr std::size_t kBins =
      std::countr_zero(kLargest) - std::countr_zero(kSmallest) + std::size_t{1};

  struct Bin {
    std::size_t count;
    std::array<void*, kMost> blocks;
  };

  Bin& bin_of(std::size_t bytes) {
    return bins_[static_cast<std::size_t>(std::countr_zero(rounded(bytes)) -
                                          std::countr_zero(kSmallest))];
  }

  std::array<Bin, kBins> bins_{};
};

}  // namespace tenon::cuda
