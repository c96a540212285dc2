// Stride 2 with kernel 6 x 6, padding 2, and 7 x 7, padding 3.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

/// A stage's weights take 74 and, of half as many channels, 50 KB. Beside the addresses of 49 taps
/// the sums of 64 channels do not fit the registers. Measured on an H100, ms: 16,16,24,24,48 in
/// tf32 k6 16x8 0.014; 1,96,48,48,512 in bfloat16 k7 16x8 of 32 0.042, 4,48,16,16,192 in tf32
/// 0.015.
template <class Operand>
constexpr auto rows_of() {
  using Six = Geometry<2, 6, 2>::Config<8, 64, 1, 2, false>;
  using Seven = Geometry<2, 7, 3>::Config<8, 32, 1, 2, false>;
  return std::array{
      kernel_row<Operand, Six, WarpgroupMultiplier>("sm90 k6 s2, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Six, WarpgroupMultiplier>("sm90 k6 s2, 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, Seven, WarpgroupMultiplier>("sm90 k7 s2, 16x8 of 32", 90, 1, 16, 8),
      kernel_row<Operand, Seven, WarpgroupMultiplier>("sm90 k7 s2, 2x8x8 of 32", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> kernel_rows_sm90_k6_k7_s2() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), rows_of<__nv_bfloat16>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
