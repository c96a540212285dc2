#include "tenon/ops/cpu/extremum.h"

#include <algorithm>
#include <array>

#include "tenon/core/cpu/strided.h"
#include "tenon/ops/split.h"

namespace tenon::ops::cpu {
namespace {

/// The integer types are compared in their own type, the 16-bit floats in float.
template <class T>
using order_type = compute_type<T>;

/// Whether `candidate` takes the place of `best`. Of equals and of NaNs the first one stays.
template <Extreme kExtreme, class C>
bool beats(C candidate, C best) {
  const bool further = kExtreme == Extreme::Max ? candidate > best : candidate < best;
  return further || (candidate != candidate && best == best);
}

/// Columns that are reduced side by side.
constexpr std::int64_t kColumns = 128;

/// Reduces a row whose elements are neighbours. Keeps one candidate for each of kLanes positions,
/// so that the loop vectorises; which of them wins in the end does not matter for the value.
template <Extreme kExtreme, class T>
order_type<T> reduce_row(const T* row, std::int64_t length) {
  using C = order_type<T>;
  constexpr std::int64_t kLanes = 16;
  std::array<C, kLanes> best;
  best.fill(static_cast<C>(row[0]));
  std::int64_t i = 0;
  for (; i + kLanes <= length; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const C value = static_cast<C>(row[i + lane]);
      const auto k = static_cast<std::size_t>(lane);
      best[k] = beats<kExtreme>(value, best[k]) ? value : best[k];
    }
  }
  for (; i < length; ++i) {
    const C value = static_cast<C>(row[i]);
    best[0] = beats<kExtreme>(value, best[0]) ? value : best[0];
  }
  C result = best[0];
  for (const C value : best) result = beats<kExtreme>(value, result) ? value : result;
  return result;
}

/// Reduces `count` neighbouring columns, `stride` elements from one row to the next.
template <Extreme kExtreme, class T>
void reduce_columns(const T* in, std::int64_t length, std::int64_t stride, std::int64_t count,
                    T* values, std::int64_t* indices) {
  using C = order_type<T>;
  std::array<C, kColumns> best;
  for (std::int64_t c = 0; c < count; ++c)
    best[static_cast<std::size_t>(c)] = static_cast<C>(in[c]);
  if (indices != nullptr) std::fill_n(indices, count, 0);
  for (std::int64_t row = 1; row < length; ++row) {
    const T* source = in + row * stride;
    for (std::int64_t c = 0; c < count; ++c) {
      const C value = static_cast<C>(source[c]);
      C& current = best[static_cast<std::size_t>(c)];
      const bool wins = beats<kExtreme>(value, current);
      current = wins ? value : current;
      if (indices != nullptr && wins) indices[c] = row;
    }
  }
  for (std::int64_t c = 0; c < count; ++c) {
    values[c] = static_cast<T>(best[static_cast<std::size_t>(c)]);
  }
}

template <class T>
std::int64_t first_position(const T* row, std::int64_t length, order_type<T> value) {
  for (std::int64_t i = 0; i < length; ++i) {
    const auto candidate = static_cast<order_type<T>>(row[i]);
    if (candidate == value || (candidate != candidate && value != value)) return i;
  }
  return 0;
}

template <Extreme kExtreme, class T>
void reduce(const T* in, const Split& split, T* values, std::int64_t* indices) {
  const std::int64_t pieces = (split.inner + kColumns - 1) / kColumns;
  const std::int64_t work = split.length * std::min(split.inner, kColumns);
  const std::int64_t grain = std::max<std::int64_t>(1, tenon::cpu::kElementwiseGrain / work);
  parallel_for(0, split.outer * pieces, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t job = begin; job < end; ++job) {
      const std::int64_t outer = job / pieces;
      const std::int64_t column = job % pieces * kColumns;
      const T* source = in + outer * split.length * split.inner + column;
      const std::int64_t result = outer * split.inner + column;
      if (split.inner == 1) {
        const order_type<T> value = reduce_row<kExtreme>(source, split.length);
        values[result] = static_cast<T>(value);
        if (indices != nullptr) indices[result] = first_position(source, split.length, value);
      } else {
        reduce_columns<kExtreme>(source, split.length, split.inner,
                                 std::min(kColumns, split.inner - column), values + result,
                                 indices == nullptr ? nullptr : indices + result);
      }
    }
  });
}

void reduce(Extreme extreme, const Tensor& x, std::size_t dim, const Tensor& values,
            std::int64_t* indices) {
  if (values.numel() == 0) return;
  const Split split(x.shape(), dim);
  visit_dtype(x.dtype(), [&]<class T>() {
    const T* in = static_cast<const T*>(x.raw_data());
    T* out = static_cast<T*>(values.raw_data());
    if (extreme == Extreme::Max) {
      reduce<Extreme::Max>(in, split, out, indices);
    } else {
      reduce<Extreme::Min>(in, split, out, indices);
    }
  });
}

}  // namespace

void extremum(Extreme extreme, const Tensor& x, std::size_t dim, const Tensor& values) {
  reduce(extreme, x, dim, values, nullptr);
}

void indexed_extremum(Extreme extreme, const Tensor& x, std::size_t dim, const Tensor& values,
                      const Tensor& indices) {
  reduce(extreme, x, dim, values, indices.data<std::int64_t>());
}

}  // namespace tenon::ops::cpu
