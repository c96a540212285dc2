// A contiguous tensor seen as three dimensions around the one that an op works along.
#pragma once

#include <cstdint>

#include "tenon/core/shape.h"

namespace tenon::ops {

/// The shape [outer, length, inner], where `length` is the size of dimension `dim`.
struct Split {
  std::int64_t outer = 1;
  std::int64_t length = 1;
  std::int64_t inner = 1;

  Split(const Shape& shape, std::size_t dim) {
    for (std::size_t d = 0; d < shape.size(); ++d) {
      (d < dim ? outer : d == dim ? length : inner) *= shape[d];
    }
  }
};

}  // namespace tenon::ops
