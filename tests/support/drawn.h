// Numbers for kernels that work on plain memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tenon/core/random.h"

namespace tenon::test {

/// Uniform in [-1, 1), drawn from `seed`.
inline std::vector<float> drawn(std::size_t count, std::uint64_t seed) {
  Generator generator(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    value = static_cast<float>(static_cast<double>(generator.next()) / 2147483648.0 - 1);
  }
  return values;
}

}  // namespace tenon::test
