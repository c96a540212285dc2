// Kernel 3 x 3, stride 2, padding 1: the mission's geometry.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

using Base = Geometry<2, 3, 1>;

/// Measured on an H100, mission, ms: 2x64 resident 1.01 in tf32, 1x128 resident 0.65 in
/// bfloat16; before the last changes 1.10 and 0.82, and the other way round 1.28 and 0.82.
template <class Operand>
constexpr auto wide_row() {
  if constexpr (std::is_same_v<Operand, Tf32>) {
    return kernel_row<Operand, Base::Config<64, 64, 1, 4, true>, WarpgroupMultiplier>(
        "sm90 k3 s2, 2x64 resident", 90, 1, 2, 64, true);
  } else {
    return kernel_row<Operand, Base::Config<128, 64, 1, 4, true>, WarpgroupMultiplier>(
        "sm90 k3 s2, 1x128 resident", 90, 1, 1, 128, true);
  }
}

template <class Operand>
constexpr auto rows_of() {
  using Narrow = Base::Config<8, 32, 1, 2, false>;
  using Wide = Base::Config<64, 64, 1, 2, false>;
  using Tall = Base::Config<8, 64, 1, 2, false>;
  using Middle = Base::Config<8, 48, 1, 2, false>;
  return std::array{
      kernel_row<Operand, Narrow, WarpgroupMultiplier>("sm90 k3 s2, 16x8 of 32", 90, 1, 16, 8),
      kernel_row<Operand, Narrow, WarpgroupMultiplier>("sm90 k3 s2, 2x8x8 of 32", 90, 2, 8, 8),
      wide_row<Operand>(),
      kernel_row<Operand, Wide, WarpgroupMultiplier>("sm90 k3 s2, 2x64", 90, 1, 2, 64),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k3 s2, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k3 s2, 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, Middle, WarpgroupMultiplier>("sm90 k3 s2, 16x8 of 48", 90, 1, 16, 8),
      kernel_row<Operand, Middle, WarpgroupMultiplier>("sm90 k3 s2, 2x8x8 of 48", 90, 2, 8, 8),
  };
}

/// Three products each, and totals beside the sums: 32 channels fit the registers.
constexpr auto split_rows() {
  using Resident = Base::Config<64, 32, 1, 2, true, true>;
  using Wide = Base::Config<64, 32, 1, 2, false, true>;
  using Tall = Base::Config<8, 32, 1, 2, false, true>;
  return std::array{
      kernel_row<Tf32, Resident, WarpgroupMultiplier>("sm90 k3 s2 float32, 2x64 resident", 90, 1, 2,
                                                      64),
      kernel_row<Tf32, Wide, WarpgroupMultiplier>("sm90 k3 s2 float32, 2x64", 90, 1, 2, 64),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k3 s2 float32, 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k3 s2 float32, 2x8x8", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> kernel_rows_sm90_k3_s2() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), split_rows(), rows_of<__nv_bfloat16>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
