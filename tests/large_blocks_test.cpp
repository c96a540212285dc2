// Freed large blocks of the CPU's memory.
#include "tenon/core/cpu/large_blocks.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "tenon/core/memory.h"

namespace tenon::cpu {
namespace {

constexpr std::size_t kMegabyte = std::size_t{1} << 20;

TEST(LargeBlocks, AreTakenBySizeTheLastFirst) {
  LargeBlocks blocks;
  void* first = allocate_large(3 * kMegabyte);
  void* second = allocate_large(3 * kMegabyte);
  EXPECT_EQ(blocks.take(3 * kMegabyte), nullptr);
  blocks.keep(first, 3 * kMegabyte);
  blocks.keep(second, 3 * kMegabyte);
  EXPECT_EQ(blocks.take(3 * kMegabyte - 1), nullptr) << "of another size";
  EXPECT_EQ(blocks.take(3 * kMegabyte), second);
  EXPECT_EQ(blocks.take(3 * kMegabyte), first);
  EXPECT_EQ(blocks.take(3 * kMegabyte), nullptr) << "each once";
  blocks.keep(first, 3 * kMegabyte);
  blocks.keep(second, 3 * kMegabyte);
  blocks.release();
  EXPECT_EQ(blocks.take(3 * kMegabyte), nullptr);
}

TEST(LargeBlocks, AThreadTakesWhatItGaveFirst) {
  LargeBlocks blocks;
  void* const mine = allocate_large(LargeBlocks::kLeastBytes);
  void* const others = allocate_large(LargeBlocks::kLeastBytes);
  blocks.keep(mine, LargeBlocks::kLeastBytes);
  std::thread([&] { blocks.keep(others, LargeBlocks::kLeastBytes); }).join();
  EXPECT_EQ(blocks.take(LargeBlocks::kLeastBytes), mine);
  EXPECT_EQ(blocks.take(LargeBlocks::kLeastBytes), others);
  std::free(mine);
  std::free(others);
}

TEST(LargeBlocks, AreNotKeptBeyondALimit) {
  LargeBlocks blocks;
  const std::size_t half = LargeBlocks::kMostBytes / 2;
  for (int i = 0; i < 3; ++i) blocks.keep(allocate_large(half), half);
  void* const second = blocks.take(half);
  void* const first = blocks.take(half);
  EXPECT_NE(second, nullptr);
  EXPECT_NE(first, nullptr);
  EXPECT_EQ(blocks.take(half), nullptr) << "the one kept longest went back";
  blocks.keep(first, half);
  blocks.keep(second, half);
  blocks.keep(allocate_large(LargeBlocks::kMostBytes + 1), LargeBlocks::kMostBytes + 1);
  EXPECT_EQ(blocks.take(LargeBlocks::kMostBytes + 1), nullptr);
}

TEST(LargeBlocks, BeginAtAlignedAddressesAndCanBeWritten) {
  for (const std::size_t bytes :
       {LargeBlocks::kLeastBytes, 2 * kMegabyte - 1, 2 * kMegabyte, 5 * kMegabyte + 7}) {
    void* data = allocate_large(bytes);
    ASSERT_NE(data, nullptr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(data) % kAlignment, 0U);
    std::memset(data, 1, bytes + kAlignment - bytes % kAlignment);
    LargeBlocks().keep(data, bytes);
  }
}

TEST(LargeBlocks, TooLargeIsNull) { EXPECT_EQ(allocate_large(SIZE_MAX / 2), nullptr); }

}  // namespace
}  // namespace tenon::cpu
