// Stride 2 with kernel 2 x 2 (U-Net), and 5 x 5 with padding 2.
#include "tenon/ops/cuda/fused/warpgroup_rows.cuh"

namespace tenon::ops::cuda {
namespace {

/// Measured on an H100, ms in tf32 and bfloat16: unet 2x64 resident 0.042 and 0.027, 2x64 0.041 and
/// 0.027; 32,256,33,33,96 in tf32 16x8 0.137, flat of 48 0.096.
template <class Operand>
constexpr auto k2_rows() {
  using Base = Geometry<2, 2, 0>;
  using Wide = Base::Config<64, 64, 1, 4, false>;
  using Tall = Base::Config<8, 64, 1, 4, false>;
  using Resident = Base::Config<64, 64, 1, 4, true>;
  using Flat = Base::FlatConfig<64, 4, false>;
  using FlatMiddle = Base::FlatConfig<48, 4, false>;
  return std::array{
      kernel_row<Operand, Resident, WarpgroupMultiplier>("sm90 k2 s2, 2x64 resident", 90, 1, 2, 64,
                                                         true),
      kernel_row<Operand, Wide, WarpgroupMultiplier>("sm90 k2 s2, 2x64", 90, 1, 2, 64),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k2 s2, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k2 s2, 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, Flat, WarpgroupMultiplier>("sm90 k2 s2, flat", 90, 1, 1, 128),
      kernel_row<Operand, FlatMiddle, WarpgroupMultiplier>("sm90 k2 s2, flat of 48", 90, 1, 1, 128),
  };
}

/// k5: 0.059 and 0.037; 8,192,28,28,192 in bfloat16 16x8 0.051, 16x8 of 48 0.036.
template <class Operand>
constexpr auto k5_rows() {
  using Tall = Geometry<2, 5, 2>::Config<8, 64, 1, 2, false>;
  using Middle = Geometry<2, 5, 2>::Config<8, 48, 1, 2, false>;
  return std::array{
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k5 s2, 16x8", 90, 1, 16, 8),
      kernel_row<Operand, Tall, WarpgroupMultiplier>("sm90 k5 s2, 2x8x8", 90, 2, 8, 8),
      kernel_row<Operand, Middle, WarpgroupMultiplier>("sm90 k5 s2, 16x8 of 48", 90, 1, 16, 8),
      kernel_row<Operand, Middle, WarpgroupMultiplier>("sm90 k5 s2, 2x8x8 of 48", 90, 2, 8, 8),
  };
}

/// Three products each, and totals beside the sums: 32 channels fit the registers.
constexpr auto k2_split_rows() {
  using Wide = Geometry<2, 2, 0>::Config<64, 32, 1, 2, false, true>;
  using Tall = Geometry<2, 2, 0>::Config<8, 32, 1, 2, false, true>;
  return std::array{
      kernel_row<Tf32, Wide, WarpgroupMultiplier>("sm90 k2 s2 float32, 2x64", 90, 1, 2, 64),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k2 s2 float32, 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k2 s2 float32, 2x8x8", 90, 2, 8, 8),
  };
}
constexpr auto k5_split_rows() {
  using Tall = Geometry<2, 5, 2>::Config<8, 32, 1, 2, false, true>;
  return std::array{
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k5 s2 float32, 16x8", 90, 1, 16, 8),
      kernel_row<Tf32, Tall, WarpgroupMultiplier>("sm90 k5 s2 float32, 2x8x8", 90, 2, 8, 8),
  };
}

}  // namespace

std::span<const KernelRow> kernel_rows_sm90_k2_k5_s2() {
  static constexpr auto kRows =
      join_rows(k2_rows<Tf32>(), k2_split_rows(), k2_rows<__nv_bfloat16>(), k2_rows<__half>(),
                k5_rows<Tf32>(), k5_split_rows(), k5_rows<__nv_bfloat16>(), k5_rows<__half>());
  return kRows;
}

}  // namespace tenon::ops::cuda
