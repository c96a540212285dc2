// The producers' half of x on sm_90, where its rows lie at multiples of 16 bytes: the tensor memory
// accelerator copies windows as they are, [channel][position], and the producers turn them into
// rows of 16 bytes of consecutive channels within shared memory. Copies wait in no register, so
// that many bytes can be under way, and what lies outside of x arrives as zeros.
#pragma once

#include "tenon/ops/cuda/fused/channel_row.cuh"
#include "tenon/ops/cuda/fused/tensor_core.cuh"
#include "tenon/ops/cuda/fused/tile_place.cuh"

namespace tenon::ops::cuda {

/// One team's copies. The team's stages are every Config::value.loading_teams()-th of the block's;
/// their raw windows go through a ring of the team's own.
template <class Operand, class Config>
class BulkLoader {
  using Element = typename OperandTraits<Operand>::Element;
  static constexpr int kRow = OperandTraits<Operand>::kRow;
  static constexpr int kChunks = Config::value.chunks;
  static constexpr int kTeams = Config::value.loading_teams();
  static constexpr int kThreads = 32 * kProducerWarps;

 public:
  /// Starts the copies of the first stages.
  __device__ BulkLoader(const KernelArguments& arguments, const SharedLayout& layout, char* shared,
                        int team)
      : arguments_(arguments),
        team_(team),
        slots_(arguments.raw.slots / kTeams),
        slot_bytes_(layout.raw_bytes),
        raw_(shared + layout.raw + team * slots_ * layout.raw_bytes),
        full_(reinterpret_cast<PipelineBarrier*>(shared + layout.barriers) + 2 * arguments.slots +
              team * slots_),
        plane_(arguments.tiling.tile.images * arguments.tiling.window_rows * arguments.raw.columns),
        line_share_(65536 / arguments.tiling.window_columns + 1),
        next_tile_(blockIdx.x),
        next_stage_(team) {
    skip_to_tile();
    for (int slot = 0; slot < slots_; ++slot) copy_next(slot);
  }

  __device__ void begin_tile(const TilePlace& /*place*/) {}

  /// This thread's part of the team's next window into the slot at `shared`.
  __device__ void load(int /*stage*/, char* shared) {
    const Tiling& t = arguments_.tiling;
    const int warp = static_cast<int>(threadIdx.x) / 32 % kProducerWarps;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int chunk = warp % kChunks;
    const int skipped = arguments_.raw.columns - t.window_columns;  // behind each line
    const auto* source = reinterpret_cast<const Element*>(raw_ + ring_.slot * slot_bytes_) +
                         chunk * kRow * plane_ + arguments_.raw.skip;
    uint4* rows = reinterpret_cast<uint4*>(shared) + chunk * t.chunk_rows();
    const int positions = t.window_positions();
    full_[ring_.slot].wait(ring_.parity);
#pragma unroll 2
    for (int p = warp / kChunks * 32 + lane; p < positions; p += 32 * kProducerWarps / kChunks) {
      const Element* at = source + p + (p * line_share_ >> 16) * skipped;
      Element values[kRow];
#pragma unroll
      for (int i = 0; i < kRow; ++i) values[i] = at[i * plane_];
      store_channel_row<Operand, Config>(values, rows + p);
    }
  }

  /// Copies a later window to where the last one was read, once all the team has.
  __device__ void release() {
    named_barrier_wait(kFirstBarrier + team_, kThreads);
    copy_next(ring_.slot);
    ring_.advance(slots_);
  }

 private:
  /// Named barriers 1 and 2 are the consumers'.
  static constexpr int kFirstBarrier = 3;

  __device__ void skip_to_tile() {
    while (next_stage_ >= arguments_.tiling.stages) {
      next_stage_ -= arguments_.tiling.stages;
      next_tile_ += static_cast<int>(gridDim.x);
    }
  }

  /// Starts the copy of the team's next window, if there is one.
  __device__ void copy_next(int slot) {
    const Tiling& t = arguments_.tiling;
    if (next_tile_ < t.tiles()) {
      if (threadIdx.x % kThreads == 0) {
        const TilePlace place(t, next_tile_);
        full_[slot].arrive_and_expect(kChunks * kRow * plane_ * static_cast<int>(sizeof(Element)));
        copy_box(raw_ + slot * slot_bytes_, arguments_.x_map,
                 place.column + t.first_column - arguments_.raw.skip,
                 place.row + t.first_row[place.set], place.image,
                 place.group * t.shape.in_channels + next_stage_ * kChunks * kRow, full_[slot]);
      }
      next_stage_ += kTeams;
      skip_to_tile();
    }
  }

  const KernelArguments& arguments_;
  int team_;
  int slots_;
  int slot_bytes_;
  char* raw_;
  PipelineBarrier* full_;
  int plane_;       // elements of a channel
  int line_share_;  // of 65536: a product and a shift divide by the columns of a line
  int next_tile_;
  int next_stage_;
  RingPosition ring_;
};

}  // namespace tenon::ops::cuda
