#include "tenon/ops/cuda/fused/portable_backward_rows.cuh"

namespace tenon::ops::cuda {

std::span<const KernelRow> backward_rows_float16() {
  static constexpr auto kRows = portable_backward_rows<__half>();
  return kRows;
}

}  // namespace tenon::ops::cuda
