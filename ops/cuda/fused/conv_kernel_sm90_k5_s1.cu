// Kernel 5 x 5, stride 1, padding 2.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

using Base = Geometry<1, 5, 2>;

/// Tiles of 256 positions halve the weights that come through the L2 cache; smaller ones are for
/// images and batches that they do not fill. Measured on an H100, ms: 64,64,48,48,8 in tf32 4x8x8
/// of 32 0.107, 4x8x8 0.135; 1,192,100,100,32 in tf32 16x8 of 32 0.032, 16x8 0.039; 8,64,28,28,32
/// in bfloat16 0.009 and 0.010.
template <class Operand>
constexpr auto rows_of() {
  using Tall = Base::Config<8, 64, 2, 2, false>;
  using Low = Base::Config<8, 64, 1, 2, false>;
  using NarrowTall = Base::Config<8, 32, 2, 2, false>;
  using NarrowLow = Base::Config<8, 32, 1, 2, false>;
  return std::array{
      kernel_row<Operand, NarrowTall, WarpgroupMultiplier>("sm90 k5 s1, 32x8 of 32", 90, 1, 32, 8),
      kernel_row<Operand, NarrowTall, WarpgroupMultiplier>("sm90 k5 s1, 4x8x8 of 32", 90, 4, 8, 8),
      kernel_row<Operand, NarrowLow, WarpgroupMultiplier>("sm90 k5 s1, 16x8 of 32", 90, 1, 16, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k5 s1, 32x8", 90, 1, 32, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k5 s1, 4x8x8", 90, 4, 8, 8),
      kernel_row<Operand, Low, WarpgroupMultiplier>("sm90 k5 s1, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Low, WarpgroupMultiplier>("sm90 k5 s1, 2x8x8", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> kernel_rows_sm90_k5_s1() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), rows_of<__nv_bfloat16>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
