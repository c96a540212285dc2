#include "tenon/core/shape.h"

#include <algorithm>
#include <ostream>
#include <sstream>

#include "tenon/core/error.h"

namespace tenon {

Shape::Shape(std::span<const std::int64_t> values) {
  for (std::int64_t value : values) push_back(value);
}

Shape Shape::filled(std::size_t count, std::int64_t value) {
  Shape shape;
  for (std::size_t i = 0; i < count; ++i) shape.push_back(value);
  return shape;
}

void Shape::push_back(std::int64_t value) { insert(size_, value); }

void Shape::insert(std::size_t i, std::int64_t value) {
  TENON_CHECK(size_ < kMaxDims, "shape: a tensor has at most ", kMaxDims, " dimensions");
  std::move_backward(begin() + i, end(), end() + 1);
  values_[i] = value;
  ++size_;
}

void Shape::erase(std::size_t i) {
  std::move(begin() + i + 1, end(), begin() + i);
  --size_;
}

std::int64_t Shape::numel() const {
  // A zero anywhere makes the product zero, whatever the other sizes are.
  if (std::find(begin(), end(), 0) != end()) return 0;
  std::int64_t product = 1;
  for (std::int64_t size : *this) {
    TENON_CHECK(!__builtin_mul_overflow(product, size, &product), "shape: ", *this,
                " has more than 2^63 elements");
  }
  return product;
}

std::string Shape::to_string() const {
  std::ostringstream out;
  out << *this;
  return out.str();
}

bool Shape::operator==(const Shape& other) const {
  return std::equal(begin(), end(), other.begin(), other.end());
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  for (std::size_t i = 0; i < shape.size(); ++i) out << (i > 0 ? ", " : "") << shape[i];
  return out << ']';
}

Strides contiguous_strides(const Shape& shape) {
  Strides strides = shape;
  std::int64_t step = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    // Only a shape without elements can overflow here; its strides are never used.
    (void)__builtin_mul_overflow(step, std::max<std::int64_t>(shape[i], 1), &step);
  }
  return strides;
}

Shape broadcast_shapes(const Shape& a, const Shape& b, std::string_view op) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  const std::size_t lead = longer.size() - shorter.size();
  for (std::size_t i = 0; i < shorter.size(); ++i) {
    const std::int64_t x = longer[lead + i];
    const std::int64_t y = shorter[i];
    TENON_CHECK(x == y || x == 1 || y == 1, op, ": shapes ", a, " and ", b,
                " do not broadcast: dimension ", lead + i, " is ", x, " and ", y,
                "; sizes must be equal or 1");
    result[lead + i] = x == 1 ? y : x;
  }
  return result;
}

std::size_t normalize_dim(std::int64_t dim, std::size_t rank, std::string_view op) {
  const auto extent = static_cast<std::int64_t>(std::max<std::size_t>(rank, 1));
  TENON_CHECK(dim >= -extent && dim < extent, op, ": dimension ", dim, " is out of range [",
              -extent, ", ", extent - 1, "] for a tensor of ", rank, " dimensions");
  return static_cast<std::size_t>(dim < 0 ? dim + extent : dim);
}

}  // namespace tenon
