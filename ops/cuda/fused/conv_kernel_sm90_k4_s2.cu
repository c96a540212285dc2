// Kernel 4 x 4, stride 2, padding 1: DCGAN's geometry.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

using Base = Geometry<2, 4, 1>;

/// Measured on an H100, ms in tf32 and bfloat16: dcgan8 2x8x8 0.127 and 0.066, dcgan32 16x8 0.158
/// and 0.099, small flat of 32 resident 0.028 and 0.021, flat 0.030 and 0.031, 2x8x8 0.049 and
/// 0.046; 8,192,128,128,96 in bfloat16 16x8 0.304, 16x8 of 48 0.240.
template <class Operand>
constexpr auto rows_of() {
  using Narrow = Base::Config<8, 32, 1, 2, false>;
  using Tall = Base::Config<8, 64, 1, 2, false>;
  using Middle = Base::Config<8, 48, 1, 2, false>;
  using Flat = Base::FlatConfig<64, 2, false>;
  using FlatNarrow = Base::FlatConfig<32, 2, true>;
  return std::array{
      kernel_row<Operand, Narrow, WarpgroupMultiplier>("sm90 k4 s2, 16x8 of 32", 90, 1, 16, 8),
      kernel_row<Operand, Narrow, WarpgroupMultiplier>("sm90 k4 s2, 2x8x8 of 32", 90, 2, 8, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k4 s2, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k4 s2, 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, Middle, WarpgroupMultiplier>("sm90 k4 s2, 16x8 of 48", 90, 1, 16, 8),
      kernel_row<Operand, Middle, WarpgroupMultiplier>("sm90 k4 s2, 2x8x8 of 48", 90, 2, 8, 8),
      kernel_row<Operand, FlatNarrow, WarpgroupMultiplier>("sm90 k4 s2, flat of 32 resident", 90, 1,
                                                           1, 128, true),
      kernel_row<Operand, Flat, WarpgroupMultiplier>("sm90 k4 s2, flat", 90, 1, 1, 128),
  };
}

/// Three products each, and totals beside the sums: 32 channels fit the registers.
constexpr auto split_rows() {
  using Tall = Base::Config<8, 32, 1, 2, false, true>;
  return std::array{
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k4 s2 float32, 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k4 s2 float32, 2x8x8", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> kernel_rows_sm90_k4_s2() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), split_rows(), rows_of<__nv_bfloat16>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
