// Kernels as large as the stride, 3 x 3 and 4 x 4: every position of x becomes a patch of z.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

template <class Operand>
constexpr auto rows_of() {
  using ThreeWide = Geometry<3, 3, 0>::Config<64, 64, 1, 4, false>;
  using ThreeTall = Geometry<3, 3, 0>::Config<8, 64, 1, 4, false>;
  using FourWide = Geometry<4, 4, 0>::Config<64, 64, 1, 4, false>;
  using FourTall = Geometry<4, 4, 0>::Config<8, 64, 1, 4, false>;
  return std::array{
      kernel_row<Operand, ThreeWide, WarpgroupMultiplier>("sm90 k3 s3, 2x64", 90, 1, 2, 64),
      kernel_row<Operand, ThreeTall, WarpgroupMultiplier>("sm90 k3 s3, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, ThreeTall, WarpgroupMultiplier>("sm90 k3 s3, 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, FourWide, WarpgroupMultiplier>("sm90 k4 s4, 2x64", 90, 1, 2, 64),
      kernel_row<Operand, FourTall, WarpgroupMultiplier>("sm90 k4 s4, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, FourTall, WarpgroupMultiplier>("sm90 k4 s4, 2x8x8", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> kernel_rows_sm90_k3_s3_k4_s4() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), rows_of<__nv_bfloat16>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
