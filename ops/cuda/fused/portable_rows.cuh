// The rows for any geometry, of one operand type.
#pragma once

#include <array>

#include "tenon/ops/cuda/fused/kernel_row.cuh"
#include "tenon/ops/cuda/fused/warp_multiplier.cuh"

namespace tenon::ops::cuda {

template <class Operand, bool kSplit, int kChannels, int kRowPhases, int kColumnPhases, int kBlocks>
using PortableConfig =
    StaticConfig<kChannels, kRowPhases, kColumnPhases, kBlocks, /*groups=*/2,
                 /*teams=*/1, /*chunks=*/2, /*vector=*/2, /*resident=*/false, kSplit>;

/// Inside the 99 KB of shared memory that sm_89 gives a block: 64 (or 32) output channels and
/// stages of 32 bytes of channels, so that up to seven stages fit. Wide tiles first: they write
/// whole lines.
template <class Operand, bool kSplit>
constexpr auto portable_rows() {
  constexpr int kChannels = kSplit ? 32 : 64;  // with split the totals take registers too
  using OneByOne = PortableConfig<Operand, kSplit, kChannels, 1, 1, 2>;
  using OneByTwo = PortableConfig<Operand, kSplit, kChannels, 1, 2, 1>;
  using TwoByTwo = PortableConfig<Operand, kSplit, kChannels / (kSplit ? 2 : 1), 2, 2, 1>;
  using OneByThree = PortableConfig<Operand, kSplit, 32, 1, 3, 1>;
  using OneByFour = PortableConfig<Operand, kSplit, kSplit ? 16 : 32, 1, 4, 1>;
  return std::array{
      kernel_row<Operand, TwoByTwo, WarpMultiplier>("any 2x2 phases, 2x64", 80, 1, 2, 64),
      kernel_row<Operand, TwoByTwo, WarpMultiplier>("any 2x2 phases, 16x8", 80, 1, 16, 8),
      kernel_row<Operand, TwoByTwo, WarpMultiplier>("any 2x2 phases, 2x8x8", 80, 2, 8, 8),
      kernel_row<Operand, OneByTwo, WarpMultiplier>("any 1x2 phases, 2x64", 80, 1, 2, 64),
      kernel_row<Operand, OneByTwo, WarpMultiplier>("any 1x2 phases, 16x8", 80, 1, 16, 8),
      kernel_row<Operand, OneByOne, WarpMultiplier>("any 1x1 phases, 4x64", 80, 1, 4, 64),
      kernel_row<Operand, OneByOne, WarpMultiplier>("any 1x1 phases, 32x8", 80, 1, 32, 8),
      kernel_row<Operand, OneByOne, WarpMultiplier>("any 1x1 phases, 4x8x8", 80, 4, 8, 8),
      kernel_row<Operand, OneByThree, WarpMultiplier>("any 1x3 phases, 2x64", 80, 1, 2, 64),
      kernel_row<Operand, OneByThree, WarpMultiplier>("any 1x3 phases, 16x8", 80, 1, 16, 8),
      kernel_row<Operand, OneByFour, WarpMultiplier>("any 1x4 phases, 2x64", 80, 1, 2, 64),
      kernel_row<Operand, OneByFour, WarpMultiplier>("any 1x4 phases, 16x8", 80, 1, 16, 8),
  };
}

}  // namespace tenon::ops::cuda
