// The backward of kernel 2 x 2 without padding, which U-Nets have, and of 5 x 5 with padding 2;
// stride 2.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

/// From planes of x, at 16 bits.
template <class Operand>
constexpr auto k2_plane_rows() {
  using Wide = Geometry<2, 2, 0>::PlaneSumGradient<64, 64, 1, 4, true>;
  return std::array{kernel_row<Operand, Wide, WarpgroupMultiplier>("sm90 k2 s2, dy 2x64 of planes",
                                                                   90, 1, 2, 64, true)};
}

template <class Operand>
constexpr auto k2_rows() {
  using Base = Geometry<2, 2, 0>;
  using Wide = Base::SumGradient<64, 64, 1, 4, true>;
  using Tall = Base::SumGradient<8, 64, 1, 4, false>;
  using ResidentData = Base::DataGradient<64, 64, 1, 4, true>;
  using WideData = Base::DataGradient<64, 64, 1, 4, false>;
  using TallData = Base::DataGradient<8, 64, 1, 4, false>;
  return std::array{
      kernel_row<Operand, Wide, WarpgroupMultiplier>("sm90 k2 s2, dy 2x64 resident", 90, 1, 2, 64,
                                                     true),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k2 s2, dy 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k2 s2, dy 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, ResidentData, WarpgroupMultiplier>("sm90 k2 s2, dx 2x64 resident", 90, 1,
                                                             2, 64),
      kernel_row<Operand, WideData, WarpgroupMultiplier>("sm90 k2 s2, dx 2x64", 90, 1, 2, 64),
      kernel_row<Operand, TallData, WarpgroupMultiplier>("sm90 k2 s2, dx 16x8", 90, 1, 16, 8),
      kernel_row<Operand, TallData, WarpgroupMultiplier>("sm90 k2 s2, dx 2x8x8", 90, 2, 8, 8),
  };
}

template <class Operand>
constexpr auto k5_rows() {
  using Base = Geometry<2, 5, 2>;
  using Sums = Base::SumGradient<8, 64, 1, 2, false>;
  using Data = Base::DataGradient<8, 64, 1, 2, false>;
  return std::array{
      kernel_row<Operand, Sums, WarpgroupMultiplier>("sm90 k5 s2, dy 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Sums, WarpgroupMultiplier>("sm90 k5 s2, dy 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, Data, WarpgroupMultiplier>("sm90 k5 s2, dx 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Data, WarpgroupMultiplier>("sm90 k5 s2, dx 2x8x8", 90, 2, 8, 8),
  };
}

/// At float32 accuracy totals lie beside the sums: 32 channels of four phases fit the registers.
constexpr auto k2_split_rows() {
  using Base = Geometry<2, 2, 0>;
  using Wide = Base::SumGradient<64, 32, 1, 2, false, true>;
  using Tall = Base::SumGradient<8, 32, 1, 2, false, true>;
  using WideData = Base::DataGradient<64, 64, 1, 2, false, true>;
  using TallData = Base::DataGradient<8, 64, 1, 2, false, true>;
  return std::array{
      kernel_row<Tf32, Wide, WarpgroupMultiplier>("sm90 k2 s2 float32, dy 2x64", 90, 1, 2, 64),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k2 s2 float32, dy 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k2 s2 float32, dy 2x8x8", 90, 2, 8, 8),
      kernel_row<Tf32, WideData, WarpgroupMultiplier>("sm90 k2 s2 float32, dx 2x64", 90, 1, 2, 64),
      kernel_row<Tf32, TallData, WarpgroupMultiplier>("sm90 k2 s2 float32, dx 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, TallData, WarpgroupMultiplier>("sm90 k2 s2 float32, dx 2x8x8", 90, 2, 8, 8),
  };
}

constexpr auto k5_split_rows() {
  using Base = Geometry<2, 5, 2>;
  using Sums = Base::SumGradient<8, 32, 1, 2, false, true>;
  using Data = Base::DataGradient<8, 32, 1, 2, false, true>;
  return std::array{
      kernel_row<Tf32, Sums, WarpgroupMultiplier>("sm90 k5 s2 float32, dy 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Sums, WarpgroupMultiplier>("sm90 k5 s2 float32, dy 2x8x8", 90, 2, 8, 8),
      kernel_row<Tf32, Data, WarpgroupMultiplier>("sm90 k5 s2 float32, dx 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Data, WarpgroupMultiplier>("sm90 k5 s2 float32, dx 2x8x8", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> backward_rows_sm90_k2_k5_s2() {
  static constexpr auto kRows =
      join_rows(k2_rows<Tf32>(), k2_split_rows(), k2_plane_rows<__nv_bfloat16>(),
                k2_rows<__nv_bfloat16>(), k2_plane_rows<__half>(), k2_rows<__half>(),
                k5_rows<Tf32>(), k5_split_rows(), k5_rows<__nv_bfloat16>(), k5_rows<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
