// How strided operands are walked together: the geometry that elementwise and reduction kernels of
// every device share. Internal to kernels.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "tenon/core/tensor.h"

namespace tenon::detail {

/// Where each of `tensors` is.
template <std::size_t kCount>
std::array<const Tensor*, kCount> pointers_to(const std::array<Tensor, kCount>& tensors) {
  std::array<const Tensor*, kCount> pointers;
  for (std::size_t k = 0; k < kCount; ++k) pointers[k] = &tensors[k];
  return pointers;
}

/// The operands' common iteration space: dimensions in the order in which the first operand, the
/// target, lies in memory, neighbours that step alike joined.
template <std::size_t kOperands>
struct LoopNest {
  Shape shape;                             // outermost first; at least one dimension
  std::array<Strides, kOperands> strides;  // in elements
  std::array<std::byte*, kOperands> base;
  std::array<std::size_t, kOperands> item;  // bytes an element

  /// Pointers, because copying a handle counts its owners, which is not free between threads.
  LoopNest(const Shape& common, const std::array<const Tensor*, kOperands>& operands) {
    for (std::size_t k = 0; k < kOperands; ++k) {
      base[k] = static_cast<std::byte*>(operands[k]->raw_data());
      item[k] = item_size(operands[k]->dtype());
    }
    for (const std::int64_t d : memory_order(common, *operands[0])) {
      append(common, static_cast<std::size_t>(d), operands);
    }
    if (shape.empty()) {
      shape.push_back(1);
      for (Strides& s : strides) s.push_back(0);
    }
  }

  /// Stride of `operand` along dimension `d` of the common shape: 0 where it broadcasts.
  static std::int64_t stride_of(const Tensor& operand, const Shape& common, std::size_t d) {
    const std::size_t lead = common.size() - operand.dim();
    if (d < lead || operand.shape()[d - lead] == 1) return 0;
    return operand.strides()[d - lead];
  }

 private:
  /// The dimensions of more than one element, those along which `target` steps furthest first.
  static Shape memory_order(const Shape& common, const Tensor& target) {
    Shape order;
    Strides steps;
    for (std::size_t d = 0; d < common.size(); ++d) {
      if (common[d] == 1) continue;
      const std::int64_t step = stride_of(target, common, d);
      std::size_t at = order.size();
      while (at > 0 && steps[at - 1] < step) --at;
      order.insert(at, static_cast<std::int64_t>(d));
      steps.insert(at, step);
    }
    return order;
  }

  /// Adds dimension `d` inside of those before, joined with the last where all step alike.
  void append(const Shape& common, std::size_t d,
              const std::array<const Tensor*, kOperands>& operands) {
    std::array<std::int64_t, kOperands> step;
    bool joins = !shape.empty();
    for (std::size_t k = 0; k < kOperands; ++k) {
      step[k] = stride_of(*operands[k], common, d);
      joins = joins && strides[k].back() == step[k] * common[d];
    }
    if (joins) {
      shape.back() *= common[d];
    } else {
      shape.push_back(common[d]);
    }
    for (std::size_t k = 0; k < kOperands; ++k) {
      if (joins) {
        strides[k].back() = step[k];
      } else {
        strides[k].push_back(step[k]);
      }
    }
  }
};

/// In which order a reduction meets the elements of one result.
enum class SummedOrder : std::uint8_t {
  Logical,  // row-major, for reductions that ask for positions
  Memory,   // as the source lies in memory, so that it is read from one end to the other
};

/// A source's dimensions sorted into those that a target keeps and those that are summed away,
/// with the source's strides of both. Each list has at least one dimension.
struct ReductionNest {
  Shape kept;
  Strides kept_source;
  Shape summed;
  Strides summed_source;

  /// `target` broadcasts to the source's shape; where it has a 1 the source is reduced.
  ReductionNest(const Tensor& source, const Shape& target,
                SummedOrder order = SummedOrder::Logical) {
    const std::size_t lead = source.dim() - target.size();
    Shape sizes;
    Strides steps;
    for (std::size_t d = 0; d < source.dim(); ++d) {
      const std::int64_t size = source.shape()[d];
      const std::int64_t step = source.strides()[d];
      if (size == 1) continue;
      if (d >= lead && target[d - lead] == size) {
        append(kept, kept_source, size, step);
        continue;
      }
      std::size_t at = sizes.size();
      while (order == SummedOrder::Memory && at > 0 && steps[at - 1] < step) --at;
      sizes.insert(at, size);
      steps.insert(at, step);
    }
    for (std::size_t d = 0; d < sizes.size(); ++d)
      append(summed, summed_source, sizes[d], steps[d]);
    if (kept.empty()) append(kept, kept_source, 1, 0);
    if (summed.empty()) append(summed, summed_source, 1, 0);
  }

 private:
  /// Adds a dimension, joined with the one before where both step alike.
  static void append(Shape& shape, Strides& strides, std::int64_t size, std::int64_t stride) {
    if (!shape.empty() && strides.back() == stride * size) {
      shape.back() *= size;
      strides.back() = stride;
    } else {
      shape.push_back(size);
      strides.push_back(stride);
    }
  }
};

}  // namespace tenon::detail
