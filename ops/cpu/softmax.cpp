#include "tenon/ops/cpu/softmax.h"

#include <Eigen/Core>
#include <cmath>
#include <limits>

#include "tenon/core/cpu/strided.h"
#include "tenon/ops/cpu/array_math.h"
#include "tenon/ops/split.h"

namespace tenon::ops::cpu {
namespace {

using tenon::cpu::BlockOperand;
using tenon::cpu::kBlock;

/// Columns that are worked on side by side where the dimension is not the last one.
constexpr std::int64_t kColumns = 128;

template <class C>
using Values = Eigen::Array<C, Eigen::Dynamic, 1, 0, kBlock, 1>;

template <class T>
BlockOperand operand(const T* data) {
  return {reinterpret_cast<std::byte*>(const_cast<T*>(data)), 1};
}

/// `count` neighbouring elements of `data` as an array of the compute type.
template <class T, class C>
Eigen::Map<const Eigen::Array<C, Eigen::Dynamic, 1>> load(const T* data, std::int64_t count,
                                                          C* buffer) {
  return {tenon::cpu::load_block<T, C>(operand(data), count, buffer), count};
}

/// A row whose elements are neighbours.
template <class T>
void softmax_row(const T* x, std::int64_t length, bool logarithm, T* y) {
  using C = compute_type<T>;
  alignas(64) C buffer[kBlock];
  C highest = -std::numeric_limits<C>::infinity();
  for (std::int64_t i = 0; i < length; i += kBlock) {
    const std::int64_t n = std::min(kBlock, length - i);
    highest = std::max(highest, load<T, C>(x + i, n, buffer).maxCoeff());
  }
  C sum(0);
  for (std::int64_t i = 0; i < length; i += kBlock) {
    const std::int64_t n = std::min(kBlock, length - i);
    sum += exponential(load<T, C>(x + i, n, buffer) - highest).sum();
  }
  const C log_sum = std::log(sum);
  Values<C> block;
  for (std::int64_t i = 0; i < length; i += kBlock) {
    const auto values = load<T, C>(x + i, std::min(kBlock, length - i), buffer);
    if (logarithm) {
      block = (values - highest) - log_sum;
    } else {
      block = exponential(values - highest) / sum;
    }
    tenon::cpu::store_block<C, T>(operand(y + i), values.size(), block.data());
  }
}

/// `count` neighbouring columns, whose elements are `stride` apart.
template <class T>
void softmax_columns(const T* x, std::int64_t length, std::int64_t stride, std::int64_t count,
                     bool logarithm, T* y) {
  using C = compute_type<T>;
  alignas(64) C buffer[kBlock];
  Values<C> highest = load<T, C>(x, count, buffer);
  for (std::int64_t i = 1; i < length; ++i) {
    highest = highest.max(load<T, C>(x + i * stride, count, buffer));
  }
  Values<C> sum = Values<C>::Zero(count);
  for (std::int64_t i = 0; i < length; ++i) {
    sum += exponential(load<T, C>(x + i * stride, count, buffer) - highest);
  }
  Values<C> block;
  if (logarithm) sum = sum.log().eval();
  for (std::int64_t i = 0; i < length; ++i) {
    const auto values = load<T, C>(x + i * stride, count, buffer);
    if (logarithm) {
      block = (values - highest) - sum;
    } else {
      block = exponential(values - highest) / sum;
    }
    tenon::cpu::store_block<C, T>(operand(y + i * stride), count, block.data());
  }
}

template <class T>
void softmax_typed(const T* x, const Split& split, bool logarithm, T* y) {
  const std::int64_t pieces = (split.inner + kColumns - 1) / kColumns;
  const std::int64_t work = split.length * std::min(split.inner, kColumns);
  const std::int64_t grain = std::max<std::int64_t>(1, 8192 / work);
  parallel_for(0, split.outer * pieces, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t job = begin; job < end; ++job) {
      const std::int64_t column = job % pieces * kColumns;
      const std::int64_t start = job / pieces * split.length * split.inner + column;
      if (split.inner == 1) {
        softmax_row(x + start, split.length, logarithm, y + start);
      } else {
        softmax_columns(x + start, split.length, split.inner,
                        std::min(kColumns, split.inner - column), logarithm, y + start);
      }
    }
  });
}

}  // namespace

void softmax(const Tensor& x, std::size_t dim, bool logarithm, const Tensor& y) {
  if (x.numel() == 0) return;
  visit_floating(x.dtype(), "softmax", [&]<class T>() {
    softmax_typed(static_cast<const T*>(x.raw_data()), Split(x.shape(), dim), logarithm,
                  static_cast<T*>(y.raw_data()));
  });
}

}  // namespace tenon::ops::cpu
