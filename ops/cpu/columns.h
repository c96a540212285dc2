// Moving rows of an image into and out of the columns that a convolution multiplies.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tenon::ops::cpu {

/// Which j of 0 … count − 1 have 0 <= first + j·step < width; step >= 1.
struct InsideRange {
  std::int64_t begin;
  std::int64_t end;

  InsideRange(std::int64_t width, std::int64_t first, std::int64_t step, std::int64_t count)
      : begin(std::min(count, first >= 0 ? 0 : (-first + step - 1) / step)),
        end(std::clamp(width > first ? (width - first + step - 1) / step : 0, begin, count)) {}
};

/// target[j] = row[first + j·step], or 0 outside of the row, for j < count.
template <class From, class To>
void gather_row(const From* row, std::int64_t width, std::int64_t first, std::int64_t step,
                std::int64_t count, To* target) {
  const InsideRange inside(width, first, step, count);
  std::fill(target, target + inside.begin, To{});
  if (step == 1) {
    std::transform(row + (first + inside.begin), row + (first + inside.end), target + inside.begin,
                   [](From value) { return static_cast<To>(value); });
  } else {
    for (std::int64_t j = inside.begin; j < inside.end; ++j) {
      target[j] = static_cast<To>(row[first + j * step]);
    }
  }
  std::fill(target + inside.end, target + count, To{});
}

}  // namespace tenon::ops::cpu
