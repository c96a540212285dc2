// The backward's rows for any geometry, of one operand type.
#pragma once

#include <array>

#include "tenon/ops/cuda/fused/kernel_row.cuh"
#include "tenon/ops/cuda/fused/warp_multiplier.cuh"

namespace tenon::ops::cuda {

template <bool kSplit, int kChannels, int kRowPhases, int kColumnPhases>
using PortableSumGradient =
    StaticConfig<kChannels, kRowPhases, kColumnPhases, /*blocks=*/1, /*groups=*/2, /*teams=*/1,
                 /*chunks=*/2, /*vector=*/1, /*resident=*/false, kSplit, 0, 0, 0, /*flat=*/false,
                 Work::SumGradient>;
template <bool kSplit, int kChannels>
using PortableDataGradient =
    StaticConfig<kChannels, 1, 1, /*blocks=*/1, /*groups=*/2, /*teams=*/1, /*chunks=*/2,
                 /*vector=*/1, /*resident=*/false, kSplit, 0, 0, 0, /*flat=*/false,
                 Work::DataGradient>;

/// Inside the 99 KB of shared memory that sm_89 gives a block. Beside the sums the gradient of z
/// takes registers, hence the 32 channels of 2 x 2 phases; with split totals do too.
template <class Operand, bool kSplit = false>
constexpr auto portable_backward_rows() {
  constexpr int kMany = kSplit ? 32 : 64;
  constexpr int kFew = kSplit ? 16 : 32;
  using TwoByTwo = PortableSumGradient<kSplit, kFew, 2, 2>;
  using OneByTwo = PortableSumGradient<kSplit, 32, 1, 2>;
  using OneByOne = PortableSumGradient<kSplit, kMany, 1, 1>;
  using OneByThree = PortableSumGradient<kSplit, kFew, 1, 3>;
  using OneByFour = PortableSumGradient<kSplit, kFew, 1, 4>;
  using Data = PortableDataGradient<kSplit, kMany>;
  return std::array{
      kernel_row<Operand, TwoByTwo, WarpMultiplier>("dy, any 2x2 phases, 2x64", 80, 1, 2, 64),
      kernel_row<Operand, TwoByTwo, WarpMultiplier>("dy, any 2x2 phases, 16x8", 80, 1, 16, 8),
      kernel_row<Operand, TwoByTwo, WarpMultiplier>("dy, any 2x2 phases, 2x8x8", 80, 2, 8, 8),
      kernel_row<Operand, OneByTwo, WarpMultiplier>("dy, any 1x2 phases, 16x8", 80, 1, 16, 8),
      kernel_row<Operand, OneByOne, WarpMultiplier>("dy, any 1x1 phases, 2x64", 80, 1, 2, 64),
      kernel_row<Operand, OneByOne, WarpMultiplier>("dy, any 1x1 phases, 16x8", 80, 1, 16, 8),
      kernel_row<Operand, OneByOne, WarpMultiplier>("dy, any 1x1 phases, 2x8x8", 80, 2, 8, 8),
      kernel_row<Operand, OneByThree, WarpMultiplier>("dy, any 1x3 phases, 16x8", 80, 1, 16, 8),
      kernel_row<Operand, OneByFour, WarpMultiplier>("dy, any 1x4 phases, 16x8", 80, 1, 16, 8),
      kernel_row<Operand, Data, WarpMultiplier>("dx, any, 2x64", 80, 1, 2, 64),
      kernel_row<Operand, Data, WarpMultiplier>("dx, any, 16x8", 80, 1, 16, 8),
      kernel_row<Operand, Data, WarpMultiplier>("dx, any, 2x8x8", 80, 2, 8, 8),
  };
}

}  // namespace tenon::ops::cuda
