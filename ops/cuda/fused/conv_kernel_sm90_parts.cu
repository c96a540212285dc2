// Sums over a part of the input channels, for every geometry whose products can be many where tiles
// are few: what is added up behind them is in partial_sums.h.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

/// Measured on an H100, ms, with the adding up, and without parts: 4,256,32,32,16 in tf32 k3 s1
/// 0.018 and 0.035; 2,128,64,64,8 in bfloat16 k5 s2 0.017 and 0.022; 1,128,28,28,48 in tf32 k6 s2
/// 0.017 and 0.048; 1,192,24,24,8 0.018 and 0.068. The others' are not measured.
template <class Operand>
constexpr auto rows_of() {
  using K3S1 = Geometry<1, 3, 1>::PartialSums<64>;
  using K5S1 = Geometry<1, 5, 2>::PartialSums<64>;
  using K3S2 = Geometry<2, 3, 1>::PartialSums<64>;
  using K4S2 = Geometry<2, 4, 1>::PartialSums<64>;
  using K5S2 = Geometry<2, 5, 2>::PartialSums<64>;
  using K6S2 = Geometry<2, 6, 2>::PartialSums<64>;
  using K7S2 = Geometry<2, 7, 3>::PartialSums<32>;
  return std::array{
      kernel_row<Operand, K3S1, WarpgroupMultiplier>("sm90 k3 s1, 16x8 in parts", 90, 1, 16, 8),
      kernel_row<Operand, K3S1, WarpgroupMultiplier>("sm90 k3 s1, 2x8x8 in parts", 90, 2, 8, 8),
      kernel_row<Operand, K5S1, WarpgroupMultiplier>("sm90 k5 s1, 16x8 in parts", 90, 1, 16, 8),
      kernel_row<Operand, K5S1, WarpgroupMultiplier>("sm90 k5 s1, 2x8x8 in parts", 90, 2, 8, 8),
      kernel_row<Operand, K3S2, WarpgroupMultiplier>("sm90 k3 s2, 16x8 in parts", 90, 1, 16, 8),
      kernel_row<Operand, K3S2, WarpgroupMultiplier>("sm90 k3 s2, 2x8x8 in parts", 90, 2, 8, 8),
      kernel_row<Operand, K4S2, WarpgroupMultiplier>("sm90 k4 s2, 16x8 in parts", 90, 1, 16, 8),
      kernel_row<Operand, K4S2, WarpgroupMultiplier>("sm90 k4 s2, 2x8x8 in parts", 90, 2, 8, 8),
      kernel_row<Operand, K5S2, WarpgroupMultiplier>("sm90 k5 s2, 16x8 in parts", 90, 1, 16, 8),
      kernel_row<Operand, K5S2, WarpgroupMultiplier>("sm90 k5 s2, 2x8x8 in parts", 90, 2, 8, 8),
      kernel_row<Operand, K6S2, WarpgroupMultiplier>("sm90 k6 s2, 16x8 in parts", 90, 1, 16, 8),
      kernel_row<Operand, K6S2, WarpgroupMultiplier>("sm90 k6 s2, 2x8x8 in parts", 90, 2, 8, 8),
      kernel_row<Operand, K7S2, WarpgroupMultiplier>("sm90 k7 s2, 16x8 in parts", 90, 1, 16, 8),
      kernel_row<Operand, K7S2, WarpgroupMultiplier>("sm90 k7 s2, 2x8x8 in parts", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> kernel_rows_sm90_parts() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), rows_of<__nv_bfloat16>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
