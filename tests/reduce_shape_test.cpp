#include "tenon/core/cuda/reduce_shape.h"

#include <gtest/gtest.h>

#include <array>

namespace tenon::cuda {
namespace {

constexpr ReduceNeighbours kElements{.results = false, .elements = true};
constexpr ReduceNeighbours kResults{.results = true, .elements = false};
constexpr ReduceNeighbours kNeither{.results = false, .elements = false};

std::int64_t blocks_of(const ReduceShape& shape) {
  return (shape.results + shape.columns - 1) / shape.columns * shape.chunks;
}

TEST(ReduceShape, ChunksCoverTheElementsOnceAndNoneIsEmpty) {
  constexpr std::array<std::int64_t, 14> kSizes{
      1, 2, 7, 31, 32, 33, 255, 1024, 8191, 50176, 99991, 1000003, 5000000, 70000017};
  for (const ReduceNeighbours adjacent : {kElements, kResults, kNeither}) {
    for (const std::int64_t results : kSizes) {
      for (const std::int64_t elements : kSizes) {
        SCOPED_TRACE(testing::Message() << results << " of " << elements);
        const ReduceShape shape = reduce_shape(results, elements, adjacent);
        EXPECT_EQ(shape.results, results);
        EXPECT_EQ(shape.elements, elements);
        EXPECT_GE(shape.chunk * shape.chunks, elements);
        EXPECT_LT(shape.chunk * (shape.chunks - 1), elements);
        EXPECT_TRUE(shape.columns >= 1 && shape.columns <= 32);
        EXPECT_EQ(kReduceThreads % shape.columns, 0);
        EXPECT_LE(shape.chunks, 528);
        if (shape.chunks > 1) {
          EXPECT_LE(blocks_of(shape), 528);
        }
      }
    }
  }
}

TEST(ReduceShape, NoElementsAreOneEmptyChunk) {
  const ReduceShape shape = reduce_shape(5, 0, kElements);
  EXPECT_EQ(shape.chunks, 1);
  EXPECT_EQ(shape.chunk, 0);
}

TEST(ReduceShape, FewResultsOfManyElementsFillTheChip) {
  // The bias gradients of convolutions, [64, 16, 28, 28] and [64, 16, 14, 14] to [16].
  EXPECT_EQ(blocks_of(reduce_shape(16, 64 * 28 * 28, kElements)), 528);
  EXPECT_EQ(blocks_of(reduce_shape(16, 64 * 14 * 14, kElements)), 192);
  EXPECT_EQ(blocks_of(reduce_shape(1, 100'000'000, kElements)), 528);
}

TEST(ReduceShape, SmallReductionsNeedNoSecondKernel) {
  EXPECT_EQ(reduce_shape(16, 64, kResults).chunks, 1);    // the bias gradient of a linear layer
  EXPECT_EQ(reduce_shape(1, 8192, kElements).chunks, 1);  // 32 elements a thread
  EXPECT_GT(reduce_shape(1, 8193, kElements).chunks, 1);
  EXPECT_EQ(reduce_shape(100'000, 5000, kElements).chunks, 1);  // enough blocks as it is
}

TEST(ReduceShape, ThreadsLieAlongWhatIsAdjacentInMemory) {
  EXPECT_EQ(reduce_shape(1000, 1000, kElements).columns, 1);
  EXPECT_EQ(reduce_shape(1000, 1000, kResults).columns, 32);
  EXPECT_EQ(reduce_shape(1000, 1000, kNeither).columns, 1);
  EXPECT_EQ(reduce_shape(1000, 31, kNeither).columns, 32);
  EXPECT_EQ(reduce_shape(16, 1000, kResults).columns, 16);  // no thread without a result
  EXPECT_EQ(reduce_shape(5, 1000, kResults).columns, 8);
}

}  // namespace
}  // namespace tenon::cuda
