// Products of a warpgroup (sm_90a): 64 positions of x by 32, 48 or 64 output channels, both
// operands in shared memory in the layout of tensor_core.cuh.
#pragma once

#include <cstdint>
#include <type_traits>

#include "tenon/ops/cuda/fused/tensor_core.cuh"

namespace tenon::ops::cuda {

/// Describes an operand at `row`, in rows of 16 bytes of shared memory: `chunk_bytes` from one
/// chunk of channels to the next, `group_bytes` from eight rows to the next eight.
__device__ inline std::uint64_t descriptor(std::uint32_t row, std::uint32_t chunk_bytes,
                                           std::uint32_t group_bytes) {
  const std::uint32_t low = row | chunk_bytes >> 4 << 16;
  return static_cast<std::uint64_t>(group_bytes >> 4) << 32 | low;
}

/// Orders what this warp's registers held before against the products that follow.
__device__ inline void warpgroup_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
/// Ends a group of products.
__device__ inline void warpgroup_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most `kPending` groups of products are under way.
template <int kPending>
__device__ inline void warpgroup_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// The instruction names each register of the sums, hence a text for each number of columns.
// clang-format off
#define TENON_PRODUCT_32(type, tail) \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %18, 0; wgmma.mma_async.sync.aligned.m64n32" type " {" \
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
               "}, %16, %17, p, 1, 1" tail "; }" \
               : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]), "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]), \
                 "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]), "+f"(s[12]), "+f"(s[13]), "+f"(s[14]), "+f"(s[15]) \
               : "l"(a), "l"(b), "r"(static_cast<int>(add)))
#define TENON_PRODUCT_48(type, tail) \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %26, 0; wgmma.mma_async.sync.aligned.m64n48" type " {" \
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
               "%16, %17, %18, %19, %20, %21, %22, %23" \
               "}, %24, %25, p, 1, 1" tail "; }" \
               : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]), "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]), \
                 "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]), "+f"(s[12]), "+f"(s[13]), "+f"(s[14]), "+f"(s[15]), \
                 "+f"(s[16]), "+f"(s[17]), "+f"(s[18]), "+f"(s[19]), "+f"(s[20]), "+f"(s[21]), "+f"(s[22]), "+f"(s[23]) \
               : "l"(a), "l"(b), "r"(static_cast<int>(add)))
#define TENON_PRODUCT_64(type, tail) \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %34, 0; wgmma.mma_async.sync.aligned.m64n64" type " {" \
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" \
               "}, %32, %33, p, 1, 1" tail "; }" \
               : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]), "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]), \
                 "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]), "+f"(s[12]), "+f"(s[13]), "+f"(s[14]), "+f"(s[15]), \
                 "+f"(s[16]), "+f"(s[17]), "+f"(s[18]), "+f"(s[19]), "+f"(s[20]), "+f"(s[21]), "+f"(s[22]), "+f"(s[23]), \
                 "+f"(s[24]), "+f"(s[25]), "+f"(s[26]), "+f"(s[27]), "+f"(s[28]), "+f"(s[29]), "+f"(s[30]), "+f"(s[31]) \
               : "l"(a), "l"(b), "r"(static_cast<int>(add)))
#define TENON_PRODUCT_FROM_REGISTERS_32(type) \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %21, 0; wgmma.mma_async.sync.aligned.m64n32" type " {" \
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
               "}, {%16, %17, %18, %19}, %20, p, 1, 1; }" \
               : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]), "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]), \
                 "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]), "+f"(s[12]), "+f"(s[13]), "+f"(s[14]), "+f"(s[15]) \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)))
#define TENON_PRODUCT_FROM_REGISTERS_64(type) \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64" type " {" \
               "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31" \
               "}, {%32, %33, %34, %35}, %36, p, 1, 1; }" \
               : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]), "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]), \
                 "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]), "+f"(s[12]), "+f"(s[13]), "+f"(s[14]), "+f"(s[15]), \
                 "+f"(s[16]), "+f"(s[17]), "+f"(s[18]), "+f"(s[19]), "+f"(s[20]), "+f"(s[21]), "+f"(s[22]), "+f"(s[23]), \
                 "+f"(s[24]), "+f"(s[25]), "+f"(s[26]), "+f"(s[27]), "+f"(s[28]), "+f"(s[29]), "+f"(s[30]), "+f"(s[31]) \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)))
// clang-format on

/// sum += a·b, or without `add` sum = a·b, for 64 rows of a and kColumns rows of b, 32 bytes of
/// channels each; asynchronous.
/// Warp w of the group holds rows 16w to 16w + 15 of the sum, laid out for each 8 columns as by
/// `multiply`.
template <class Operand, int kColumns>
__device__ inline void warpgroup_multiply(float* s, std::uint64_t a, std::uint64_t b, bool add) {
  if constexpr (std::is_same_v<Operand, Tf32>) {
    if constexpr (kColumns == 32) TENON_PRODUCT_32("k8.f32.tf32.tf32", "");
    if constexpr (kColumns == 48) TENON_PRODUCT_48("k8.f32.tf32.tf32", "");
    if constexpr (kColumns == 64) TENON_PRODUCT_64("k8.f32.tf32.tf32", "");
  } else if constexpr (std::is_same_v<Operand, __nv_bfloat16>) {
    if constexpr (kColumns == 32) TENON_PRODUCT_32("k16.f32.bf16.bf16", ", 0, 0");
    if constexpr (kColumns == 48) TENON_PRODUCT_48("k16.f32.bf16.bf16", ", 0, 0");
    if constexpr (kColumns == 64) TENON_PRODUCT_64("k16.f32.bf16.bf16", ", 0, 0");
  } else {
    if constexpr (kColumns == 32) TENON_PRODUCT_32("k16.f32.f16.f16", ", 0, 0");
    if constexpr (kColumns == 48) TENON_PRODUCT_48("k16.f32.f16.f16", ", 0, 0");
    if constexpr (kColumns == 64) TENON_PRODUCT_64("k16.f32.f16.f16", ", 0, 0");
  }
}

/// The same in TF32, with a in registers, as `multiply` has it, of each warp its 16 rows. They must
/// be left alone until the product is done.
template <int kColumns>
__device__ inline void warpgroup_multiply(float* s, const std::uint32_t (&a)[4], std::uint64_t b,
                                          bool add) {
  static_assert(kColumns == 32 || kColumns == 64);
  if constexpr (kColumns == 32) TENON_PRODUCT_FROM_REGISTERS_32("k8.f32.tf32.tf32");
  if constexpr (kColumns == 64) TENON_PRODUCT_FROM_REGISTERS_64("k8.f32.tf32.tf32");
}

#undef TENON_PRODUCT_32
#undef TENON_PRODUCT_FROM_REGISTERS_32
#undef TENON_PRODUCT_FROM_REGISTERS_64
#undef TENON_PRODUCT_48
#undef TENON_PRODUCT_64

}  // namespace tenon::ops::cuda
