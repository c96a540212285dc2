#include "tenon/ops/cpu/matmul.h"

#include <algorithm>

#include "tenon/core/half.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/gemm.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {
namespace {

constexpr std::int64_t kTileRows = 128;
constexpr std::int64_t kTileColumns = 512;
constexpr std::int64_t kTileDepth = 256;  // of operands that are copied for the product

/// Multiplications that are worth handing out.
constexpr std::int64_t kLeastWork = 1 << 16;

/// Copies a [rows, columns] matrix into row-major order, converting.
template <class To, class From>
void pack(std::int64_t rows, std::int64_t columns, MatrixView<const From> source, To* target) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const From* row = source.data + i * source.row_stride;
    for (std::int64_t j = 0; j < columns; ++j) {
      target[i * columns + j] = static_cast<To>(row[j * source.column_stride]);
    }
  }
}

template <class T>
MatrixView<const T> offset(MatrixView<const T> view, std::int64_t row, std::int64_t column) {
  return {view.data + row * view.row_stride + column * view.column_stride, view.row_stride,
          view.column_stride};
}

/// One [m, n] tile of the result, over the whole depth k.
template <class T>
void multiply_tile(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView<const T> a,
                   MatrixView<const T> b, const T* bias, T* y, std::int64_t y_stride) {
  using Compute = compute_type<T>;
  constexpr bool kDirect = std::is_same_v<T, Compute>;
  const bool reads_a = kDirect && gemm_reads(m, k, a.row_stride, a.column_stride);
  const bool reads_b = kDirect && gemm_reads(k, n, b.row_stride, b.column_stride);
  const std::int64_t depth = reads_a && reads_b ? k : std::min(k, kTileDepth);
  const Scratch<Compute> a_copy(reads_a ? 0 : m * depth);
  const Scratch<Compute> b_copy(reads_b ? 0 : depth * n);
  const Scratch<Compute> y_copy(kDirect ? 0 : m * n);
  Compute* result = y_copy.data();
  std::int64_t result_stride = n;
  if constexpr (kDirect) {
    result = y;
    result_stride = y_stride;
  }
  for (std::int64_t first = 0; first == 0 || first < k; first += depth) {
    const std::int64_t count = std::min(depth, k - first);
    MatrixView<const Compute> left{a_copy.data(), count, 1};
    MatrixView<const Compute> right{b_copy.data(), n, 1};
    const MatrixView<const T> a_part = offset(a, 0, first);
    const MatrixView<const T> b_part = offset(b, first, 0);
    if constexpr (kDirect) {
      if (reads_a) left = a_part;
      if (reads_b) right = b_part;
    }
    if (!reads_a) pack(m, count, a_part, a_copy.data());
    if (!reads_b) pack(count, n, b_part, b_copy.data());
    gemm<Compute>(m, n, count, left, right, result, result_stride, first > 0);
    if (count == 0) break;
  }
  if constexpr (kDirect) {
    if (bias == nullptr) return;
  }
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      const Compute add = bias == nullptr ? Compute{} : static_cast<Compute>(bias[j]);
      y[i * y_stride + j] = static_cast<T>(result[i * result_stride + j] + add);
    }
  }
}

/// Joins the rows of all matrices of a batch into one matrix, where the strides allow it and b is
/// the same for all: one large product instead of many small ones.
bool joins_rows(const Tensor& a, const Tensor& b) {
  std::int64_t step = a.size(-2) * a.strides()[a.dim() - 2];
  for (std::size_t d = a.dim() - 2; d-- > 0;) {
    if (a.shape()[d] != 1 && (a.strides()[d] != step || b.strides()[d] != 0)) return false;
    step *= a.shape()[d];
  }
  return true;
}

/// Offset in elements of matrix number `index` of a batch.
std::int64_t batch_offset(const Tensor& operand, std::int64_t index) {
  std::int64_t offset = 0;
  for (std::size_t d = operand.dim() - 2; d-- > 0;) {
    offset += index % operand.shape()[d] * operand.strides()[d];
    index /= operand.shape()[d];
  }
  return offset;
}

/// How products of [m, k] and [k, n] are cut into pieces for threads, by their sizes alone.
struct Cut {
  std::int64_t row_tiles, columns, column_tiles;  // of the result; columns of a tile
  std::int64_t depth, parts;                      // of the sums, where tiles are few

  Cut(std::int64_t batch, std::int64_t m, std::int64_t n, std::int64_t k)
      : row_tiles((m + kTileRows - 1) / kTileRows), columns(kTileColumns), depth(k), parts(1) {
    const std::int64_t rows = batch * row_tiles;
    if (rows < kPieces && m * n * k > kPieces * kLeastWork) {
      // Whole vectors, and so many that a's rows are not packed too often.
      const std::int64_t share = (n * rows + kPieces - 1) / kPieces;
      columns = std::clamp<std::int64_t>((share + 15) / 16 * 16, kLeastColumns, kTileColumns);
    }
    column_tiles = (n + columns - 1) / columns;
    if (rows * column_tiles == 1 && m * n * k > kPieces * kLeastWork) {
      depth = std::max(kLeastDepth, ((k + kPieces - 1) / kPieces + 15) / 16 * 16);
      parts = std::max<std::int64_t>(1, (k + depth - 1) / depth);
    }
  }

 private:
  static constexpr std::int64_t kPieces = 8;
  static constexpr std::int64_t kLeastColumns = 192;
  static constexpr std::int64_t kLeastDepth = 128;
};

/// A product of one tile, in parts of its sums that are added at the end.
template <class T>
void multiply_parts(const Cut& cut, std::int64_t m, std::int64_t n, std::int64_t k,
                    MatrixView<const T> a, MatrixView<const T> b, const T* bias, T* y) {
  const Scratch<T> sums(cut.parts * m * n);
  parallel_for_shares(0, cut.parts, 1, [&](std::int64_t part, std::int64_t) {
    const std::int64_t first = part * cut.depth;
    multiply_tile<T>(m, n, std::min(cut.depth, k - first), offset(a, 0, first), offset(b, first, 0),
                     part == 0 ? bias : nullptr, sums.data() + part * m * n, n);
  });
  std::copy_n(sums.data(), m * n, y);
  for (std::int64_t part = 1; part < cut.parts; ++part) {
    const T* terms = sums.data() + part * m * n;
    for (std::int64_t i = 0; i < m * n; ++i) y[i] += terms[i];
  }
}

/// Matrix number `index` of a batch at `data`.
template <class T>
MatrixView<const T> matrix(const Tensor& operand, const T* data, std::int64_t index) {
  return {data + batch_offset(operand, index), operand.strides()[operand.dim() - 2],
          operand.strides()[operand.dim() - 1]};
}

template <class T>
void matmul_typed(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& y) {
  const bool joined = joins_rows(a, b);
  const std::int64_t n = y.size(-1);
  const std::int64_t k = a.size(-1);
  const std::int64_t m = joined ? y.numel() / n : y.size(-2);
  const std::int64_t batch = y.numel() / (m * n);
  const T* const a_data = a.data<T>();
  const T* const b_data = b.data<T>();
  const T* bias_data = bias.defined() ? bias.data<T>() : nullptr;
  const Cut cut(batch, m, n, k);
  if constexpr (std::is_same_v<T, compute_type<T>>) {
    if (cut.parts > 1) {
      multiply_parts<T>(cut, m, n, k, matrix(a, a_data, 0), matrix(b, b_data, 0), bias_data,
                        y.data<T>());
      return;
    }
  }
  const std::int64_t tiles = cut.row_tiles * cut.column_tiles;
  // Small products share a chunk, so that handing it out does not cost more than computing it.
  const std::int64_t work = std::min(m, kTileRows) * std::min(n, cut.columns) * k;
  const std::int64_t grain =
      std::max<std::int64_t>(1, kLeastWork / std::max<std::int64_t>(work, 1));
  parallel_for_shares(0, batch * tiles, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t index = item / tiles;
      const std::int64_t row = item % tiles / cut.column_tiles * kTileRows;
      const std::int64_t column = item % cut.column_tiles * cut.columns;
      multiply_tile<T>(std::min(kTileRows, m - row), std::min(cut.columns, n - column), k,
                       offset(matrix(a, a_data, index), row, 0),
                       offset(matrix(b, b_data, index), 0, column),
                       bias_data == nullptr ? nullptr : bias_data + column,
                       y.data<T>() + (index * m + row) * n + column, n);
    }
  });
}

}  // namespace

void matmul(const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& y) {
  if (y.numel() == 0) return;
  visit_floating(y.dtype(), "matmul", [&]<class T>() { matmul_typed<T>(a, b, bias, y); });
}

}  // namespace tenon::ops::cpu
