#include "tenon/core/factories.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"

namespace tenon {
namespace {

Tensor finish(Tensor tensor, const TensorOptions& options) {
  if (options.requires_grad) tensor.requires_grad_();
  return tensor;
}

/// A tensor of `values` converted to the options' dtype and device.
template <class T>
Tensor from_values(const std::vector<T>& values, const Shape& shape, const TensorOptions& options) {
  Tensor result = detail::make_empty({shape, options.dtype, options.device});
  kernels::copy(tensor(values, shape), result);
  return finish(std::move(result), options);
}

TensorOptions options_of(const Tensor& other) {
  return {.dtype = other.dtype(), .device = other.device()};
}

}  // namespace

Tensor empty(const Shape& shape, const TensorOptions& options) {
  return finish(detail::make_empty({shape, options.dtype, options.device}), options);
}

Tensor full(const Shape& shape, Scalar value, const TensorOptions& options) {
  Tensor result = detail::make_empty({shape, options.dtype, options.device});
  kernels::fill(result, value);
  return finish(std::move(result), options);
}

Tensor zeros(const Shape& shape, const TensorOptions& options) { return full(shape, 0, options); }

Tensor ones(const Shape& shape, const TensorOptions& options) { return full(shape, 1, options); }

Tensor eye(std::int64_t n, const TensorOptions& options) {
  Tensor result = detail::make_empty({{n, n}, options.dtype, options.device});
  kernels::fill(result, 0);
  kernels::fill(detail::make_view(result, {n}, {n + 1}, 0), 1);
  return finish(std::move(result), options);
}

Tensor arange(Scalar start, Scalar end, Scalar step, const TensorOptions& options) {
  const bool real = start.kind() == Scalar::Kind::Real || end.kind() == Scalar::Kind::Real ||
                    step.kind() == Scalar::Kind::Real;
  const double distance = end.to_double() - start.to_double();
  TENON_CHECK(std::isfinite(distance) && step.to_double() != 0 && std::isfinite(step.to_double()) &&
                  distance / step.to_double() >= 0,
              "arange: from ", start, " to ", end, " is not reached in steps of ", step);
  const auto count = static_cast<std::int64_t>(std::ceil(distance / step.to_double()));
  if (real) {
    std::vector<double> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = start.to_double() + static_cast<double>(i) * step.to_double();
    }
    return from_values(values, {count}, options);
  }
  std::vector<std::int64_t> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = start.to_int64() + static_cast<std::int64_t>(i) * step.to_int64();
  }
  return from_values(values, {count}, options);
}

Tensor linspace(double start, double end, std::int64_t steps, const TensorOptions& options) {
  TENON_CHECK(steps >= 0, "linspace: a negative number of steps, ", steps);
  std::vector<double> values(static_cast<std::size_t>(steps));
  for (std::size_t i = 0; i < values.size(); ++i) {
    // From both ends toward the middle, so that both ends are exact.
    const double step = steps > 1 ? (end - start) / static_cast<double>(steps - 1) : 0;
    values[i] = i < values.size() / 2 || steps == 1
                    ? start + static_cast<double>(i) * step
                    : end - static_cast<double>(values.size() - 1 - i) * step;
  }
  return from_values(values, {steps}, options);
}

Tensor rand(const Shape& shape, const TensorOptions& options, Generator& generator) {
  Tensor result = detail::make_empty({shape, options.dtype, options.device});
  uniform_(result, 0, 1, generator);
  return finish(std::move(result), options);
}

Tensor randn(const Shape& shape, const TensorOptions& options, Generator& generator) {
  Tensor result = detail::make_empty({shape, options.dtype, options.device});
  normal_(result, 0, 1, generator);
  return finish(std::move(result), options);
}

Tensor randint(std::int64_t low, std::int64_t high, const Shape& shape,
               const TensorOptions& options, Generator& generator) {
  TENON_CHECK(low < high, "randint: the range [", low, ", ", high, ") is empty");
  const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  std::vector<std::int64_t> values(static_cast<std::size_t>(shape.numel()));
  for (std::int64_t& value : values) {
    const std::uint64_t word = std::uint64_t{generator.next()} << 32 | generator.next();
    value = static_cast<std::int64_t>(static_cast<std::uint64_t>(low) + word % range);
  }
  return from_values(values, shape, options);
}

Tensor randperm(std::int64_t n, Generator& generator) {
  TENON_CHECK(n >= 0, "randperm: a negative length, ", n);
  std::vector<std::int64_t> values(static_cast<std::size_t>(n));
  std::iota(values.begin(), values.end(), std::int64_t{0});
  for (std::size_t i = values.size(); i > 1; --i) {  // Fisher and Yates
    const std::uint64_t word = std::uint64_t{generator.next()} << 32 | generator.next();
    std::swap(values[i - 1], values[word % i]);
  }
  return tensor(values, {n});
}

Tensor empty_like(const Tensor& other) { return empty(other.shape(), options_of(other)); }
Tensor zeros_like(const Tensor& other) { return full_like(other, 0); }
Tensor ones_like(const Tensor& other) { return full_like(other, 1); }
Tensor full_like(const Tensor& other, Scalar value) {
  return full(other.shape(), value, options_of(other));
}

template <class T>
Tensor tensor(std::span<const T> values, const Shape& shape) {
  TENON_CHECK(static_cast<std::int64_t>(values.size()) == shape.numel(), "tensor: ", values.size(),
              " values for the shape ", shape);
  Tensor result = detail::make_empty({shape, dtype_of<T>, Device::cpu()});
  if (!values.empty()) std::memcpy(result.raw_data(), values.data(), values.size_bytes());
  return result;
}

template Tensor tensor<bool>(std::span<const bool>, const Shape&);
template Tensor tensor<std::uint8_t>(std::span<const std::uint8_t>, const Shape&);
template Tensor tensor<std::int64_t>(std::span<const std::int64_t>, const Shape&);
template Tensor tensor<float>(std::span<const float>, const Shape&);
template Tensor tensor<double>(std::span<const double>, const Shape&);

Tensor scalar_tensor(Scalar value, const TensorOptions& options) {
  return full({}, value, options);
}

Tensor from_blob(void* data, const Shape& shape, DType dtype, std::function<void(void*)> deleter) {
  TENON_CHECK(data != nullptr || shape.numel() == 0, "from_blob: null data for the shape ", shape);
  const auto bytes = static_cast<std::size_t>(shape.numel()) * item_size(dtype);
  return detail::make_tensor(Storage::adopt(data, bytes, Device::cpu(), std::move(deleter)), shape,
                             contiguous_strides(shape), 0, dtype);
}

}  // namespace tenon
