// The fused kernel for any geometry, sm_80 and later: float16.
#include "tenon/ops/cuda/fused/portable_rows.cuh"

namespace tenon::ops::cuda {

std::span<const KernelRow> kernel_rows_float16() {
  static constexpr auto kRows = portable_rows<__half, false>();
  return kRows;
}

}  // namespace tenon::ops::cuda
