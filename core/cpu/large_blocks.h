// Large blocks of the CPU's memory that were freed and may be wanted again.
//
// What a program frees in large blocks the C library gives back to the system, and gets again as
// pages that the system must first clear, one interrupt for each 4 KB: for a result of 64 MB that
// takes as long as computing it, and giving pages back interrupts every thread. A training step
// frees and wants the same sizes over and over, and so do the kernels with their scratch memory.
#pragma once

#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace tenon::cpu {

/// Keeps freed blocks up to a limit. Any thread may call.
class LargeBlocks {
 public:
  /// Smaller blocks are not for it.
  static constexpr std::size_t kLeastBytes = std::size_t{16} << 10;
  /// So much is kept at most, of all blocks together.
  static constexpr std::size_t kMostBytes = std::size_t{256} << 20;

  explicit LargeBlocks(std::size_t most_bytes = kMostBytes) : most_bytes_(most_bytes) {}
  LargeBlocks(const LargeBlocks&) = delete;
  LargeBlocks& operator=(const LargeBlocks&) = delete;
  ~LargeBlocks() { release(); }

  /// A block of exactly `bytes`, or null: the last that this thread gave, whose processor's cache
  /// may still hold it, otherwise the last of any.
  void* take(std::size_t bytes);
  /// Takes over a block made by `allocate_large`; frees those kept longest where it is too much.
  void keep(void* data, std::size_t bytes);
  /// Frees all that is kept.
  void release();

 private:
  struct Block {
    void* data;
    std::size_t bytes;
    std::thread::id giver;
  };

  std::mutex mutex_;
  std::vector<Block> blocks_;  // the one kept longest first
  std::size_t bytes_ = 0;
  std::size_t most_bytes_;
};

/// Memory from the C library, or null; of 2 MB or more such that the system can back it with huge
/// pages, and with the advice to do so. To be freed with std::free.
void* allocate_large(std::size_t bytes);

}  // namespace tenon::cpu
