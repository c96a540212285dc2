#include "tenon/ops/cuda/fused/portable_backward_rows.cuh"

namespace tenon::ops::cuda {

std::span<const KernelRow> backward_rows_tf32() {
  static constexpr auto kRows = portable_backward_rows<Tf32>();
  return kRows;
}

}  // namespace tenon::ops::cuda
