// How many pieces of a size cover a count.
#pragma once

namespace tenon::ops {

/// count / size, rounded up; `size` is positive and `count` not negative.
template <class T>
constexpr T ceil_div(T count, T size) {
  return (count + size - 1) / size;
}

}  // namespace tenon::ops
