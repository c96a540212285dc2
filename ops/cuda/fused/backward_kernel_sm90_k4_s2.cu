// The backward of kernel 4 x 4, stride 2, padding 1: DCGAN's geometry.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

using Base = Geometry<2, 4, 1>;

template <class Operand>
constexpr auto rows_of() {
  using Sums = Base::SumGradient<8, 64, 1, 2, false>;
  using Data = Base::DataGradient<8, 64, 1, 2, false>;
  using ResidentData = Base::DataGradient<8, 64, 1, 2, true>;
  using WideData = Base::DataGradient<64, 64, 1, 2, false>;
  return std::array{
      kernel_row<Operand, Sums, WarpgroupMultiplier>("sm90 k4 s2, dy 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Sums, WarpgroupMultiplier>("sm90 k4 s2, dy 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, ResidentData, WarpgroupMultiplier>("sm90 k4 s2, dx 16x8 resident", 90, 1,
                                                             16, 8),
      kernel_row<Operand, ResidentData, WarpgroupMultiplier>("sm90 k4 s2, dx 2x8x8 resident", 90, 2,
                                                             8, 8),
      kernel_row<Operand, Data, WarpgroupMultiplier>("sm90 k4 s2, dx 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Data, WarpgroupMultiplier>("sm90 k4 s2, dx 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, WideData, WarpgroupMultiplier>("sm90 k4 s2, dx 2x64", 90, 1, 2, 64),
  };
}

/// At float32 accuracy totals lie beside the sums: 32 channels of four phases fit the registers.
constexpr auto split_rows() {
  using Sums = Base::SumGradient<8, 32, 1, 2, false, true>;
  using Data = Base::DataGradient<8, 64, 1, 2, false, true>;
  using WideData = Base::DataGradient<64, 64, 1, 2, false, true>;
  return std::array{
      kernel_row<Tf32, Sums, WarpgroupMultiplier>("sm90 k4 s2 float32, dy 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Sums, WarpgroupMultiplier>("sm90 k4 s2 float32, dy 2x8x8", 90, 2, 8, 8),
      kernel_row<Tf32, Data, WarpgroupMultiplier>("sm90 k4 s2 float32, dx 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Data, WarpgroupMultiplier>("sm90 k4 s2 float32, dx 2x8x8", 90, 2, 8, 8),
      kernel_row<Tf32, WideData, WarpgroupMultiplier>("sm90 k4 s2 float32, dx 2x64", 90, 1, 2, 64),
  };
}

}  // namespace

std::span<const KernelRow> backward_rows_sm90_k4_s2() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), split_rows(), rows_of<__nv_bfloat16>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
