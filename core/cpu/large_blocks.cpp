#include "tenon/core/cpu/large_blocks.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "tenon/core/memory.h"

namespace tenon::cpu {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

void* LargeBlocks::take(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::thread::id taker = std::this_thread::get_id();
  auto found = blocks_.rend();
  for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) {
    if (block->bytes != bytes) continue;
    if (block->giver == taker) {
      found = block;
      break;
    }
    if (found == blocks_.rend()) found = block;
  }
  if (found == blocks_.rend()) return nullptr;
  void* data = found->data;
  blocks_.erase(std::next(found).base());
  bytes_ -= bytes;
  return data;
}

void LargeBlocks::keep(void* data, std::size_t bytes) {
  if (bytes > most_bytes_) {
    std::free(data);
    return;
  }
  const std::lock_guard lock(mutex_);
  auto oldest = blocks_.begin();
  for (; bytes_ + bytes > most_bytes_; ++oldest) {
    bytes_ -= oldest->bytes;
    std::free(oldest->data);
  }
  blocks_.erase(blocks_.begin(), oldest);
  blocks_.push_back({data, bytes, std::this_thread::get_id()});
  bytes_ += bytes;
}

void LargeBlocks::release() {
  const std::lock_guard lock(mutex_);
  for (const Block& block : blocks_) std::free(block.data);
  blocks_.clear();
  bytes_ = 0;
}

void* allocate_large(std::size_t bytes) {
  if (bytes < kHugePage)
    return std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
  const std::size_t pages = bytes / kHugePage + 1;  // more than asked for, as for small blocks
  if (pages > SIZE_MAX / kHugePage) return nullptr;
  void* data = std::aligned_alloc(kHugePage, pages * kHugePage);
  // Refused where the system has no huge pages: small ones do as well.
  if (data != nullptr) (void)madvise(data, pages * kHugePage, MADV_HUGEPAGE);
  return data;
}

}  // namespace tenon::cpu
