// The backward of kernel 3 x 3, stride 2, padding 1: the mission's geometry.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

using Base = Geometry<2, 3, 1>;

/// From planes of x, at 16 bits.
template <class Operand>
constexpr auto plane_rows() {
  using WideSums = Base::PlaneSumGradient<64, 64, 1, 4, true>;
  return std::array{kernel_row<Operand, WideSums, WarpgroupMultiplier>(
      "sm90 k3 s2, dy 2x64 of planes", 90, 1, 2, 64, true)};
}

template <class Operand>
constexpr auto rows_of() {
  using WideSums = Base::SumGradient<64, 64, 1, 4, true>;
  using TallSums = Base::SumGradient<8, 64, 1, 2, false>;
  using WideData = Base::DataGradient<64, 64, 1, 2, true>;
  using WiderData = Base::DataGradient<64, 64, 2, 2, false>;
  using TallData = Base::DataGradient<8, 64, 1, 2, false>;
  return std::array{
      kernel_row<Operand, WideSums, WarpgroupMultiplier>("sm90 k3 s2, dy 2x64", 90, 1, 2, 64, true),
      kernel_row<Operand, TallSums, WarpgroupMultiplier>("sm90 k3 s2, dy 16x8", 90, 1, 16, 8),
      kernel_row<Operand, TallSums, WarpgroupMultiplier>("sm90 k3 s2, dy 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, WiderData, WarpgroupMultiplier>("sm90 k3 s2, dx 4x64", 90, 1, 4, 64),
      kernel_row<Operand, WideData, WarpgroupMultiplier>("sm90 k3 s2, dx 2x64 resident", 90, 1, 2,
                                                         64),
      kernel_row<Operand, TallData, WarpgroupMultiplier>("sm90 k3 s2, dx 16x8", 90, 1, 16, 8),
      kernel_row<Operand, TallData, WarpgroupMultiplier>("sm90 k3 s2, dx 2x8x8", 90, 2, 8, 8),
  };
}

/// At float32 accuracy totals lie beside the sums: 32 channels of four phases fit the registers.
constexpr auto split_rows() {
  using WideSums = Base::SumGradient<64, 32, 1, 2, true, true>;
  using TallSums = Base::SumGradient<8, 32, 1, 2, false, true>;
  using WideData = Base::DataGradient<64, 64, 1, 2, false, true>;
  using WiderData = Base::DataGradient<64, 64, 2, 2, false, true>;
  using TallData = Base::DataGradient<8, 64, 1, 2, false, true>;
  return std::array{
      kernel_row<Tf32, WideSums, WarpgroupMultiplier>("sm90 k3 s2 float32, dy 2x64", 90, 1, 2, 64),
      kernel_row<Tf32, TallSums, WarpgroupMultiplier>("sm90 k3 s2 float32, dy 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, TallSums, WarpgroupMultiplier>("sm90 k3 s2 float32, dy 2x8x8", 90, 2, 8, 8),
      kernel_row<Tf32, WiderData, WarpgroupMultiplier>("sm90 k3 s2 float32, dx 4x64", 90, 1, 4, 64),
      kernel_row<Tf32, WideData, WarpgroupMultiplier>("sm90 k3 s2 float32, dx 2x64", 90, 1, 2, 64),
      kernel_row<Tf32, TallData, WarpgroupMultiplier>("sm90 k3 s2 float32, dx 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, TallData, WarpgroupMultiplier>("sm90 k3 s2 float32, dx 2x8x8", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> backward_rows_sm90_k3_s2() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), split_rows(), plane_rows<__nv_bfloat16>(),
                rows_of<__nv_bfloat16>(), plane_rows<__half>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
