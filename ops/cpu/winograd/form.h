// Minimal filtering along one axis: F(m, 2), m neighbouring outputs of two taps from m + 1
// products.
//
// With d the m + 1 elements that the outputs read, g the two taps and P(x) = g0 + g1·x,
//   y_i = Σ_j d_(i + j)·g_j = Σ_e outputs[e][i]·m_e,
//   m_e = (Σ_j data[e][j]·d_j)·(Σ_j taps[e][j]·g_j),
// matrices which follow from the points at which polynomials are evaluated: factor e belongs to one
// of m finite points p or to infinity. With M(x) the product of all x - p, data[e] is M(x) / (x -
// p), outputs[e] the powers of p, and taps[e]·g is P(p) / M'(p); of infinity they are M(x), 1 for
// the last output alone, and g1. Since the form is one sum for d, g and what y is multiplied by,
// the taps' gradient is
//   Σ_i d_(i + j)·y_i = Σ_e taps[e][j]·(Σ_k data[e][k]·d_k)·(Σ_i outputs[e][i]·y_i).
#pragma once

#include "tenon/ops/cpu/simd/kernels.h"

namespace tenon::ops::cpu::winograd {

/// Factors that are computed together, as `simd::FactorRows` has it.
struct Group {
  int first, members;  ///< factors
  int count;           ///< of elements
  int places[simd::kMostRows];
  float weights[2];
};
/// Groups of a form.
inline constexpr int kGroups = 3;

/// F(tile, 2).
struct Form {
  int tile;
  Group data[kGroups];
  Group outputs[kGroups];  ///< Σ_i outputs[e][i]·y_i
  float taps[5][2];

  constexpr int factors() const { return tile + 1; }
};

/// Points 0, 1 and infinity, with signs such that neighbouring windows share a factor. All weights
/// are 1 and -1: whole numbers stay exact.
inline constexpr Form kTwo{
    .tile = 2,
    .data = {{0, 1, 2, {0, 1}, {-1}}, {1, 1, 1, {1}, {}}, {2, 1, 2, {1, 2}, {-1}}},
    .outputs = {{0, 1, 1, {0}, {}}, {1, 1, 2, {0, 1}, {1}}, {2, 1, 1, {1}, {}}},
    .taps = {{1, 0}, {1, 1}, {0, -1}}};

/// Points ±far, ±near and infinity. Weights of data and outputs are exact. Which points, decides
/// how much of the products' rounding is left in the outputs: tangents of half of angles that
/// divide a circle evenly would leave least, and these are nearly those. They double the rounding
/// of kTwo at most; 0, ±1 and 2 would take it fourfold.
constexpr Form make_four() {
  constexpr float kFar = simd::kFarPoint;
  constexpr float kNear = simd::kNearPoint;
  constexpr float kFar2 = kFar * kFar;
  constexpr float kNear2 = kNear * kNear;
  Form form{.tile = 4,
            .data = {{0, 2, 4, {3, 1, 2, 0}, {-kNear2, kFar}},
                     {2, 2, 4, {3, 1, 2, 0}, {-kFar2, kNear}},
                     {4, 1, 3, {4, 2, 0}, {-(kFar2 + kNear2), kFar2 * kNear2}}},
            .outputs = {{0, 2, 4, {0, 2, 1, 3}, {kFar2, kFar}},
                        {2, 2, 4, {0, 2, 1, 3}, {kNear2, kNear}},
                        {4, 1, 1, {3}, {}}},
            .taps = {}};
  const double points[] = {kFar, -kFar, kNear, -kNear};
  for (int e = 0; e < 4; ++e) {
    const double p = points[e];
    const double slope = 2 * p * (p * p - (e < 2 ? kNear2 : kFar2));
    form.taps[e][0] = static_cast<float>(1 / slope);
    form.taps[e][1] = static_cast<float>(p / slope);
  }
  form.taps[4][1] = 1;
  return form;
}
inline constexpr Form kFour = make_four();

/// The form for `outputs` outputs: the larger one where it takes at least a tenth fewer products,
/// whatever of its last tile is not there.
constexpr const Form& best_form(std::int64_t outputs) {
  const auto products = [&](const Form& form) {
    return (outputs + form.tile - 1) / form.tile * form.factors();
  };
  return 10 * products(kFour) <= 9 * products(kTwo) ? kFour : kTwo;
}

/// Says which rows a group combines, `row_of(place)` being where one begins.
template <class RowOf>
void set_rows(simd::FactorRows& rows, const Group& group, const RowOf& row_of) {
  rows.count = group.count;
  for (int i = 0; i < group.count; ++i) rows.rows[i] = row_of(group.places[i]);
  for (int i = 0; i < 2; ++i) rows.weights[i] = group.weights[i];
}

}  // namespace tenon::ops::cpu::winograd
