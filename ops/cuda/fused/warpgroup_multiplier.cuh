// The products of a stage by warpgroups, for sm_90a, unrolled for one geometry with square kernels,
// all row phases in one set or sets with the same taps, or for its data gradient. Tiles must have 8
// columns and a multiple of 8 rows, or a multiple of 64 columns, as flat ones have: then the eights
// of a block's 64 positions lie at equal distances.
#pragma once

#include <utility>

#include "tenon/ops/cuda/fused/conv_kernel.cuh"
#include "tenon/ops/cuda/fused/warpgroup.cuh"

namespace tenon::ops::cuda {

template <class Operand, class Config>
class WarpgroupMultiplier {
  static constexpr KernelConfig kConfig = Config::value;
  static constexpr int kChannels = kConfig.channels;

  static constexpr PhaseAxis axis() {
    return {1, 1, kConfig.kernel, kConfig.stride, kConfig.padding, 1};
  }
  static constexpr TapList kTaps = kConfig.work == Work::DataGradient
                                       ? list_gradient_taps(axis(), axis())
                                       : list_taps(axis(), axis(), kConfig.row_phases, 0);
  static constexpr WindowColumns kWindow = window_columns(kTaps, kConfig.columns, kConfig.vector);
  /// Rows of 16 bytes from eight positions to the next eight.
  static constexpr int kGroupRows = kConfig.columns == 8 ? kWindow.count : 8;

 public:
  static constexpr bool kAsync = true;

  __device__ WarpgroupMultiplier(const Tiling& tiling, int group)
      : chunk_rows_(tiling.chunk_rows()),
        window_(tiling.window_rows * kWindow.count),
        pitch_(kConfig.flat ? tiling.line_columns : kWindow.count) {
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
      first_position_[block] = first_window_position(tiling, group * kConfig.blocks + block);
    }
  }

  /// Registers move from the producers, who need few, to the consumers.
  template <Role kRole>
  __device__ static void share_registers() {
    static_assert(kConfig.groups == 2 && kConfig.teams <= 2);
    constexpr int kRegisters = registers_of(kRole);
    if constexpr (kRole == Role::Consumer) {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
    } else {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
    }
  }

  /// Before the first products of sums, which overwrite what these hold.
  __device__ void begin(Sums<Config>& /*sums*/) { fresh_ = true; }

  template <int kPending>
  __device__ void wait() const {
    warpgroup_wait<kPending>();
  }

  /// Keeps the compiler from using sums before they were waited for.
  __device__ void settle(Sums<Config>& sums) const {
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
#pragma unroll
      for (int phase = 0; phase < kConfig.phases(); ++phase) {
#pragma unroll
        for (int i = 0; i < kChannels / 2; ++i) asm volatile("" : "+f"(sums[block][phase][i]));
      }
    }
  }

  __device__ void add(int /*set*/, std::uint32_t x, std::uint32_t weights, Sums<Config>& sums) {
    // Descriptors count in rows of 16 bytes.
    x >>= 4;
    weights >>= 4;
    warpgroup_begin();
#pragma unroll
    for (int chunk = 0; chunk < kConfig.chunks; chunk += 2) {
      const std::uint32_t chunk_x = x + chunk * chunk_rows_;
#pragma unroll
      for (int pair = 0; pair < half_pairs(kConfig); ++pair) {
        const std::uint32_t half_x = chunk_x + x_half(kConfig, pair) * kConfig.chunks * chunk_rows_;
        const int half_chunk = weight_half(kConfig, pair) * kConfig.chunks + chunk;
        const bool first = chunk == 0 && pair == 0;
        add_taps(half_x, weights, half_chunk, first && fresh_, sums,
                 std::make_index_sequence<kTaps.count>());
      }
    }
    warpgroup_commit();
    fresh_ = false;
  }

 private:
  /// Of a thread of that role. One of each warpgroup together have 512 at most.
  static constexpr int registers_of(Role role) {
    if (kConfig.gradient_team()) {
      return role == Role::Consumer ? 208 : role == Role::Loader ? 64 : 32;
    }
    // Who starts bulk copies needs few, but what all threads know of their block counts too.
    if (kConfig.takes_rows()) return role == Role::Consumer ? 224 : 56;
    if (role != Role::Consumer) return 72;
    return kConfig.teams == 1 ? 216 : 184;
  }

  template <std::size_t... kTap>
  __device__ void add_taps(std::uint32_t x, std::uint32_t weights, int half_chunk, bool fresh,
                           Sums<Config>& sums, std::index_sequence<kTap...> /*taps*/) const {
    (add_tap<kTap>(x, weights, half_chunk, fresh, sums), ...);
  }

  template <std::size_t kTap>
  __device__ void add_tap(std::uint32_t x, std::uint32_t weights, int half_chunk, bool fresh,
                          Sums<Config>& sums) const {
    constexpr Tap kThis = kTaps.taps[kTap];
    constexpr bool kFirst = kTap == 0 || kTaps.taps[kTap == 0 ? 0 : kTap - 1].phase != kThis.phase;
    const int position = kThis.source * window_ +
                         (kThis.row_shift - kTaps.first_row_shift) * pitch_ + kThis.column_shift -
                         kWindow.first;
    const std::uint64_t b =
        descriptor(weights + static_cast<int>(kTap) * kConfig.tap_rows() + half_chunk * kChannels,
                   16 * kChannels, 16 * 8);
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
      const std::uint64_t a =
          descriptor(x + first_position_[block] + position, 16 * chunk_rows_, 16 * kGroupRows);
      warpgroup_multiply<Operand, kChannels>(sums[block][kThis.phase], a, b, !(kFirst && fresh));
    }
  }

  std::uint32_t chunk_rows_;
  int window_;  // positions from one source to the next
  int pitch_;   // of the window's rows
  int first_position_[kConfig.blocks];
  bool fresh_ = true;
};

}  // namespace tenon::ops::cuda
