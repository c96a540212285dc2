#include "tenon/core/cuda/small_blocks.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

namespace tenon::cuda {
namespace {

TEST(SmallBlocks, RoundToPowersOfTwo) {
  EXPECT_EQ(SmallBlocks::rounded(0), 512U);
  EXPECT_EQ(SmallBlocks::rounded(512), 512U);
  EXPECT_EQ(SmallBlocks::rounded(513), 1024U);
  EXPECT_EQ(SmallBlocks::rounded(65536), 65536U);
  EXPECT_TRUE(SmallBlocks::is_small(65536));
  EXPECT_FALSE(SmallBlocks::is_small(65537));
}

TEST(SmallBlocks, AreTakenBySizeAndOnce) {
  const auto blocks = std::make_unique<SmallBlocks>();
  int a = 0;
  int b = 0;
  EXPECT_EQ(blocks->take(100), nullptr);
  EXPECT_TRUE(blocks->give(&a, 100));
  EXPECT_TRUE(blocks->give(&b, 65536));
  EXPECT_EQ(blocks->take(1000), nullptr) << "of another size";
  EXPECT_EQ(blocks->take(512), &a);
  EXPECT_EQ(blocks->take(512), nullptr);
  EXPECT_EQ(blocks->take(40000), &b);
}

TEST(SmallBlocks, AreNotKeptBeyondALimitAndAllReleased) {
  const auto blocks = std::make_unique<SmallBlocks>();
  EXPECT_EQ(SmallBlocks::most(8), 8192U);
  EXPECT_EQ(SmallBlocks::most(65536), 512U);
  std::vector<int> memory(10000);
  std::size_t kept = 0;
  while (blocks->give(&memory[kept], 8)) ++kept;
  EXPECT_EQ(kept, SmallBlocks::most(8));
  EXPECT_TRUE(blocks->give(&memory[kept], 600)) << "of another size";
  std::set<void*> released;
  blocks->clear([&](void* block) { released.insert(block); });
  EXPECT_EQ(released.size(), kept + 1);
  EXPECT_EQ(blocks->take(8), nullptr);
}

}  // namespace
}  // namespace tenon::cuda
