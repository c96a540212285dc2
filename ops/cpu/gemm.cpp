#include "tenon/ops/cpu/gemm.h"

#include <Eigen/Core>
#include <algorithm>

namespace tenon::ops::cpu {
namespace {

template <class T, int kOrder>
using ConstMap = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, kOrder>,
                            Eigen::Unaligned, Eigen::OuterStride<>>;
template <class T>
using RowMajorMap = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
                               Eigen::Unaligned, Eigen::OuterStride<>>;

/// Calls `visitor` with `view` as an Eigen map of the storage order that its strides have.
template <class T, class Visitor>
void visit_map(std::int64_t rows, std::int64_t columns, MatrixView<const T> view,
               Visitor&& visitor) {
  if (columns == 1 || view.column_stride == 1) {
    visitor(ConstMap<T, Eigen::RowMajor>(view.data, rows, columns,
                                         Eigen::OuterStride<>(view.row_stride)));
  } else {
    visitor(ConstMap<T, Eigen::ColMajor>(view.data, rows, columns,
                                         Eigen::OuterStride<>(view.column_stride)));
  }
}

}  // namespace

bool gemm_reads(std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                std::int64_t column_stride) {
  return columns == 1 || rows == 1 || row_stride == 1 || column_stride == 1;
}

template <class T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<const T> a,
          MatrixView<const T> b, T* c, std::int64_t c_stride, bool accumulate) {
  RowMajorMap<T> result(c, m, n, Eigen::OuterStride<>(c_stride));
  if (!accumulate) result.setZero();
  if (m == 0 || n == 0 || k == 0) return;
  visit_map(m, k, a, [&](const auto& left) {
    visit_map(k, n, b, [&](const auto& right) { result.noalias() += left * right; });
  });
}

template void gemm<float>(std::int64_t, std::int64_t, std::int64_t, MatrixView<const float>,
                          MatrixView<const float>, float*, std::int64_t, bool);
template void gemm<double>(std::int64_t, std::int64_t, std::int64_t, MatrixView<const double>,
                           MatrixView<const double>, double*, std::int64_t, bool);

}  // namespace tenon::ops::cpu
