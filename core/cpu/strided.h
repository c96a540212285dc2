// Walking strided operands together in blocks: what every elementwise CPU kernel is made of.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "tenon/core/half.h"
#include "tenon/core/loop_nest.h"
#include "tenon/core/parallel.h"
#include "tenon/core/tensor.h"

namespace tenon::cpu {

/// Elements in a block. Small enough that the buffers of a few operands stay in the L1 cache.
inline constexpr std::int64_t kBlock = 512;

/// Elements that are worth a second thread, and that a thread sums up at a time.
inline constexpr std::int64_t kElementwiseGrain = 1 << 15;

/// Elements of a larger range handed to one thread at a time: a few blocks, so that threads that
/// share a middle-sized tensor end at the same time.
inline constexpr std::int64_t kSharedGrain = 1 << 13;

/// Where the current block of one operand lies.
struct BlockOperand {
  std::byte* data;      // first element of the block
  std::int64_t stride;  // between neighbours, in elements
};

/// Walks `operands`, each of which must broadcast to `common`, and calls `body(count, blocks)` with
/// count <= kBlock for runs of elements that cover the common shape once; within a run every
/// operand advances by a constant stride. Runs of different chunks are given to different threads.
template <std::size_t kOperands, class Body>
void for_each_block(const Shape& common, const std::array<Tensor, kOperands>& operands,
                    Body&& body) {
  const std::int64_t total = common.numel();
  if (total == 0) return;
  const tenon::detail::LoopNest<kOperands> nest(common, tenon::detail::pointers_to(operands));
  const std::int64_t inner = nest.shape.back();
  const std::int64_t grain = total > kElementwiseGrain ? kSharedGrain : kElementwiseGrain;
  parallel_for_shares(0, total, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t position = begin; position < end;) {
      // Where `position` lies: its index along each dimension, innermost last.
      std::array<std::int64_t, kOperands> offset{};
      std::int64_t rest = position;
      for (std::size_t d = nest.shape.size(); d-- > 0;) {
        const std::int64_t index = rest % nest.shape[d];
        rest /= nest.shape[d];
        for (std::size_t k = 0; k < kOperands; ++k) offset[k] += index * nest.strides[k][d];
      }
      const std::int64_t run = std::min(end - position, inner - position % inner);
      for (std::int64_t done = 0; done < run; done += kBlock) {
        std::array<BlockOperand, kOperands> blocks;
        for (std::size_t k = 0; k < kOperands; ++k) {
          const std::int64_t stride = nest.strides[k].back();
          const auto at = static_cast<std::int64_t>(nest.item[k]) * (offset[k] + done * stride);
          blocks[k] = {nest.base[k] + at, stride};
        }
        body(std::min(kBlock, run - done), blocks);
      }
      position += run;
    }
  });
}

/// The block's elements as `To`, contiguous: in place when they already are that, otherwise
/// converted into `buffer` (kBlock elements).
template <class From, class To>
const To* load_block(const BlockOperand& block, std::int64_t count, To* buffer) {
  const From* source = reinterpret_cast<const From*>(block.data);
  if constexpr (std::is_same_v<From, To>) {
    if (block.stride == 1) return source;
  }
  if (block.stride == 0) {
    std::fill_n(buffer, count, static_cast<To>(*source));
  } else {
    for (std::int64_t i = 0; i < count; ++i) buffer[i] = static_cast<To>(source[i * block.stride]);
  }
  return buffer;
}

/// Where to compute a block of results of type `From`: the operand itself when it is contiguous
/// and of that type, otherwise `buffer`. Follow with `store_block`.
template <class From, class To>
From* result_block(const BlockOperand& block, From* buffer) {
  if constexpr (std::is_same_v<From, To>) {
    if (block.stride == 1) return reinterpret_cast<To*>(block.data);
  }
  return buffer;
}

/// Converts results computed at `result_block` into the operand, unless they are there already.
template <class From, class To>
void store_block(const BlockOperand& block, std::int64_t count, const From* results) {
  To* target = reinterpret_cast<To*>(block.data);
  if constexpr (std::is_same_v<From, To>) {
    if (results == target) return;
  }
  for (std::int64_t i = 0; i < count; ++i) target[i * block.stride] = static_cast<To>(results[i]);
}

}  // namespace tenon::cpu
