// Comparing tensors with references.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "tenon/core/factories.h"
#include "tenon/core/half.h"
#include "tenon/core/tensor.h"
#include "tenon/tests/support/devices.h"

namespace tenon::test {

/// ‖value − reference‖ / ‖reference‖ over all elements; the plain norm when the reference is zero.
inline double relative_error(const std::vector<double>& value,
                             const std::vector<double>& reference) {
  if (value.size() != reference.size()) return INFINITY;
  double difference = 0;
  double norm = 0;
  for (std::size_t i = 0; i < value.size(); ++i) {
    difference += (value[i] - reference[i]) * (value[i] - reference[i]);
    norm += reference[i] * reference[i];
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

inline double relative_error(const Tensor& value, const Tensor& reference) {
  return value.shape() == reference.shape()
             ? relative_error(value.to_vector<double>(), reference.to_vector<double>())
             : INFINITY;
}

/// Expects equal shapes and |value − reference| <= absolute + relative·|reference| for each
/// element; infinities must be equal, NaN stand where NaN is.
inline void expect_close(const Tensor& value, const Tensor& reference, double relative,
                         double absolute = 0) {
  ASSERT_TRUE(value.defined());
  ASSERT_EQ(value.shape(), reference.shape());
  const std::vector<double> a = value.to_vector<double>();
  const std::vector<double> b = reference.to_vector<double>();
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(b[i])) {
      EXPECT_TRUE(std::isnan(a[i])) << "element " << i << " is " << a[i] << ", should be NaN";
    } else if (std::isinf(b[i])) {
      EXPECT_EQ(a[i], b[i]) << "element " << i;
    } else {
      EXPECT_LE(std::abs(a[i] - b[i]), absolute + relative * std::abs(b[i]))
          << "element " << i << " is " << a[i] << ", should be " << b[i];
    }
  }
}

/// Expects the same bits in every element, wherever the tensors lie.
inline void expect_same_bits(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape(), b.shape());
  ASSERT_EQ(a.dtype(), b.dtype());
  const Tensor left = a.detach().to(Device::cpu()).contiguous();
  const Tensor right = b.detach().to(Device::cpu()).contiguous();
  const auto bytes = static_cast<std::size_t>(a.numel()) * item_size(a.dtype());
  EXPECT_TRUE(bytes == 0 || std::memcmp(left.raw_data(), right.raw_data(), bytes) == 0);
}

/// Standard normal values of `dtype`, drawn from `seed`: the same on every device.
inline Tensor normal(const Shape& shape, DType dtype, std::uint64_t seed,
                     Device device = Device::cpu()) {
  Generator generator(seed);
  return randn(shape, {.dtype = DType::Float64}, generator).to(device, dtype);
}

/// A new leaf with those values that wants a gradient; undefined for an undefined tensor.
inline Tensor leaf(const Tensor& values, DType dtype, Device device) {
  if (!values.defined()) return {};
  return values.detach().to(device, dtype).clone().requires_grad_();
}

/// The same where `values` lies.
inline Tensor leaf(const Tensor& values, DType dtype) {
  return values.defined() ? leaf(values, dtype, values.device()) : Tensor();
}

/// `function` of tensors on the CPU, computed on `device`: what finite differences, which change
/// single elements, are taken of.
template <class Function>
auto on_device(Device device, Function function) {
  return [device, function](std::span<const Tensor> inputs) {
    std::vector<Tensor> moved;
    for (const Tensor& input : inputs) moved.push_back(input.to(device));
    return Tensor(function(std::span<const Tensor>(moved))).to(Device::cpu());
  };
}

/// The same values laid out so that no dimension is contiguous: a transposed copy with gaps.
inline Tensor scattered(const Tensor& x) {
  if (x.dim() == 0) return x;
  Shape wide = x.shape();
  wide.back() *= 2;
  const Tensor gaps = zeros(wide, {.dtype = x.dtype(), .device = x.device()});
  const Tensor view = gaps.slice(-1, 0, INT64_MAX, 2);
  view.copy_(x);
  if (x.dim() == 1) return view;
  const Tensor turned = view.transpose(0, -1).contiguous().transpose(0, -1);
  return turned;
}

/// Expects an Error whose message holds every one of `parts`.
template <class Function>
void expect_error(Function&& function, std::initializer_list<const char*> parts) {
  try {
    function();
    FAIL() << "no error";
  } catch (const Error& error) {
    for (const char* part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

}  // namespace tenon::test
