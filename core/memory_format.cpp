#include "tenon/core/memory_format.h"

#include <algorithm>
#include <array>
#include <ostream>

#include "tenon/core/error.h"

namespace tenon {
namespace {

/// The dimensions of an image from the innermost in channels-last memory.
constexpr std::array<std::size_t, 4> kChannelsLastOrder{1, 3, 2, 0};

/// Only a shape without elements can overflow here; its strides are never used.
std::int64_t product(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  (void)__builtin_mul_overflow(a, b, &result);
  return result;
}

/// Positions of dimensions, innermost first.
using Order = Shape;

/// Sorts dimensions by `compare(a, b)`: above 0 where `a` lies further out than `b`, below 0 where
/// further in, 0 where that is not known. Row-major order where nothing says otherwise. An
/// insertion sort, because unknown is not a transitive relation: this is PyTorch's, step by step.
template <class Compare>
Order sorted_dimensions(std::size_t count, const Compare& compare) {
  Order order;
  for (std::size_t d = count; d-- > 0;) order.push_back(static_cast<std::int64_t>(d));
  for (std::size_t i = 1; i < count; ++i) {
    std::size_t moving = i;
    for (std::size_t other = i; other-- > 0;) {
      const int comparison =
          compare(static_cast<std::size_t>(order[other]), static_cast<std::size_t>(order[moving]));
      if (comparison < 0) break;
      if (comparison > 0) {
        std::swap(order[other], order[moving]);
        moving = other;
      }
    }
  }
  return order;
}

/// What one operand says of two of its dimensions, with their sizes and strides.
int compare_dimensions(std::int64_t size_a, std::int64_t stride_a, std::int64_t size_b,
                       std::int64_t stride_b) {
  if (stride_a == 0 || stride_b == 0) return 0;
  if (stride_a != stride_b) return stride_a < stride_b ? -1 : 1;
  return size_a > size_b ? 1 : 0;
}

Strides dense_strides(const Shape& shape, const Order& order) {
  Strides strides = shape;
  std::int64_t step = 1;
  for (const std::int64_t dim : order) {
    const auto d = static_cast<std::size_t>(dim);
    strides[d] = step;
    step = product(step, std::max<std::int64_t>(shape[d], 1));
  }
  return strides;
}

/// Stride of an operand along dimension `d` of the common shape: 0 where it broadcasts.
std::int64_t broadcast_stride(const OperandLayout& operand, const Shape& common, std::size_t d) {
  const std::size_t lead = common.size() - operand.shape->size();
  if (d < lead || ((*operand.shape)[d - lead] == 1 && common[d] != 1)) return 0;
  return (*operand.strides)[d - lead];
}

}  // namespace

std::ostream& operator<<(std::ostream& out, MemoryFormat format) {
  constexpr std::array<const char*, 3> kNames{"contiguous", "channels_last", "preserve"};
  return out << kNames[static_cast<std::size_t>(format)];
}

Strides channels_last_strides(const Shape& shape) {
  TENON_CHECK(shape.size() == 4, "channels_last: needs 4 dimensions [N, C, H, W], got ", shape);
  const std::int64_t row = product(shape[1], shape[3]);
  return {product(row, shape[2]), 1, row, shape[1]};
}

bool has_format(const Shape& shape, const Strides& strides, MemoryFormat format) {
  const bool channels_last = format == MemoryFormat::ChannelsLast;
  if (format == MemoryFormat::Preserve || (channels_last && shape.size() != 4)) return false;
  if (!channels_last && std::find(shape.begin(), shape.end(), 0) != shape.end()) return true;
  std::int64_t expected = 1;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const std::size_t d = channels_last ? kChannelsLastOrder[i] : shape.size() - 1 - i;
    if (shape[d] == 1) continue;
    if (strides[d] != expected) return false;
    expected = product(expected, shape[d]);
  }
  return true;
}

MemoryFormat suggest_memory_format(const Shape& shape, const Strides& strides) {
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  if (shape.size() != 4 || empty || strides[1] == 0) return MemoryFormat::Contiguous;
  std::int64_t least = 0;
  for (const std::size_t d : kChannelsLastOrder) {
    if (strides[d] < least) return MemoryFormat::Contiguous;
    // [N, 1, 1, 1] and [N, 1, 1, W] cut along W have strides that say nothing.
    if (d == 0 && least == strides[1]) return MemoryFormat::Contiguous;
    // With the size in it, [1, C, 1, W] turned around is told from a channels-last one.
    least = strides[d] * shape[d];
  }
  return MemoryFormat::ChannelsLast;
}

bool is_dense(const Shape& shape, const Strides& strides) {
  if (has_format(shape, strides, MemoryFormat::Contiguous)) return true;
  // Sizes and strides sorted by stride.
  Shape sizes;
  Strides steps;
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 1) continue;
    std::size_t at = steps.size();
    while (at > 0 && steps[at - 1] > strides[d]) --at;
    sizes.insert(at, shape[d]);
    steps.insert(at, strides[d]);
  }
  std::int64_t expected = 1;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (steps[i] != expected) return false;
    expected *= sizes[i];
  }
  return true;
}

Strides preserved_strides(const Shape& shape, const Strides& strides) {
  if (is_dense(shape, strides)) return strides;
  return dense_strides(shape, sorted_dimensions(shape.size(), [&](std::size_t a, std::size_t b) {
                         return compare_dimensions(shape[a], strides[a], shape[b], strides[b]);
                       }));
}

Strides elementwise_strides(const Shape& common, std::span<const OperandLayout> operands) {
  const auto all = [&](const auto& condition) {
    return std::all_of(operands.begin(), operands.end(), condition);
  };
  if (all([&](const OperandLayout& o) { return *o.shape == common; })) {
    const auto all_have = [&](MemoryFormat format) {
      return all([&](const OperandLayout& o) { return has_format(common, *o.strides, format); });
    };
    if (all_have(MemoryFormat::Contiguous)) return contiguous_strides(common);
    if (all_have(MemoryFormat::ChannelsLast)) return channels_last_strides(common);
    const Strides& first = *operands[0].strides;
    if (all([&](const OperandLayout& o) { return *o.strides == first; }) &&
        is_dense(common, first)) {
      return first;
    }
  }
  return dense_strides(common, sorted_dimensions(common.size(), [&](std::size_t a, std::size_t b) {
                         for (const OperandLayout& operand : operands) {
                           const int comparison =
                               compare_dimensions(common[a], broadcast_stride(operand, common, a),
                                                  common[b], broadcast_stride(operand, common, b));
                           if (comparison != 0) return comparison;
                         }
                         return 0;
                       }));
}

}  // namespace tenon
