// Sums and differences of minimal filtering along an axis, of the forms of winograd/form.h: a part
// of kernel_source.h, which see.
#pragma once

#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/cpu/simd/vector_source.h"

namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE {
namespace {

constexpr float kFar = kFarPoint;
constexpr float kNear = kNearPoint;
constexpr float kFarSquare = kFar * kFar;
constexpr float kNearSquare = kNear * kNear;

inline Vector multiply_add(float a, Vector b, Vector c) { return multiply_add(splat(a), b, c); }

/// Calls `along(d, out)` for each vector of each member: `d(j)` is element j, of kElements,
/// `out(f, v)` stores factor f.
template <int kCount, int kElements, class Along>
inline void combine_rows(const FactorRows& factor_rows, const Along& along) {
  const FactorRows rows = factor_rows;  // a copy, which what is written cannot be
  const Vector w0 = splat(rows.weights[0]);
  const Vector w1 = splat(rows.weights[1]);
  for (std::int64_t n = 0; n < rows.repeats; ++n) {
    float* target = rows.target + n * rows.target_step;
    for (std::int64_t i = 0; i < rows.width; i += kLanes, target += rows.target_vector) {
      const auto element = [&](int r, int j) {
        return load(rows.rows[r] + n * rows.row_step + j * rows.element_step + i);
      };
      Vector d[2][kElements];
      for (int j = 0; j < kElements; ++j) {
        Vector sum = element(0, j);
        if constexpr (kCount >= 2) sum = multiply_add(w0, element(1, j), sum);
        if constexpr (kCount == 3) sum = multiply_add(w1, element(2, j), sum);
        d[0][j] = sum;
        if constexpr (kCount == 4) {
          const Vector odd = multiply_add(w0, element(3, j), element(2, j));
          d[0][j] = multiply_add(w1, odd, sum);
          d[1][j] = multiply_add(-w1, odd, sum);
        }
      }
      for (int m = 0; m < (kCount == 4 ? 2 : 1); ++m) {
        along([&](int j) { return d[m][j]; },
              [&](int f, Vector v) {
                store(target + m * rows.target_member + f * rows.target_factor, v);
              });
      }
    }
  }
}

template <int kElements, class Along>
inline void for_each_factor(const FactorRows& rows, const Along& along) {
  switch (rows.count) {
    case 1:
      return combine_rows<1, kElements>(rows, along);
    case 2:
      return combine_rows<2, kElements>(rows, along);
    case 3:
      return combine_rows<3, kElements>(rows, along);
    default:
      return combine_rows<4, kElements>(rows, along);
  }
}

template <int kWindows>
void data_factors_of_two(const FactorRows& rows) {
  for_each_factor<kWindows + 2>(rows, [](const auto& d, const auto& out) {
    out(0, d(0) - d(1));
    out(1, d(1));
    out(2, d(1) - d(2));
    if constexpr (kWindows == 2) {
      out(3, d(2));
      out(4, d(2) - d(3));
    }
  });
}

/// A pair of factors of ±p: v ± p·u.
template <class Out>
inline void store_pair(const Out& out, int first, float p, Vector u, Vector v) {
  out(first, multiply_add(p, u, v));
  out(first + 1, multiply_add(-p, u, v));
}

/// Differences of elements two apart are shared between the points ±p, and between the windows.
template <int kWindows>
void data_factors_of_four(const FactorRows& rows) {
  for_each_factor<kWindows + 4>(rows, [](const auto& d, const auto& out) {
    Vector far[kWindows + 2];
    Vector near[kWindows + 1];
    for (int j = 0; j < kWindows + 2; ++j) far[j] = multiply_add(-kFarSquare, d(j), d(j + 2));
    for (int j = 0; j < kWindows + 1; ++j) near[j] = multiply_add(-kNearSquare, d(j), d(j + 2));
    for (int w = 0; w < kWindows; ++w) {
      store_pair(out, 5 * w, kFar, near[w], near[w + 1]);
      store_pair(out, 5 * w + 2, kNear, far[w], far[w + 1]);
      out(5 * w + 4, multiply_add(-kNearSquare, far[w], far[w + 2]));
    }
  });
}

void data_factors(const FactorRows& rows, int tile, int windows) {
  if (tile == 2) {
    windows == 1 ? data_factors_of_two<1>(rows) : data_factors_of_two<2>(rows);
  } else {
    windows == 1 ? data_factors_of_four<1>(rows) : data_factors_of_four<2>(rows);
  }
}

void output_factors(const FactorRows& rows, int tile) {
  if (tile == 2) {
    for_each_factor<2>(rows, [](const auto& y, const auto& out) {
      out(0, y(0));
      out(1, y(0) + y(1));
      out(2, y(1));
    });
  } else {
    for_each_factor<4>(rows, [](const auto& y, const auto& out) {
      store_pair(out, 0, kFar, multiply_add(kFarSquare, y(3), y(1)),
                 multiply_add(kFarSquare, y(2), y(0)));
      store_pair(out, 2, kNear, multiply_add(kNearSquare, y(3), y(1)),
                 multiply_add(kNearSquare, y(2), y(0)));
      out(4, y(3));
    });
  }
}

/// Outputs y_i of products `m(e)` along one axis.
template <int kTile, class Products>
inline void outputs_along(const Products& m, Vector y[kTile]) {
  if constexpr (kTile == 2) {
    const Vector middle = m(1);
    y[0] = m(0) + middle;
    y[1] = middle + m(2);
  } else {
    const Vector far = m(0) + m(1);
    const Vector far_odd = kFar * (m(0) - m(1));
    const Vector near = m(2) + m(3);
    const Vector near_odd = kNear * (m(2) - m(3));
    y[0] = far + near;
    y[1] = far_odd + near_odd;
    y[2] = multiply_add(kFarSquare, far, kNearSquare * near);
    y[3] = multiply_add(kFarSquare, far_odd, multiply_add(kNearSquare, near_odd, m(4)));
  }
}

template <int kRows, int kColumns>
void outputs_of(const ProductTiles& product_tiles) {
  const ProductTiles tiles = product_tiles;  // a copy, which what is written cannot be
  for (std::int64_t n = 0; n < tiles.repeats; ++n) {
    for (std::int64_t i = 0; i < tiles.width; i += kLanes) {
      Vector along[kRows + 1][kColumns];
      for (int e = 0; e <= kRows; ++e) {
        const float* products = tiles.products + e * tiles.row_factor + n * tiles.width + i;
        outputs_along<kColumns>([&](int f) { return load(products + f * tiles.column_factor); },
                                along[e]);
      }
      const Vector start = tiles.start == nullptr ? Vector{} : load(tiles.start + i);
      float* target = tiles.target + n * tiles.target_step + i;
      for (int c = 0; c < kColumns; ++c) {
        Vector y[kRows];
        outputs_along<kRows>([&](int e) { return along[e][c]; }, y);
        for (int r = 0; r < kRows; ++r) {
          store(target + r * tiles.target_row + c * tiles.target_column, y[r] + start);
        }
      }
    }
  }
}

void outputs(const ProductTiles& tiles, int tile_rows, int tile_columns) {
  if (tile_rows == 2) {
    tile_columns == 2 ? outputs_of<2, 2>(tiles) : outputs_of<2, 4>(tiles);
  } else {
    tile_columns == 2 ? outputs_of<4, 2>(tiles) : outputs_of<4, 4>(tiles);
  }
}

/// Taps g0 and g1 of products `m(e)` along one axis.
template <int kTile, class Products>
inline void taps_along(const Products& m, Vector g[2]) {
  if constexpr (kTile == 2) {
    const Vector middle = m(1);
    g[0] = m(0) + middle;
    g[1] = middle - m(2);
  } else {
    // 1 / M'(±far) = ±kSlope / far, 1 / M'(±near) = ∓kSlope / near
    constexpr float kSlope = 0.5f / (kFarSquare - kNearSquare);
    const Vector far = m(0) - m(1);
    const Vector near = m(2) - m(3);
    g[0] = multiply_add(kSlope / kFar, far, (-kSlope / kNear) * near);
    g[1] = multiply_add(kSlope, (m(0) + m(1)) - (m(2) + m(3)), m(4));
  }
}

template <int kTile>
void add_taps_of(const TapProducts& tap_products) {
  const TapProducts p = tap_products;  // a copy, which what is written cannot be
  for (int i = 0; i < p.rows; ++i) {
    for (std::int64_t j = 0; j < p.width; j += kLanes) {
      const float* products = p.products + i * p.width + j;
      Vector g[2];
      taps_along<kTile>([&](int e) { return load(products + e * p.factor); }, g);
      for (int r = 0; r < 2; ++r) {
        if (p.weights[r] == 0) continue;
        for (int c = 0; c < 2; ++c) {
          float* target = p.taps[r][c] + i * p.tap_row + j;
          store(target,
                p.adds[r] ? multiply_add(p.weights[r], g[c], load(target)) : p.weights[r] * g[c]);
        }
      }
    }
  }
}

void add_taps(const TapProducts& products, int tile) {
  tile == 2 ? add_taps_of<2>(products) : add_taps_of<4>(products);
}

}  // namespace
}  // namespace tenon::ops::cpu::simd::TENON_SIMD_NAMESPACE
