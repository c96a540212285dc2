// Expectations that several tests share.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "tenon/core/factories.h"

namespace tenon::test {

/// Runs `statement` and expects a `tenon::Error` whose message holds each of `parts`.
template <class Statement>
void expect_error(Statement&& statement, const std::vector<std::string>& parts) {
  try {
    statement();
  } catch (const Error& error) {
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "the message '" << error.what() << "' lacks '" << part << "'";
    }
    return;
  }
  ADD_FAILURE() << "nothing was thrown; expected an Error with '" << (parts.empty() ? "" : parts[0])
                << "'";
}

/// Expects a tensor of `shape` with exactly `values` in row-major order.
inline void expect_values(const Tensor& tensor, const Shape& shape,
                          const std::vector<double>& values) {
  ASSERT_TRUE(tensor.defined());
  EXPECT_EQ(tensor.shape(), shape);
  EXPECT_EQ(tensor.to_vector<double>(), values);
}

/// 0, 1, 2, … as float64.
inline Tensor counting(const Shape& shape) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  std::iota(values.begin(), values.end(), 0.0);
  return tensor(values, shape);
}

/// Standard normal float64 that requires a gradient; every call with the same seed is the same.
inline Tensor random_leaf(const Shape& shape, std::uint64_t seed = 7) {
  Generator generator(seed);
  return randn(shape, {.dtype = DType::Float64, .requires_grad = true}, generator);
}

}  // namespace tenon::test
