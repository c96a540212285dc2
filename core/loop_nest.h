// How strided operands are walked together: the geometry that elementwise and reduction kernels of
// every device share. Internal to kernels.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "tenon/core/tensor.h"

namespace tenon::detail {

/// The operands' common iteration space after neighbouring dimensions that step alike were joined.
template <std::size_t kOperands>
struct LoopNest {
  Shape shape;                             // outermost first; at least one dimension
  std::array<Strides, kOperands> strides;  // in elements
  std::array<std::byte*, kOperands> base;
  std::array<std::size_t, kOperands> item;  // bytes an element

  explicit LoopNest(const Shape& common, std::span<const Tensor, kOperands> operands) {
    for (std::size_t k = 0; k < kOperands; ++k) {
      base[k] = static_cast<std::byte*>(operands[k].raw_data());
      item[k] = item_size(operands[k].dtype());
    }
    for (std::size_t d = 0; d < common.size(); ++d) {
      if (common[d] == 1) continue;
      std::array<std::int64_t, kOperands> step;
      bool joins = !shape.empty();
      for (std::size_t k = 0; k < kOperands; ++k) {
        step[k] = stride_of(operands[k], common, d);
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
};

/// A source's dimensions sorted into those that a target keeps and those that are summed away,
/// with the source's strides of both. Each list has at least one dimension.
struct ReductionNest {
  Shape kept;
  Strides kept_source;
  Shape summed;
  Strides summed_source;

  /// `target` broadcasts to the source's shape; where it has a 1 the source is reduced.
  ReductionNest(const Tensor& source, const Shape& target) {
    const std::size_t lead = source.dim() - target.size();
    for (std::size_t d = 0; d < source.dim(); ++d) {
      const std::int64_t size = source.shape()[d];
      const bool keep = d >= lead && target[d - lead] == size;
      if (size == 1) continue;
      append(keep ? kept : summed, keep ? kept_source : summed_source, size, source.strides()[d]);
    }
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
