// Rows of sm_90a's warpgroup products, each unrolled for one geometry.
#pragma once

#include <array>

#include "tenon/ops/cuda/fused/kernel_row.cuh"
#include "tenon/ops/cuda/fused/warpgroup_multiplier.cuh"

namespace tenon::ops::cuda {

/// What the configurations of one geometry have in common: two consumer groups and two teams of
/// producers. (One team costs 3 to 32%: the loads' latency shows.) Strides above 2 have too many
/// phases for the registers: there a set is one row phase, which the multiplier allows where the
/// taps of all sets read the same x, as those of kernels as large as the stride do.
template <int kStride, int kKernel, int kPadding>
struct Geometry {
  static constexpr int kRowPhases = kStride <= 2 ? kStride : 1;
  static_assert(kRowPhases == kStride || (kKernel == kStride && kPadding == 0));

  template <int kColumns, int kChannels, int kBlocks, int kChunks, bool kResident,
            bool kSplit = false>
  using Config = StaticConfig<kChannels, kRowPhases, kStride, kBlocks, 2, 2, kChunks,
                              kColumns == 8 && !kSplit ? 2 : 1, kResident, kSplit, kKernel,
                              kPadding, kColumns>;
  /// With flat tiles of 128 positions.
  template <int kChannels, int kChunks, bool kResident>
  using FlatConfig = StaticConfig<kChannels, kStride, kStride, 1, 2, 2, kChunks, 2, kResident,
                                  false, kKernel, kPadding, 128, true>;

  /// Sums over a part of the input channels, for problems of few tiles.
  template <int kChannels>
  using PartialSums = StaticConfig<kChannels, kRowPhases, kStride, 1, 2, 2, 2, 2, false, false,
                                   kKernel, kPadding, 8, false, Work::PartialSums>;

  /// Of the backward: rows need one team of producers, and a data gradient has one phase.
  template <int kColumns, int kChannels, int kBlocks, int kChunks, bool kResident,
            bool kSplit = false>
  using SumGradient =
      StaticConfig<kChannels, kStride, kStride, kBlocks, 2, 1, kChunks, 1, kResident, kSplit,
                   kKernel, kPadding, kColumns, false, Work::SumGradient>;
  /// dy from planes of x: with one team that loads windows, and one for the gradient of z. It pays
  /// in wide tiles at 16 bits, whose raw windows find room in shared memory; with loads through
  /// registers by one team a step of the mission in TF32 took 0.4 ms longer.
  template <int kColumns, int kChannels, int kBlocks, int kChunks, bool kResident>
  using PlaneSumGradient =
      StaticConfig<kChannels, kStride, kStride, kBlocks, 2, 2, kChunks, 1, kResident, false,
                   kKernel, kPadding, kColumns, false, Work::SumGradient>;
  template <int kColumns, int kChannels, int kBlocks, int kChunks, bool kResident,
            bool kSplit = false>
  using DataGradient =
      StaticConfig<kChannels, 1, 1, kBlocks, 2, 1, kChunks, 1, kResident, kSplit, kKernel, kPadding,
                   kColumns, false, Work::DataGradient, kStride>;
};

/// Joins lists of rows.
template <std::size_t kFirst, std::size_t kSecond>
constexpr auto join_rows(const std::array<KernelRow, kFirst>& first,
                         const std::array<KernelRow, kSecond>& second) {
  std::array<KernelRow, kFirst + kSecond> rows{};
  for (std::size_t i = 0; i < kFirst; ++i) rows[i] = first[i];
  for (std::size_t i = 0; i < kSecond; ++i) rows[kFirst + i] = second[i];
  return rows;
}
template <std::size_t kFirst, std::size_t kSecond, class... More>
constexpr auto join_rows(const std::array<KernelRow, kFirst>& first,
                         const std::array<KernelRow, kSecond>& second, const More&... more) {
  return join_rows(join_rows(first, second), more...);
}

}  // namespace tenon::ops::cuda
