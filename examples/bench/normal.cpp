#include "normal.h"

#include <algorithm>

#include "tenon/core/factories.h"

namespace bench {

using namespace tenon;

Tensor normal(const Shape& shape, double stddev, DType dtype, Device device) {
  constexpr std::int64_t kPeriod = 4000037;
  const std::int64_t count = shape.numel();
  Tensor pattern = empty({std::min(count, kPeriod)});
  normal_(pattern, 0, stddev);
  pattern = pattern.to(device, dtype);
  if (count <= kPeriod) return pattern.reshape(shape);
  const Tensor result = empty({count}, {.dtype = dtype, .device = device});
  for (std::int64_t start = 0; start < count; start += kPeriod) {
    const std::int64_t length = std::min(kPeriod, count - start);
    result.narrow(0, start, length).copy_(pattern.narrow(0, 0, length));
  }
  return result.reshape(shape);
}

}  // namespace bench
