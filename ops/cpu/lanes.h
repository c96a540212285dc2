// Blocks of elements in the form in which Eigen's rounding depends on nothing but the elements.
//
// Of an array Eigen computes what lies before an aligned address, and what is left behind the last
// full vector, with the scalar functions of the standard library, whose exp, log or tanh round
// otherwise than its vector code. The result for an element would then depend on where memory
// happens to lie and on the element's neighbours. A block that is written to an aligned address and
// is a multiple of kLanes long has neither head nor tail.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>

#include "tenon/core/cpu/strided.h"

namespace tenon::ops::cpu {

/// A whole number of vectors on every processor.
inline constexpr std::int64_t kLanes = 16;
static_assert(tenon::cpu::kBlock % kLanes == 0);

/// Bytes of the address at which results begin.
inline constexpr std::size_t kLaneAlignment = 64;

/// `count` rounded up to a multiple of kLanes.
constexpr std::int64_t whole_lanes(std::int64_t count) {
  return (count + kLanes - 1) / kLanes * kLanes;
}

/// Operands of a block, at any address, and its results. Their size is a multiple of kLanes.
template <class C>
using InputLanes = Eigen::Map<const Eigen::Array<C, Eigen::Dynamic, 1>>;
template <class C>
using OutputLanes = Eigen::Map<Eigen::Array<C, Eigen::Dynamic, 1>, Eigen::Aligned64>;

/// An array of its own for the intermediate results of a block.
template <class C>
using LanesArray = Eigen::Array<C, Eigen::Dynamic, 1, Eigen::ColMajor, tenon::cpu::kBlock, 1>;

/// As `load_block`, with zeros behind the elements up to a multiple of kLanes.
template <class From, class To>
const To* load_lanes(const tenon::cpu::BlockOperand& block, std::int64_t count, To* buffer) {
  const std::int64_t whole = whole_lanes(count);
  if (whole == count) return tenon::cpu::load_block<From, To>(block, count, buffer);
  const From* source = reinterpret_cast<const From*>(block.data);
  if (block.stride == 1) {  // known, so that it vectorises
    for (std::int64_t i = 0; i < count; ++i) buffer[i] = static_cast<To>(source[i]);
  } else {
    for (std::int64_t i = 0; i < count; ++i) buffer[i] = static_cast<To>(source[i * block.stride]);
  }
  std::fill(buffer + count, buffer + whole, To{});
  return buffer;
}

/// As `result_block`, for results up to a multiple of kLanes; `buffer` is aligned.
template <class From, class To>
From* result_lanes(const tenon::cpu::BlockOperand& block, std::int64_t count, From* buffer) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(block.data) % kLaneAlignment == 0;
  if (!aligned || count % kLanes != 0) return buffer;
  return tenon::cpu::result_block<From, To>(block, buffer);
}

}  // namespace tenon::ops::cpu
