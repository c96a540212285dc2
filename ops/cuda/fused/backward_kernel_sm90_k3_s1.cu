// The backward of kernel 3 x 3, stride 1, padding 1.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

using Base = Geometry<1, 3, 1>;

/// From planes of x, at 16 bits.
template <class Operand>
constexpr auto plane_rows() {
  using WideSums = Base::PlaneSumGradient<64, 64, 2, 2, true>;
  return std::array{kernel_row<Operand, WideSums, WarpgroupMultiplier>(
      "sm90 k3 s1, dy 4x64 of planes", 90, 1, 4, 64)};
}

template <class Operand>
constexpr auto rows_of() {
  using WideSums = Base::SumGradient<64, 64, 2, 2, true>;
  using TallSums = Base::SumGradient<8, 64, 2, 2, false>;
  using WideData = Base::DataGradient<64, 64, 2, 2, true>;
  using TallData = Base::DataGradient<8, 64, 2, 2, false>;
  return std::array{
      kernel_row<Operand, WideSums, WarpgroupMultiplier>("sm90 k3 s1, dy 4x64", 90, 1, 4, 64),
      kernel_row<Operand, TallSums, WarpgroupMultiplier>("sm90 k3 s1, dy 32x8", 90, 1, 32, 8),
      kernel_row<Operand, TallSums, WarpgroupMultiplier>("sm90 k3 s1, dy 4x8x8", 90, 4, 8, 8),
      kernel_row<Operand, WideData, WarpgroupMultiplier>("sm90 k3 s1, dx 4x64", 90, 1, 4, 64),
      kernel_row<Operand, TallData, WarpgroupMultiplier>("sm90 k3 s1, dx 32x8", 90, 1, 32, 8),
      kernel_row<Operand, TallData, WarpgroupMultiplier>("sm90 k3 s1, dx 4x8x8", 90, 4, 8, 8),
  };
}

/// At float32 accuracy: weights of heads and tails are too many to stay in shared memory.
constexpr auto split_rows() {
  using WideSums = Base::SumGradient<64, 64, 2, 2, false, true>;
  using TallSums = Base::SumGradient<8, 64, 2, 2, false, true>;
  using WideData = Base::DataGradient<64, 64, 2, 2, false, true>;
  using TallData = Base::DataGradient<8, 64, 2, 2, false, true>;
  return std::array{
      kernel_row<Tf32, WideSums, WarpgroupMultiplier>("sm90 k3 s1 float32, dy 4x64", 90, 1, 4, 64),
      kernel_row<Tf32, TallSums, WarpgroupMultiplier>("sm90 k3 s1 float32, dy 32x8", 90, 1, 32, 8),
      kernel_row<Tf32, TallSums, WarpgroupMultiplier>("sm90 k3 s1 float32, dy 4x8x8", 90, 4, 8, 8),
      kernel_row<Tf32, WideData, WarpgroupMultiplier>("sm90 k3 s1 float32, dx 4x64", 90, 1, 4, 64),
      kernel_row<Tf32, TallData, WarpgroupMultiplier>("sm90 k3 s1 float32, dx 32x8", 90, 1, 32, 8),
      kernel_row<Tf32, TallData, WarpgroupMultiplier>("sm90 k3 s1 float32, dx 4x8x8", 90, 4, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> backward_rows_sm90_k3_s1() {
  static constexpr auto kRows =
      join_rows(rows_of<Tf32>(), split_rows(), plane_rows<__nv_bfloat16>(),
                rows_of<__nv_bfloat16>(), plane_rows<__half>(), rows_of<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
