// Elementwise kernels from block functions: the loop over strided operands is compiled once for
// each dtype, the arithmetic of an op once for each compute type.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "tenon/core/tensor.h"
#include "tenon/ops/cpu/lanes.h"

namespace tenon::ops::cpu {

/// The arithmetic of an elementwise op on one contiguous block of each of its `kInputs` operands.
/// The 16-bit floats are computed in float; bool and uint8 in int64.
template <std::size_t kInputs>
class BlockFunction {
 public:
  virtual ~BlockFunction() = default;
  /// Whether results must be aligned and `count` a multiple of kLanes.
  virtual bool wants_lanes() const = 0;
  virtual void run(std::int64_t count, const std::array<const float*, kInputs>& in,
                   float* out) const = 0;
  virtual void run(std::int64_t count, const std::array<const double*, kInputs>& in,
                   double* out) const = 0;
  virtual void run(std::int64_t count, const std::array<const std::int64_t*, kInputs>& in,
                   std::int64_t* out) const = 0;
};

/// out = function(inputs...) with broadcasting of the inputs to out's shape. The inputs share one
/// dtype; `out` has it too or is bool (results that are not zero become true).
template <std::size_t kInputs>
void map(const std::array<Tensor, kInputs>& inputs, const Tensor& out,
         const BlockFunction<kInputs>& function);

/// Which compute types an expression is compiled for: the floating ones; or all, for expressions
/// made of single operations, which vector and scalar code round alike.
enum class Domain { Floating, All };

/// A block function made of a generic lambda `(const auto& x, ..., auto& y)` on Eigen arrays
/// (ops/cpu/lanes.h) that assigns its result to `y`.
template <std::size_t kInputs, Domain kDomain, class Expression>
class ExpressionFunction final : public BlockFunction<kInputs> {
 public:
  explicit ExpressionFunction(Expression expression) : expression_(std::move(expression)) {}

  bool wants_lanes() const override { return kDomain == Domain::Floating; }

  void run(std::int64_t count, const std::array<const float*, kInputs>& in,
           float* out) const override {
    evaluate(count, in, out, std::make_index_sequence<kInputs>());
  }
  void run(std::int64_t count, const std::array<const double*, kInputs>& in,
           double* out) const override {
    evaluate(count, in, out, std::make_index_sequence<kInputs>());
  }
  void run(std::int64_t count, const std::array<const std::int64_t*, kInputs>& in,
           std::int64_t* out) const override {
    if constexpr (kDomain == Domain::All) {
      evaluate(count, in, out, std::make_index_sequence<kInputs>());
    } else {
      static_cast<void>(count);
      static_cast<void>(in);
      static_cast<void>(out);
      tenon::detail::fail("this elementwise kernel needs a floating dtype");
    }
  }

 private:
  template <class C, std::size_t... kIndex>
  void evaluate(std::int64_t count, const std::array<const C*, kInputs>& in, C* out,
                std::index_sequence<kIndex...>) const {
    using Output = std::conditional_t<kDomain == Domain::Floating, OutputLanes<C>,
                                      Eigen::Map<Eigen::Array<C, Eigen::Dynamic, 1>>>;
    Output y(out, count);
    expression_(InputLanes<C>(in[kIndex], count)..., y);
  }

  Expression expression_;
};

/// `map` of an expression for floating dtypes.
template <std::size_t kInputs, class Expression>
void map_floating(const std::array<Tensor, kInputs>& inputs, const Tensor& out,
                  Expression expression) {
  map<kInputs>(inputs, out,
               ExpressionFunction<kInputs, Domain::Floating, Expression>(std::move(expression)));
}

/// `map` of an expression for all dtypes, made of single operations.
template <std::size_t kInputs, class Expression>
void map_all(const std::array<Tensor, kInputs>& inputs, const Tensor& out, Expression expression) {
  map<kInputs>(inputs, out,
               ExpressionFunction<kInputs, Domain::All, Expression>(std::move(expression)));
}

/// The element type of an Eigen array expression.
template <class Array>
using element_type = typename std::decay_t<Array>::Scalar;

}  // namespace tenon::ops::cpu
