// Canonicalisation: one spelling for what can be spelled in several ways.
#include <cmath>
#include <limits>

#include "tenon/core/structural.h"
#include "tenon/graph/passes.h"
#include "tenon/ops/activation.h"
#include "tenon/ops/binary.h"

namespace tenon::graph {
namespace {

/// Whether `number` is in the range where `dtype` has its full precision.
bool is_normal_in(DType dtype, double number) {
  const double size = std::abs(number);
  switch (dtype) {
    case DType::Float16:
      return size >= 6.103515625e-5 && size <= 65504;
    case DType::BFloat16:
    case DType::Float32:
      return size >= std::numeric_limits<float>::min() && size <= std::numeric_limits<float>::max();
    default:
      return std::isnormal(number);
  }
}

/// (x + a) + b. Only for a and b of one sign: opposite ones may be there to round x on purpose.
Tensor fold_sum(const Captured& c) {
  const double a = c.scalar("a", 0);
  const double b = c.scalar("b", 0);
  if (!is_floating(c["x"].dtype()) || std::signbit(a) != std::signbit(b)) return {};
  if (!is_normal_in(c["x"].dtype(), a + b)) return {};
  return ops::add(c["x"], a + b);
}

/// (x · a) · b. The product must be a number of the dtype, or the fold would overflow or lose
/// precision where two steps do not.
Tensor fold_product(const Captured& c) {
  const double product = c.scalar("a", 1) * c.scalar("b", 1);
  if (!is_floating(c["x"].dtype()) || !is_normal_in(c["x"].dtype(), product)) return {};
  return ops::mul(c["x"], product);
}

/// x - s = x + (-s), exactly.
Tensor subtraction(const Captured& c) {
  if (!is_floating(c["x"].dtype())) return {};
  return ops::add(c["x"], -c.scalar("s", 0));
}

/// x / s = x · (1 / s), exactly when s is a power of two.
Tensor division(const Captured& c) {
  const double s = c.scalar("s", 1);
  int exponent = 0;
  const bool is_power = std::abs(std::frexp(s, &exponent)) == 0.5;
  if (!is_power || !is_normal_in(c["x"].dtype(), s) || !is_normal_in(c["x"].dtype(), 1 / s)) {
    return {};
  }
  return ops::mul(c["x"], 1 / s);
}

/// x + 0 is x for integers, but for floats it turns -0 into 0; only x + (-0) changes nothing.
Tensor zero_sum(const Captured& c) {
  const double s = c.scalar("s", 1);
  if (s != 0 || (is_floating(c["x"].dtype()) && !std::signbit(s))) return {};
  return c["x"];
}

Tensor unit_product(const Captured& c) { return c.scalar("s", 0) == 1 ? c["x"] : Tensor(); }

Tensor outer_reshape(const Captured& c) {
  return c["x"].reshape(c.op<ReshapeOp>("reshape").shape());
}

Tensor unchanged_shape(const Captured& c) {
  return c["x"].shape() == c.op<ReshapeOp>("reshape").shape() ? c["x"] : Tensor();
}

}  // namespace

std::vector<Row> canonical_rows() {
  const Pattern x = any("x");
  const Pattern fixed = captured("fixed");
  const Pattern varying = computed("varying");
  return {
      {"constant summand to the right", op("add", {fixed, varying}),
       [](const Captured& c) { return ops::add(c["varying"], c["fixed"]); }},
      {"constant factor to the right", op("mul", {fixed, varying}),
       [](const Captured& c) { return ops::mul(c["varying"], c["fixed"]); }},
      {"subtraction as a sum", op("sub", x, scalar("s")), subtraction},
      {"division by a power of two", op("div", x, scalar("s")), division},
      {"sum of sums", add(add(x, scalar("a")), scalar("b")), fold_sum},
      {"product of products", mul(mul(x, scalar("a")), scalar("b")), fold_product},
      {"sum with nothing", op("add", x, scalar("s")), zero_sum},
      {"product with one", mul(x, scalar("s")), unit_product},
      {"mish spelled out", mul(x, tanh(softplus(x))),
       [](const Captured& c) { return ops::mish(c["x"]); }},
      {"reshape of a reshape", op("reshape", {op("reshape", {x})}), outer_reshape},
      {"reshape to the same shape", op("reshape", {x}), unchanged_shape},
  };
}

}  // namespace tenon::graph
