// The fused kernel for any geometry, sm_80 and later: tf32.
#include "tenon/ops/cuda/fused/portable_rows.cuh"

namespace tenon::ops::cuda {

std::span<const KernelRow> kernel_rows_tf32() {
  static constexpr auto kRows = portable_rows<Tf32, false>();
  return kRows;
}

}  // namespace tenon::ops::cuda
