// Products of small matrices and weighted sums of rows: a part of kernel_source.h, which see.
#pragma once

#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/cpu/simd/vector_source.h"

namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE {
namespace {

/// All sums stay in registers, beside one row of b and an element of a. What `sums` holds is added
/// at the end: parts of a long sum round less than one chain of additions.
template <int kRows, int kVectors>
void multiply_rows(const MatrixProduct& product) {
  Vector sums[kRows][kVectors] = {};
  const float* a[kRows];
  const float* b[kVectors];
  for (int i = 0; i < kRows; ++i) a[i] = product.a + i * product.a_row;
  for (int v = 0; v < kVectors; ++v) b[v] = product.b + v * product.b_vector;
  const std::int64_t a_depth = product.a_depth;
  const std::int64_t b_depth = product.b_depth;
  const float* ahead = product.ahead;
  const std::int64_t ahead_step = product.ahead_step;
  for (std::int64_t k = 0; k < product.depth; ++k) {
    Vector values[kVectors];
    for (int v = 0; v < kVectors; ++v) values[v] = load(b[v] + k * b_depth);
    __builtin_prefetch(ahead + k * ahead_step, 0, 2);
    for (int i = 0; i < kRows; ++i) {
      const Vector value = splat(a[i][k * a_depth]);
      for (int v = 0; v < kVectors; ++v) sums[i][v] = multiply_add(value, values[v], sums[i][v]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    float* target = product.sums + i * product.sums_row;
    for (int v = 0; v < kVectors; ++v, target += kLanes) {
      store(target, product.adds ? sums[i][v] + load(target) : sums[i][v]);
    }
  }
}

template <int kVectors, int kRows>
void multiply_at_most(const MatrixProduct& product) {
  if constexpr (kRows > 1) {
    if (product.rows < kRows) {
      multiply_at_most<kVectors, kRows - 1>(product);
      return;
    }
  }
  multiply_rows<kRows, kVectors>(product);
}

void multiply_matrix(const MatrixProduct& product) {
  switch (product.vectors) {
    case 1:
      return multiply_at_most<1, TENON_SIMD_CHANNELS>(product);
    case 2:
      return multiply_at_most<2, TENON_SIMD_CHANNELS>(product);
    default:
      return multiply_at_most<3, TENON_SIMD_CHANNELS>(product);
  }
}

template <int kCount, bool kAdds>
void add_rows_of(const WeightedRows& weighted_rows) {
  const WeightedRows rows = weighted_rows;  // a copy, which what is written cannot be
  Vector weights[kCount];
  for (int r = 0; r < kCount; ++r) weights[r] = splat(rows.weights[r]);
  for (std::int64_t n = 0; n < rows.repeats; ++n) {
    const float* row[kCount];
    for (int r = 0; r < kCount; ++r) row[r] = rows.rows[r] + n * rows.row_step;
    float* target = rows.target + n * rows.target_step;
    for (std::int64_t i = 0; i < rows.width; i += kLanes, target += rows.target_vector) {
      Vector sum = weights[0] * load(row[0] + i);
      for (int r = 1; r < kCount; ++r) sum = multiply_add(weights[r], load(row[r] + i), sum);
      store(target, kAdds ? load(target) + sum : sum);
    }
  }
}

template <int kCount>
void add_rows_to(const WeightedRows& rows) {
  if (rows.adds) {
    add_rows_of<kCount, true>(rows);
  } else {
    add_rows_of<kCount, false>(rows);
  }
}

void add_rows(const WeightedRows& rows) {
  switch (rows.count) {
    case 1:
      return add_rows_to<1>(rows);
    case 2:
      return add_rows_to<2>(rows);
    case 3:
      return add_rows_to<3>(rows);
    default:
      return add_rows_to<4>(rows);
  }
}

}  // namespace
}  // namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE
