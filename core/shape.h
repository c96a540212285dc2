// Shapes and strides: short vectors of 64-bit integers that live inside the tensor, off the heap.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

/// The most dimensions a tensor can have.
inline constexpr std::size_t kMaxDims = 8;

/// A list of at most `kMaxDims` integers: the sizes of a tensor's dimensions, or its strides
/// counted in elements. Throws `Error` when more are pushed.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> values)
      : Shape(std::span<const std::int64_t>(values.begin(), values.size())) {}
  explicit Shape(std::span<const std::int64_t> values);
  explicit Shape(const std::vector<std::int64_t>& values)
      : Shape(std::span<const std::int64_t>(values)) {}
  /// `count` times `value`.
  static Shape filled(std::size_t count, std::int64_t value);

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::int64_t operator[](std::size_t i) const { return values_[i]; }
  std::int64_t& operator[](std::size_t i) { return values_[i]; }
  std::int64_t back() const { return values_[size_ - 1]; }
  std::int64_t& back() { return values_[size_ - 1]; }
  const std::int64_t* begin() const { return values_.data(); }
  const std::int64_t* end() const { return values_.data() + size_; }
  std::int64_t* begin() { return values_.data(); }
  std::int64_t* end() { return values_.data() + size_; }
  void push_back(std::int64_t value);
  /// Puts `value` before position `i`.
  void insert(std::size_t i, std::int64_t value);
  /// Removes position `i`.
  void erase(std::size_t i);

  /// Product of all sizes; 1 for a 0-dimensional tensor. Throws `Error` when it overflows int64.
  std::int64_t numel() const;
  /// "[2, 3]".
  std::string to_string() const;
  std::vector<std::int64_t> to_vector() const { return {begin(), end()}; }

  bool operator==(const Shape& other) const;

 private:
  std::array<std::int64_t, kMaxDims> values_{};
  std::size_t size_ = 0;
};

using Strides = Shape;

std::ostream& operator<<(std::ostream& out, const Shape& shape);

/// Row-major strides of `shape`, in elements.
Strides contiguous_strides(const Shape& shape);

/// The shape that `a` and `b` broadcast to by NumPy's rule: aligned at the last dimension, sizes
/// equal or 1. Throws `Error` naming `op` and both shapes.
Shape broadcast_shapes(const Shape& a, const Shape& b, std::string_view op);

/// `dim` counted from the front; negative ones count from the back, -1 the last. Throws `Error`
/// naming `op` when it is outside [-rank, rank). For rank 0, 0 and -1 are accepted, as in PyTorch.
std::size_t normalize_dim(std::int64_t dim, std::size_t rank, std::string_view op);

}  // namespace tenon
