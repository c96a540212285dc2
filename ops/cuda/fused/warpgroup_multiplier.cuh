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
      if constexpr (kConfig.split) first_position_[block] += lane_position(tiling);
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

  __device__ void add(int /*set*/, std::uint32_t x, std::uint32_t weights, Sums<Config>& sums,
                      Sums<Config>& /*totals*/) {
    constexpr auto kEvery = std::make_index_sequence<kTaps.count>();
    // Descriptors count in rows of 16 bytes.
    weights >>= 4;
    if constexpr (kConfig.split) {
      add_split_taps(x, weights, sums, kEvery);
    } else {
      x >>= 4;
      warpgroup_begin();
#pragma unroll
      for (int chunk = 0; chunk < kConfig.chunks; chunk += 2) {
        add_taps(x + chunk * chunk_rows_, weights, chunk, chunk == 0 && fresh_, sums, kEvery);
      }
      warpgroup_commit();
    }
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

  /// Whether a tap is its phase's first.
  static constexpr bool is_first(std::size_t tap) {
    return tap == 0 || kTaps.taps[tap - 1].phase != kTaps.taps[tap].phase;
  }
  /// Where in a chunk of the window a tap begins to read, for the first position.
  template <std::size_t kTap>
  __device__ int position_of() const {
    constexpr Tap kThis = kTaps.taps[kTap];
    return kThis.source * window_ + (kThis.row_shift - kTaps.first_row_shift) * pitch_ +
           kThis.column_shift - kWindow.first;
  }
  /// A tap's weights of two chunks, of which the first is number `chunk`, tails behind heads.
  template <std::size_t kTap>
  __device__ static std::uint64_t weights_of(std::uint32_t weights, int chunk) {
    return descriptor(weights + static_cast<int>(kTap) * kConfig.tap_rows() + chunk * kChannels,
                      16 * kChannels, 16 * 8);
  }

  template <std::size_t... kTap>
  __device__ void add_taps(std::uint32_t x, std::uint32_t weights, int chunk, bool fresh,
                           Sums<Config>& sums, std::index_sequence<kTap...> /*taps*/) const {
    (add_tap<kTap>(x, weights_of<kTap>(weights, chunk), fresh, sums), ...);
  }

  template <std::size_t kTap>
  __device__ void add_tap(std::uint32_t x, std::uint64_t b, bool fresh, Sums<Config>& sums) const {
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
      const std::uint64_t a = descriptor(x + first_position_[block] + position_of<kTap>(),
                                         16 * chunk_rows_, 16 * kGroupRows);
      warpgroup_multiply<Operand, kChannels>(sums[block][kTaps.taps[kTap].phase], a, b,
                                             !(is_first(kTap) && fresh));
    }
  }

  // ---- at float32 accuracy -------------------------------------------------------------------
  // x comes through registers, where it is split: no memory holds heads and tails of it, and the
  // tensor cores read nothing but weights from shared memory, whose bandwidth would be the limit.

  using Fragments = std::uint32_t[kConfig.blocks][4];

  /// What this lane reads of a block of 64 positions by `load_matrices`: lanes 0 to 15 name the 16
  /// positions of their warp in the first chunk, the others in the second.
  __device__ static int lane_position(const Tiling& tiling) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int position = static_cast<int>(threadIdx.x) / 32 % 4 * 16 + lane % 16;
    return position / 8 * kGroupRows + position % 8 + lane / 16 * tiling.chunk_rows();
  }

  template <std::size_t kTap>
  __device__ void load_tap(std::uint32_t x, Fragments& fragments) const {
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
      load_matrices(fragments[block], x + 16 * (first_position_[block] + position_of<kTap>()));
    }
  }

  template <std::size_t... kTap>
  __device__ void add_split_taps(std::uint32_t x, std::uint32_t weights, Sums<Config>& sums,
                                 std::index_sequence<kTap...> /*taps*/) const {
    static_assert(kConfig.chunks == 2 && !kConfig.flat);
    Fragments heads;
    load_tap<0>(x, heads);
    (add_split_tap<kTap>(x, weights, sums, heads), ...);
  }

  /// `x_words` is x of this tap, and becomes that of the next, which is read while the products of
  /// this one are under way.
  template <std::size_t kTap>
  __device__ void add_split_tap(std::uint32_t x, std::uint32_t weights, Sums<Config>& sums,
                                Fragments& x_words) const {
    constexpr int kPhase = kTaps.taps[kTap].phase;
    const std::uint64_t weight_heads = weights_of<kTap>(weights, 0);
    const std::uint64_t weight_tails = weights_of<kTap>(weights, kConfig.chunks);
    Fragments tails;
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) split_words(x_words[block], tails[block]);
    Fragments next;
    if constexpr (kTap + 1 < kTaps.count) load_tap<kTap + 1>(x, next);
    warpgroup_begin();
#pragma unroll
    for (int block = 0; block < kConfig.blocks; ++block) {
      float* sum = sums[block][kPhase];
      // The small products first, then heads by heads.
      warpgroup_multiply<kChannels>(sum, x_words[block], weight_tails, !(is_first(kTap) && fresh_));
      warpgroup_multiply<kChannels>(sum, tails[block], weight_heads, true);
      warpgroup_multiply<kChannels>(sum, x_words[block], weight_heads, true);
    }
    warpgroup_commit();
    warpgroup_wait<1>();
    if constexpr (kTap + 1 < kTaps.count) {
#pragma unroll
      for (int block = 0; block < kConfig.blocks; ++block) {
#pragma unroll
        for (int i = 0; i < 4; ++i) x_words[block][i] = next[block][i];
      }
    }
  }

  std::uint32_t chunk_rows_;
  int window_;                          // positions from one source to the next
  int pitch_;                           // of the window's rows
  int first_position_[kConfig.blocks];  // of the window; with split what this lane reads first
  bool fresh_ = true;
};

}  // namespace tenon::ops::cuda
