#include "tenon/ops/cuda/fused/portable_backward_rows.cuh"

namespace tenon::ops::cuda {

std::span<const KernelRow> backward_rows_bfloat16() {
  static constexpr auto kRows = portable_backward_rows<__nv_bfloat16>();
  return kRows;
}

}  // namespace tenon::ops::cuda
