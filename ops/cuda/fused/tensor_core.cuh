// The tensor cores' instructions, and what moves operands to them, in the words of the fused
// kernel.
//
// Operands lie in shared memory as rows of 16 bytes, four float32 (TF32) or eight 16-bit numbers of
// consecutive channels: [chunk of channels][row][16 bytes]. A row is a position of x or an output
// channel of the weights. Eight neighbouring rows are what both `ldmatrix` and the warpgroup
// instructions (as the "core matrix" of their layout without swizzle) read at once, without bank
// conflicts and beginning at any row: a tap of a convolution is an offset of the address.
//
// References: PTX ISA 9.0, "Warp-level matrix instructions" and "Asynchronous warpgroup-level
// matrix instructions".
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "tenon/ops/cuda/fused/kernel_config.h"

namespace tenon::ops::cuda {

/// The type of tensor-core products of float32 operands: 19 of their 32 bits count.
struct Tf32 {
  std::uint32_t bits;
};

/// Address of shared memory as the instructions take it.
__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- barriers --------------------------------------------------------------------------------

/// What a warp adds to a barrier's arrivals: its first lane arrives for all 32, behind a
/// `__syncwarp`, which orders what they did before it. racecheck does not follow that order, and
/// reports races that are none; a build with TENON_EVERY_LANE_ARRIVES is what it can be asked
/// about.
#ifdef TENON_EVERY_LANE_ARRIVES
inline constexpr int kWarpArrivals = 32;
#else
inline constexpr int kWarpArrivals = 1;
#endif

/// A barrier in shared memory on which some threads arrive and others wait for a phase to end; the
/// phases' parities alternate, beginning with 0.
class PipelineBarrier {
 public:
  __device__ void init(int arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(address()), "r"(arrivals));
  }
  __device__ void arrive() {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(address())
                 : "memory");
  }
  /// Arrives for a whole warp, all of whose lanes call it: `kWarpArrivals` arrivals. What lanes did
  /// before counts as done only behind a `__syncwarp`.
  __device__ void arrive_as_warp() {
    if (kWarpArrivals > 1 || threadIdx.x % 32 == 0) arrive();
  }
  /// Arrives, and keeps the phase from ending before `bytes` of bulk copies have.
  __device__ void arrive_and_expect(int bytes) {
    asm volatile(
        "{ .reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1; }" ::"r"(
            address()),
        "r"(bytes)
        : "memory");
  }
  /// Returns once the phase of `parity` has ended.
  __device__ void wait(std::uint32_t parity) {
    const std::uint32_t at = address();
    std::uint32_t done = 0;
    do {
#if __CUDA_ARCH__ >= 900
      asm volatile(
          "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2;"
          " selp.u32 %0, 1, 0, p; }"
          : "=r"(done)
          : "r"(at), "r"(parity)
          : "memory");
#else
      asm volatile(
          "{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2;"
          " selp.u32 %0, 1, 0, p; }"
          : "=r"(done)
          : "r"(at), "r"(parity)
          : "memory");
#endif
    } while (done == 0);
  }

  __device__ std::uint32_t address() const { return shared_address(this); }

 private:
  std::uint64_t state_;
};

/// A slot of a ring, and the parity of its current use.
struct RingPosition {
  int slot = 0;
  std::uint32_t parity = 0;

  __device__ void advance(int slots) {
    if (++slot == slots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

/// The named barrier `id` of a block: waits for `threads` that arrive or wait.
__device__ inline void named_barrier_wait(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Lets the kernel behind this one be set up, if it waits for this one (core/cuda/launch.cuh), as
/// soon as all blocks of this one have come here, instead of when the last one ends.
__device__ inline void let_next_kernel_begin() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

// ---- copies ----------------------------------------------------------------------------------

/// Starts a copy of 16 bytes from global to shared memory, past the registers.
__device__ inline void copy_async(std::uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}
/// The same, or zeros where `inside` is false.
__device__ inline void copy_async(std::uint32_t shared, const void* global, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(inside ? 16 : 0)
               : "memory");
}
/// Starts a copy of 4, 8 or 16 bytes, one of a group that ends with `copy_async_commit`.
template <int kBytes>
__device__ inline void copy_async_bytes(void* shared, const void* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(shared)),
               "l"(global), "n"(kBytes)
               : "memory");
}
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `kPending` of this thread's groups of copies are under way.
template <int kPending>
__device__ inline void copy_async_wait_for() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
/// Arrives at `barrier`, as one of those that it counts, once all copies that this thread started
/// are done.
__device__ inline void copy_async_arrive(PipelineBarrier& barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier.address())
               : "memory");
}
/// Waits for all copies that this thread started.
__device__ inline void copy_async_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// Starts a copy of `bytes`, a multiple of 16, that ends with a phase of `barrier` (sm_90).
__device__ inline void copy_bulk(void* shared, const void* global, int bytes,
                                 PipelineBarrier& barrier) {
  barrier.arrive_and_expect(bytes);
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(barrier.address())
      : "memory");
}

/// Starts a copy of the box of `map` that begins at these coordinates, innermost first; its bytes,
/// which `barrier` was told to expect, end with a phase of it. Zeros stand for what lies outside
/// (sm_90).
__device__ inline void copy_box(void* shared, const TensorMap& map, int c0, int c1, int c2, int c3,
                                PipelineBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(barrier.address())
      : "memory");
}

/// A box of rows (dimensions column, row, phase, image, chunk), whose `bytes` are announced.
__device__ inline void copy_rows(void* shared, const TensorMap& map, int column, int row, int image,
                                 int chunk, int bytes, PipelineBarrier& barrier, int phase = 0) {
  barrier.arrive_and_expect(bytes);
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4, %5, %6}], [%7];" ::"r"(shared_address(shared)),
      "l"(&map), "r"(column), "r"(row), "r"(phase), "r"(image), "r"(chunk), "r"(barrier.address())
      : "memory");
}

/// Makes this thread's writes to shared memory visible to the warpgroup instructions and to bulk
/// copies, and ends its reads before such copies.
__device__ inline void fence_async_proxy() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/// Four 8 x 16-byte matrices, of which lane 8i + r names row r of matrix i.
__device__ inline void load_matrices(std::uint32_t (&fragment)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
               : "r"(address)
               : "memory");
}
/// Two of them; lanes 0 to 15 count.
__device__ inline void load_matrices(std::uint32_t (&fragment)[2], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(fragment[0]), "=r"(fragment[1])
               : "r"(address)
               : "memory");
}

// ---- numbers ---------------------------------------------------------------------------------

/// float32 rounded to TF32, to nearest; the hardware itself would cut the last bits off.
__device__ inline std::uint32_t round_to_tf32(float value) {
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

/// Splits float32 numbers, which become their heads, rounded to TF32; what rounding took off them
/// are the tails. By three instructions, where `cvt.rna` alone takes four: it knows infinities and
/// NaN. Here these have tails that are no numbers (and some NaN the head -0), which products show
/// as well. Tails keep more digits than the tensor cores look at: what those cut off is less than
/// the last digit of the number.
template <int kCount>
__device__ inline void split_words(std::uint32_t (&words)[kCount], std::uint32_t (&tails)[kCount]) {
  constexpr std::uint32_t kHalf = 0x1000;  // of the last digit of TF32
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float value = __uint_as_float(words[i]);
    words[i] = (words[i] + kHalf) & ~(2 * kHalf - 1);
    tails[i] = __float_as_uint(value - __uint_as_float(words[i]));
  }
}

/// How a 16-byte row is made of numbers in memory: its element type there, and how many fit.
template <class Operand>
struct OperandTraits {
  using Element = Operand;  // __half or __nv_bfloat16
  static constexpr int kRow = 8;
};
template <>
struct OperandTraits<Tf32> {
  using Element = float;
  static constexpr int kRow = 4;
};

/// The bits of two 16-bit numbers, the first in the low half.
__device__ inline std::uint32_t join(__half low, __half high) {
  return static_cast<std::uint32_t>(__half_as_ushort(low)) |
         static_cast<std::uint32_t>(__half_as_ushort(high)) << 16;
}
__device__ inline std::uint32_t join(__nv_bfloat16 low, __nv_bfloat16 high) {
  return static_cast<std::uint32_t>(__bfloat16_as_ushort(low)) |
         static_cast<std::uint32_t>(__bfloat16_as_ushort(high)) << 16;
}

/// The first or the second of the two numbers in a word, exactly.
template <class Element>
__device__ float number_of(std::uint32_t word, bool second) {
  if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
    // Its bits are the upper half of a float's.
    return __uint_as_float(second ? word & 0xffff0000U : word << 16);
  } else {
    const __half2_raw raw{static_cast<unsigned short>(word),
                          static_cast<unsigned short>(word >> 16)};
    const __half2 pair(raw);
    return __half2float(second ? pair.y : pair.x);
  }
}

/// Two numbers rounded to nearest, the first in the low half.
template <class Element>
__device__ std::uint32_t round_pair(float low, float high);
template <>
__device__ inline std::uint32_t round_pair<__half>(float low, float high) {
  std::uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
template <>
__device__ inline std::uint32_t round_pair<__nv_bfloat16>(float low, float high) {
  std::uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

// ---- products of a warp (sm_80) --------------------------------------------------------------

/// sum += a·b: a 16 rows x 32 bytes, b 8 rows x 32 bytes, sum 16 x 8. Lane l holds of `sum` rows
/// l/4 and l/4 + 8, columns 2(l%4) and 2(l%4) + 1.
template <class Operand>
__device__ void multiply(float* sum, const std::uint32_t (&a)[4], std::uint32_t b0,
                         std::uint32_t b1);
#define TENON_WARP_MULTIPLY(Operand, shape)                                         \
  template <>                                                                       \
  __device__ inline void multiply<Operand>(float* sum, const std::uint32_t(&a)[4],  \
                                           std::uint32_t b0, std::uint32_t b1) {    \
    asm volatile("mma.sync.aligned." shape                                          \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));   \
  }
TENON_WARP_MULTIPLY(Tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
TENON_WARP_MULTIPLY(__nv_bfloat16, "m16n8k16.row.col.f32.bf16.bf16.f32")
TENON_WARP_MULTIPLY(__half, "m16n8k16.row.col.f32.f16.f16.f32")
#undef TENON_WARP_MULTIPLY

}  // namespace tenon::ops::cuda
