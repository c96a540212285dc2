// The gradient of z on its way to Work::SumGradient on sm_90: bulk copies bring it to shared
// memory, box by box, as far ahead of the consumers as a ring of slots goes. No thread waits for
// memory, nor has registers or instructions for addresses.
//
// A step is 64 positions and 8 channels of a consumer group, the unit in which its threads turn
// sums into dy. Each group has a ring of its own, filled by a warp of its own, so that groups that
// take turns do not hold each other up.
#pragma once

#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/tile_place.cuh"

namespace tenon::ops::cuda {

/// The barriers of a group's ring.
struct GradientRing {
  PipelineBarrier* full;
  PipelineBarrier* empty;

  /// `shared` is the block's memory, which begins with its barriers.
  __device__ GradientRing(const KernelArguments& arguments, KernelConfig config, char* shared,
                          int group) {
    const int slots = arguments.gradient.slots;
    auto* first =
        reinterpret_cast<PipelineBarrier*>(shared) + 2 * arguments.slots + arguments.raw.slots + 1;
    full = first + group * slots;
    empty = first + (config.groups + group) * slots;
  }

  /// By all threads, before any uses a ring.
  __device__ static void init(const KernelArguments& arguments, KernelConfig config, char* shared) {
    constexpr int kConsumerWarps = 4;  // of a group
    const GradientRing first(arguments, config, shared, 0);
    const auto thread = static_cast<int>(threadIdx.x);
    if (thread >= config.groups * arguments.gradient.slots) return;
    first.full[thread].init(1);
    first.empty[thread].init(kConsumerWarps * kWarpArrivals);
    fence_async_proxy();
  }
};

/// Fills the rings: run by a team of producers, of whom one thread works for each group. Where it
/// is not a team of its own, its first warp has x.
template <class Operand, class Config>
__device__ void produce_gradients(const KernelArguments& arguments, const SharedLayout& layout,
                                  char* shared) {
  constexpr KernelConfig kConfig = Config::value;
  constexpr int kItem = sizeof(typename OperandTraits<Operand>::Element);
  constexpr GradientBox kBox(kConfig, kItem);
  constexpr int kStepBytes = kConfig.gradient_step_bytes(kItem);
  static_assert(kStepBytes == kBox.count * kBox.bytes());
  constexpr int kFirstWarp = kConfig.gradient_team() ? 0 : 1;
  static_assert(kFirstWarp + kConfig.groups <= kProducerWarps);
  const int group = static_cast<int>(threadIdx.x) / 32 % kProducerWarps - kFirstWarp;
  const int slots = arguments.gradient.slots;
  if (slots == 0 || threadIdx.x % 32 != 0 || group < 0 || group >= kConfig.groups) return;
  const Tiling& t = arguments.tiling;
  const GradientRing barriers(arguments, kConfig, shared, group);
  char* boxes = shared + layout.gradients + group * slots * kStepBytes;
  RingPosition ring{0, 1};  // all slots are empty at first
  for (int tile = static_cast<int>(blockIdx.x); tile < t.tiles(); tile += gridDim.x) {
    const TilePlace place(t, tile);
    // Unrolled, these loops would want more registers than the team has.
#pragma unroll 1
    for (int block = 0; block < kConfig.blocks; ++block) {
      const PositionPlace position(t, 64 * (group * kConfig.blocks + block));
      const int row = (place.row + position.row) * kConfig.row_phases;
      const int column = (place.column + position.column) * kConfig.column_phases;
      const int channel = place.group * t.shape.out_channels + place.channel;
#pragma unroll 1
      for (int step = 0; step < kConfig.channels / 8; ++step) {
        barriers.empty[ring.slot].wait(ring.parity);
        barriers.full[ring.slot].arrive_and_expect(kStepBytes);
        char* target = boxes + ring.slot * kStepBytes;
#pragma unroll
        for (int box = 0; box < kBox.count; ++box) {
          copy_box(target + box * kBox.bytes(), arguments.gradient.map, column + box * kBox.columns,
                   channel + 8 * step, row, place.image + position.image, barriers.full[ring.slot]);
        }
        ring.advance(slots);
      }
    }
  }
}

/// Where a consumer's thread finds what it wants of a tile's steps: the numbers of positions lane/4
/// and lane/4 + 8 of its warp's 16, channels 2(lane%4) and the next.
template <class Operand, class Config>
class GradientBoxReader {
  static constexpr KernelConfig kConfig = Config::value;
  static constexpr int kItem = sizeof(typename OperandTraits<Operand>::Element);

 public:
  /// `boxes` are the group's; `ring` is where it has come to. The thread's number is an argument so
  /// that the caller can keep the compiler from working all this out early, and keeping it.
  __device__ GradientBoxReader(const GradientRing& barriers, int slots, const char* boxes,
                               int thread, RingPosition& ring)
      : barriers_(barriers), slots_(slots), boxes_(shared_address(boxes)), ring_(ring) {
    constexpr GradientBox kBox(kConfig, kItem);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      offset_[half] =
          kBox.offset(thread / 32 % 4 * 16 + half * 8 + thread % 32 / 4, thread % 4 * 2);
    }
  }

  /// Waits for the next step.
  __device__ void wait() { barriers_.full[ring_.slot].wait(ring_.parity); }

  /// Where the step's boxes begin, as a shared address.
  __device__ std::uint32_t slot() const {
    return boxes_ + ring_.slot * kConfig.gradient_step_bytes(kItem);
  }
  /// Where in them the run of row phase i of channel `odd` of the two begins, at position half.
  __device__ std::uint32_t run(int half, int odd, int i) const {
    constexpr GradientBox kBox(kConfig, kItem);
    const int next = kBox.next_channel(offset_[half]);
    return (odd == 0 ? offset_[half] : next) + i * kBox.row_bytes();
  }

  /// Once all of the warp's lanes have read the step. (The fence: a read may be a long time on its
  /// way where products take the shared memory's bandwidth, and a barrier does not keep bulk copies
  /// from overtaking it.)
  __device__ void release() {
    fence_async_proxy();
    __syncwarp();
    barriers_.empty[ring_.slot].arrive_as_warp();
    ring_.advance(slots_);
  }

 private:
  GradientRing barriers_;
  int slots_;
  std::uint32_t boxes_;
  int offset_[2];
  RingPosition& ring_;
};

}  // namespace tenon::ops::cuda
