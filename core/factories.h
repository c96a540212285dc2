// Making tensors.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include "tenon/core/random.h"
#include "tenon/core/tensor.h"

namespace tenon {

/// dtype, device and whether a gradient is wanted, with designated initialisers:
/// `zeros({2, 3}, {.dtype = DType::Float64})`.
struct TensorOptions {
  DType dtype = DType::Float32;
  Device device = Device::cpu();
  bool requires_grad = false;
};

/// Uninitialised. Throws `Error` on a negative size.
Tensor empty(const Shape& shape, const TensorOptions& options = {});
Tensor zeros(const Shape& shape, const TensorOptions& options = {});
Tensor ones(const Shape& shape, const TensorOptions& options = {});
Tensor full(const Shape& shape, Scalar value, const TensorOptions& options = {});
/// [n, n] with ones on the diagonal.
Tensor eye(std::int64_t n, const TensorOptions& options = {});
/// start, start + step, … below (above, for a negative step) `end`; int64 when all three are whole
/// numbers, otherwise float32.
Tensor arange(Scalar start, Scalar end, Scalar step = 1);
/// The same in the dtype of `options`.
Tensor arange(Scalar start, Scalar end, Scalar step, const TensorOptions& options);
/// `steps` values from `start` to `end`, both included.
Tensor linspace(double start, double end, std::int64_t steps, const TensorOptions& options = {});

/// Uniform in [0, 1).
Tensor rand(const Shape& shape, const TensorOptions& options = {},
            Generator& generator = default_generator());
/// Standard normal.
Tensor randn(const Shape& shape, const TensorOptions& options = {},
             Generator& generator = default_generator());
/// Integers uniform in [low, high).
Tensor randint(std::int64_t low, std::int64_t high, const Shape& shape,
               const TensorOptions& options = {.dtype = DType::Int64},
               Generator& generator = default_generator());
/// A random permutation of 0 … n-1, int64.
Tensor randperm(std::int64_t n, Generator& generator = default_generator());

// Of the shape, dtype and device of `other`, by default with the dimensions in the same order in
// memory. In a trace, where that order is not known, contiguous.
Tensor empty_like(const Tensor& other, MemoryFormat format = MemoryFormat::Preserve);
Tensor zeros_like(const Tensor& other, MemoryFormat format = MemoryFormat::Preserve);
Tensor ones_like(const Tensor& other, MemoryFormat format = MemoryFormat::Preserve);
Tensor full_like(const Tensor& other, Scalar value, MemoryFormat format = MemoryFormat::Preserve);

/// A tensor of `shape` with a copy of `values` in row-major order. `T` is one of bool, uint8_t,
/// int64_t, float, double and becomes the dtype. Throws `Error` when the counts differ.
template <class T>
Tensor tensor(std::span<const T> values, const Shape& shape);
template <class T>
Tensor tensor(const std::vector<T>& values, const Shape& shape) {
  return tensor(std::span<const T>(values), shape);
}
template <class T>
Tensor tensor(std::initializer_list<T> values) {
  return tensor(std::span<const T>(values.begin(), values.size()),
                {static_cast<std::int64_t>(values.size())});
}
/// 0-dimensional.
Tensor scalar_tensor(Scalar value, const TensorOptions& options = {});

/// A view of memory that the caller keeps alive, or that `deleter` frees when the last tensor over
/// it is gone.
Tensor from_blob(void* data, const Shape& shape, DType dtype,
                 std::function<void(void*)> deleter = nullptr);

}  // namespace tenon
