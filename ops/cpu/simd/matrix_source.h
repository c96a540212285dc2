// Products of small matrices and signed sums of rows: a part of kernel_source.h, which see.
#pragma once

#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/cpu/simd/vector_source.h"

namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE {
namespace {

/// All sums stay in registers, beside one row of b and an element of a. What they begin with is
/// added at the end: parts of a long sum round less than one chain of additions.
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
    const float* first = product.adds ? target : product.start;
    for (int v = 0; v < kVectors; ++v, target += kLanes) {
      store(target, first == nullptr ? sums[i][v] : sums[i][v] + load(first + v * kLanes));
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
void add_rows_of(const SignedRows& signed_rows) {
  const SignedRows rows = signed_rows;  // a copy, which what is written cannot be
  Vector signs[kCount];
  for (int r = 1; r < kCount; ++r) signs[r] = splat(rows.signs[r]);
  for (std::int64_t n = 0; n < rows.repeats; ++n) {
    const float* row[kCount];
    for (int r = 0; r < kCount; ++r) row[r] = rows.rows[r] + n * rows.row_step;
    float* target = rows.target + n * rows.target_step;
    for (std::int64_t i = 0; i < rows.width; i += kLanes, target += rows.target_vector) {
      Vector sum = load(row[0] + i);
      for (int r = 1; r < kCount; ++r) sum = multiply_add(signs[r], load(row[r] + i), sum);
      store(target, kAdds ? load(target) + sum : sum);
    }
  }
}

template <int kCount>
void add_rows_to(const SignedRows& rows) {
  if (rows.adds) {
    add_rows_of<kCount, true>(rows);
  } else {
    add_rows_of<kCount, false>(rows);
  }
}

void add_rows(const SignedRows& rows) {
  switch (rows.count) {
    case 1:
      return add_rows_to<1>(rows);
    case 2:
      return add_rows_to<2>(rows);
    default:
      return add_rows_to<4>(rows);
  }
}

/// Calls `make(d, out)` for each vector: `d(j)` loads element j, `out(f, v)` stores factor f.
template <class Make>
inline void for_each_factor(const FactorRows& factor_rows, const Make& make) {
  const FactorRows rows = factor_rows;  // a copy, which what is written cannot be
  for (std::int64_t n = 0; n < rows.repeats; ++n) {
    const float* row = rows.row + n * rows.row_step;
    float* target = rows.target + n * rows.target_step;
    for (std::int64_t i = 0; i < rows.width; i += kLanes, target += rows.target_vector) {
      make([&](int j) { return load(row + j * rows.element_step + i); },
           [&](int f, Vector v) { store(target + f * rows.target_factor, v); });
    }
  }
}

void data_factors(const FactorRows& rows, int count) {
  const auto three = [](const auto& d, const auto& out) {
    const Vector middle = d(1);
    out(0, d(0) - middle);
    out(1, middle);
    const Vector last = d(2);
    out(2, middle - last);
    return last;
  };
  if (count == 3) {
    for_each_factor(rows, [&](const auto& d, const auto& out) { three(d, out); });
  } else {
    for_each_factor(rows, [&](const auto& d, const auto& out) {
      const Vector third = three(d, out);
      out(3, third);
      out(4, third - d(3));
    });
  }
}

void filter_factors(const FactorRows& rows) {
  for_each_factor(rows, [](const auto& d, const auto& out) {
    const Vector first = d(0);
    const Vector second = d(1);
    out(0, first);
    out(1, first + second);
    out(2, second);
  });
}

}  // namespace
}  // namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE
