// Kernel 3 x 3, stride 1, padding 1.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

using Base = Geometry<1, 3, 1>;

/// Measured on an H100, ms in tf32 and bfloat16: s1 4x64 resident 0.046 (0.060 with turns, before
/// the last changes) and 0.029, 4x64 0.048 and 0.032.
template <class Operand>
constexpr auto rows_of() {
  using Resident = Base::Config<64, 64, 2, 2, true>;
  using Wide = Base::Config<64, 64, 2, 2, false>;
  using Tall = Base::Config<8, 64, 2, 2, false>;
  using NarrowWide = Base::Config<64, 32, 2, 2, false>;
  using NarrowTall = Base::Config<8, 32, 2, 2, false>;
  return std::array{
      kernel_row<Operand, NarrowWide, WarpgroupMultiplier>("sm90 k3 s1, 4x64 of 32", 90, 1, 4, 64),
      kernel_row<Operand, NarrowTall, WarpgroupMultiplier>("sm90 k3 s1, 32x8 of 32", 90, 1, 32, 8),
      kernel_row<Operand, NarrowTall, WarpgroupMultiplier>("sm90 k3 s1, 4x8x8 of 32", 90, 4, 8, 8),
      kernel_row<Operand, Resident, WarpgroupMultiplier>("sm90 k3 s1, 4x64 resident", 90, 1, 4, 64,
                                                         !std::is_same_v<Operand, Tf32>),
      kernel_row<Operand, Wide, WarpgroupMultiplier>("sm90 k3 s1, 4x64", 90, 1, 4, 64),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k3 s1, 32x8", 90, 1, 32, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k3 s1, 4x8x8", 90, 4, 8, 8),
  };
}

/// Three products each, and totals beside the sums: half the positions fit the registers.
constexpr auto split_rows() {
  using Wide = Base::Config<64, 64, 1, 2, false, true>;
  using Tall = Base::Config<8, 64, 1, 2, false, true>;
  return std::array{
      kernel_row<Tf32, Wide, WarpgroupMultiplier>("sm90 k3 s1 float32, 2x64", 90, 1, 2, 64),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k3 s1 float32, 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k3 s1 float32, 2x8x8", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> kernel_rows_sm90_k3_s1() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), split_rows(), rows_of<__nv_bfloat16>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
