// Kernels as large as the stride, 3 x 3 and 4 x 4: every position of x becomes a patch of z.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

/// Measured on an H100, ms: 4,8,100,100,24 in bfloat16 16x8 of 32 0.037, 16x8 0.049;
/// 16,512,100,100,48 in bfloat16 16x8 of 48 0.649, 16x8 0.652.
template <class Operand>
constexpr auto three_rows() {
  using Base = Geometry<3, 3, 0>;
  using Narrow = Base::Config<8, 32, 1, 4, false>;
  using Wide = Base::Config<64, 64, 1, 4, false>;
  using Tall = Base::Config<8, 64, 1, 4, false>;
  using Middle = Base::Config<8, 48, 1, 4, false>;
  return std::array{
      kernel_row<Operand, Narrow, WarpgroupMultiplier>("sm90 k3 s3, 16x8 of 32", 90, 1, 16, 8),
      kernel_row<Operand, Wide, WarpgroupMultiplier>("sm90 k3 s3, 2x64", 90, 1, 2, 64),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k3 s3, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k3 s3, 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, Middle, WarpgroupMultiplier>("sm90 k3 s3, 16x8 of 48", 90, 1, 16, 8),
  };
}

/// 8,48,128,128,48 in tf32 2x64 0.230, where it writes 403 MB; 1,32,16,16,512 in bfloat16 16x8
/// 0.007.
template <class Operand>
constexpr auto four_rows() {
  using Base = Geometry<4, 4, 0>;
  using Narrow = Base::Config<8, 32, 1, 4, false>;
  using Wide = Base::Config<64, 64, 1, 4, false>;
  using Tall = Base::Config<8, 64, 1, 4, false>;
  return std::array{
      kernel_row<Operand, Narrow, WarpgroupMultiplier>("sm90 k4 s4, 16x8 of 32", 90, 1, 16, 8),
      kernel_row<Operand, Wide, WarpgroupMultiplier>("sm90 k4 s4, 2x64", 90, 1, 2, 64),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k4 s4, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k4 s4, 2x8x8", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> kernel_rows_sm90_k3_s3_k4_s4() {
  static constexpr auto kRows =
      join_rows(three_rows<Tf32>(), three_rows<__nv_bfloat16>(), three_rows<__half>(),
                four_rows<Tf32>(), four_rows<__nv_bfloat16>(), four_rows<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
