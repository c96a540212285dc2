// Philox 4x32-10 on the device: the words that core/random.cpp gives on the host.
#pragma once

#include <cstdint>

#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/random.h"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/recording.h"
#include "tenon/core/tensor.h"

namespace tenon::cuda {

/// Block number `index` of the stream of `seed`.
__device__ inline uint4 philox_block(std::uint64_t seed, std::uint64_t index) {
  constexpr std::uint32_t kMultiplier0 = 0xD2511F53;
  constexpr std::uint32_t kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85;
  constexpr int kRounds = 10;
  uint4 words{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), 0, 0};
  std::uint32_t key0 = static_cast<std::uint32_t>(seed);
  std::uint32_t key1 = static_cast<std::uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    words = uint4{__umulhi(kMultiplier1, words.z) ^ words.y ^ key0, kMultiplier1 * words.z,
                  __umulhi(kMultiplier0, words.x) ^ words.w ^ key1, kMultiplier0 * words.x};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return words;
}

inline constexpr int kPhiloxThreads = 256;

/// target[4b … 4b + 3] = draw(block first_block + b), four values of type `T`, the last block cut
/// off at `count`. `aligned`: four values can be stored as one. `recorded`: null, or the state that
/// the replay of a recorded step is in.
template <class T, class Draw>
__global__ void __launch_bounds__(kPhiloxThreads)
    philox_kernel(PreviousKernel previous, T* target, std::int64_t count, bool aligned,
                  std::uint64_t seed, std::uint64_t first_block, const RandomState* recorded,
                  const Draw draw) {
  previous.wait();
  if (recorded != nullptr) {
    seed = recorded->seed;
    first_block += recorded->shift;
  }
  const std::int64_t block = std::int64_t{blockIdx.x} * kPhiloxThreads + threadIdx.x;
  const std::int64_t begin = 4 * block;
  if (begin >= count) return;
  const Pack<T, 4> values =
      draw(philox_block(seed, first_block + static_cast<std::uint64_t>(block)));
  if (aligned && begin + 4 <= count) {
    *reinterpret_cast<Pack<T, 4>*>(target + begin) = values;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (begin + i < count) target[begin + i] = values.values[i];
    }
  }
}

/// Overwrites the contiguous `target` with what `draw` makes of the blocks from `first_block` on.
template <class T, class Draw>
void fill_from_philox(const Tensor& target, std::uint64_t seed, std::uint64_t first_block,
                      const Draw& draw) {
  const std::int64_t count = target.numel();
  if (count == 0) return;
  const DeviceGuard guard(target.device());
  T* data = static_cast<T*>(target.raw_data());
  const bool aligned = reinterpret_cast<std::uintptr_t>(data) % sizeof(Pack<T, 4>) == 0;
  const auto* recording = tenon::detail::Recording::current();
  const auto* recorded =
      recording == nullptr ? nullptr : static_cast<const RandomState*>(recording->random_state());
  constexpr std::int64_t kABlock = 4 * kPhiloxThreads;
  launch<philox_kernel<T, Draw>>(
      {static_cast<unsigned>((count + kABlock - 1) / kABlock), kPhiloxThreads}, target.device(),
      data, count, aligned, seed, first_block, recorded, draw);
}

}  // namespace tenon::cuda
