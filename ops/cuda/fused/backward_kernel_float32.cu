// The backward's kernels for any geometry, sm_80 and later: float32.
#include "tenon/ops/cuda/fused/portable_backward_rows.cuh"

namespace tenon::ops::cuda {

std::span<const KernelRow> backward_rows_float32() {
  static constexpr auto kRows = portable_backward_rows<Tf32, true>();
  return kRows;
}

}  // namespace tenon::ops::cuda
