// The fused kernel for any geometry, sm_80 and later: float32.
#include "tenon/ops/cuda/fused/portable_rows.cuh"

namespace tenon::ops::cuda {

std::span<const KernelRow> kernel_rows_float32() {
  static constexpr auto kRows = portable_rows<Tf32, true>();
  return kRows;
}

}  // namespace tenon::ops::cuda
