// The backward's rows for any geometry, of one operand type.
#pragma once

#include <array>

#include "tenon/ops/cuda/fused/kernel_row.cuh"
#include "tenon/ops/cuda/fused/warp_multiplier.cuh"

namespace tenon::ops::cuda {

template <int kChannels, int kRowPhases, int kColumnPhases, int kBlocks>
using PortableSumGradient =
    StaticConfig<kChannels, kRowPhases, kColumnPhases, kBlocks, /*groups=*/2, /*teams=*/1,
                 /*chunks=*/2, /*vector=*/1, /*resident=*/false, /*split=*/false, 0, 0, 0,
                 /*flat=*/false, Work::SumGradient>;
template <int kChannels, int kBlocks>
using PortableDataGradient =
    StaticConfig<kChannels, 1, 1, kBlocks, /*groups=*/2, /*teams=*/1, /*chunks=*/2, /*vector=*/1,
                 /*resident=*/false, /*split=*/false, 0, 0, 0, /*flat=*/false, Work::DataGradient>;

/// Inside the 99 KB of shared memory that sm_89 gives a block. Beside the sums the gradient of z
/// takes registers, hence the 32 channels of 2 x 2 phases.
template <class Operand>
constexpr auto portable_backward_rows() {
  using TwoByTwo = PortableSumGradient<32, 2, 2, 1>;
  using OneByTwo = PortableSumGradient<32, 1, 2, 1>;
  using OneByOne = PortableSumGradient<64, 1, 1, 1>;
  using OneByThree = PortableSumGradient<32, 1, 3, 1>;
  using OneByFour = PortableSumGradient<32, 1, 4, 1>;
  using Data = PortableDataGradient<64, 1>;
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
