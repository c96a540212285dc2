#include "tenon/core/factories.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"

namespace tenon {
namespace {

Tensor finish(Tensor tensor, const TensorOptions& options) {
  if (options.requires_grad) tensor.requires_grad_();
  return tensor;
}

/// A tensor of `value_at(0)`, `value_at(1)`, … in row-major order, which are computed as `T`.
template <class T, class ValueAt>
Tensor generate(const Shape& shape, const TensorOptions& options, const ValueAt& value_at) {
  Tensor values = detail::make_empty({shape, dtype_of<T>, Device::cpu()});
  T* out = values.data<T>();
  const std::int64_t count = values.numel();
  for (std::int64_t i = 0; i < count; ++i) out[i] = value_at(i);
  if (options.dtype == dtype_of<T> && options.device.is_cpu()) return finish(values, options);
  Tensor result = detail::make_empty({shape, options.dtype, options.device});
  kernels::copy(values, result);
  return finish(std::move(result), options);
}

bool any_real(Scalar a, Scalar b, Scalar c) {
  return a.kind() == Scalar::Kind::Real || b.kind() == Scalar::Kind::Real ||
         c.kind() == Scalar::Kind::Real;
}

/// How many steps lead from `start` to before `end`.
std::int64_t count_steps(Scalar start, Scalar end, Scalar step) {
  const double distance = end.to_double() - start.to_double();
  const double steps = std::ceil(distance / step.to_double());
  // Not 2^63 itself: the elements are counted in bytes later.
  TENON_CHECK(std::isfinite(step.to_double()) && steps >= 0 && steps < 0x1p60, "arange: from ",
              start, " to ", end, " is not reached in a number of steps of ", step,
              " that can be counted");
  if (any_real(start, end, step)) return static_cast<std::int64_t>(steps);
  std::int64_t exact_distance = 0;
  TENON_CHECK(!__builtin_sub_overflow(end.to_int64(), start.to_int64(), &exact_distance),
              "arange: the distance from ", start, " to ", end, " is not below 2^63");
  const std::int64_t whole = exact_distance / step.to_int64();
  return whole + (exact_distance % step.to_int64() != 0 ? 1 : 0);
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

Tensor arange(Scalar start, Scalar end, Scalar step) {
  const DType dtype = any_real(start, end, step) ? DType::Float32 : DType::Int64;
  return arange(start, end, step, {.dtype = dtype});
}

Tensor arange(Scalar start, Scalar end, Scalar step, const TensorOptions& options) {
  const std::int64_t count = count_steps(start, end, step);
  if (start.kind() == Scalar::Kind::Real || step.kind() == Scalar::Kind::Real) {
    return generate<double>({count}, options, [&](std::int64_t i) {
      return start.to_double() + static_cast<double>(i) * step.to_double();
    });
  }
  return generate<std::int64_t>(
      {count}, options, [&](std::int64_t i) { return start.to_int64() + i * step.to_int64(); });
}

Tensor linspace(double start, double end, std::int64_t steps, const TensorOptions& options) {
  TENON_CHECK(steps >= 0, "linspace: a negative number of steps, ", steps);
  const double step = steps > 1 ? (end - start) / static_cast<double>(steps - 1) : 0;
  return generate<double>({steps}, options, [&](std::int64_t i) {
    // From both ends toward the middle, so that both ends are exact.
    const bool from_start = i < steps / 2 || steps == 1;
    return from_start ? start + static_cast<double>(i) * step
                      : end - static_cast<double>(steps - 1 - i) * step;
  });
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
  return generate<std::int64_t>(shape, options, [&](std::int64_t) {
    const std::uint64_t word = std::uint64_t{generator.next()} << 32 | generator.next();
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(low) + word % range);
  });
}

Tensor randperm(std::int64_t n, Generator& generator) {
  TENON_CHECK(n >= 0, "randperm: a negative length, ", n);
  const Tensor result = arange(0, n);
  std::int64_t* values = result.data<std::int64_t>();
  for (std::int64_t i = n; i > 1; --i) {  // Fisher and Yates
    const std::uint64_t word = std::uint64_t{generator.next()} << 32 | generator.next();
    std::swap(values[i - 1], values[word % static_cast<std::uint64_t>(i)]);
  }
  return result;
}

Tensor empty_like(const Tensor& other, MemoryFormat format) {
  if (format != MemoryFormat::Preserve) return detail::make_empty(other.spec(), format);
  if (other.is_traced()) return detail::make_empty(other.spec());
  return detail::make_empty(other.spec(), preserved_strides(other.shape(), other.strides()));
}

Tensor zeros_like(const Tensor& other, MemoryFormat format) { return full_like(other, 0, format); }

Tensor ones_like(const Tensor& other, MemoryFormat format) { return full_like(other, 1, format); }

Tensor full_like(const Tensor& other, Scalar value, MemoryFormat format) {
  Tensor result = empty_like(other, format);
  kernels::fill(result, value);
  return result;
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
  const std::size_t bytes = detail::byte_count({shape, dtype, Device::cpu()}, "from_blob");
  TENON_CHECK(data != nullptr || bytes == 0, "from_blob: null data for the shape ", shape);
  return detail::make_tensor(Storage::adopt(data, bytes, Device::cpu(), std::move(deleter)), shape,
                             contiguous_strides(shape), 0, dtype);
}

}  // namespace tenon
