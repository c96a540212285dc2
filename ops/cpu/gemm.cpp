#include "tenon/ops/cpu/gemm.h"

#include <Eigen/Core>
#include <algorithm>
#include <type_traits>

#include "tenon/ops/cpu/float_gemm.h"

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

/// Sizes below whose sum Eigen chooses its product by coefficients. Its rounding depends on the
/// address of the result, so that this must be an aligned one.
constexpr std::int64_t kSmallSizes = EIGEN_GEMM_TO_COEFFBASED_THRESHOLD;

/// result += left·right for such sizes.
template <class T, class Left, class Right>
void add_small_product(const Left& left, const Right& right, RowMajorMap<T>& result) {
  alignas(64) T values[kSmallSizes * kSmallSizes / 4];
  using Product = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Map<Product, Eigen::Aligned64> product(values, result.rows(), result.cols());
  product.noalias() = left * right;
  result += product;
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
  if (m == 0 || n == 0 || k == 0) {
    if (!accumulate) result.setZero();
  } else if constexpr (std::is_same_v<T, float>) {
    float_gemm(m, n, k, a, b, c, c_stride, accumulate);
  } else {
    if (!accumulate) result.setZero();
    visit_map(m, k, a, [&](const auto& left) {
      visit_map(k, n, b, [&](const auto& right) {
        if (m + n + k < kSmallSizes) {
          add_small_product<T>(left, right, result);
        } else {
          result.noalias() += left * right;
        }
      });
    });
  }
}

template void gemm<float>(std::int64_t, std::int64_t, std::int64_t, MatrixView<const float>,
                          MatrixView<const float>, float*, std::int64_t, bool);
template void gemm<double>(std::int64_t, std::int64_t, std::int64_t, MatrixView<const double>,
                           MatrixView<const double>, double*, std::int64_t, bool);

}  // namespace tenon::ops::cpu
