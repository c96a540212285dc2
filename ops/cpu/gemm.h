// The one matrix product that every CPU kernel calls.
#pragma once

#include <cstdint>

namespace tenon::ops::cpu {

/// A matrix in memory: element (i, j) is data[i·row_stride + j·column_stride].
template <class T>
struct MatrixView {
  T* data;
  std::int64_t row_stride;
  std::int64_t column_stride;
};

/// True when `gemm` can read a [rows, columns] matrix with these strides: neighbours along one
/// dimension lie side by side.
bool gemm_reads(std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                std::int64_t column_stride);

/// c = a·b, or c += a·b with `accumulate`, on the calling thread: a [m, k], b [k, n], and c [m, n]
/// in row-major order with `c_stride` between rows. `gemm_reads` must hold for a and b. The
/// rounding depends on sizes and strides, not on where the matrices lie. T is float or double.
template <class T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<const T> a,
          MatrixView<const T> b, T* c, std::int64_t c_stride, bool accumulate);

}  // namespace tenon::ops::cpu
