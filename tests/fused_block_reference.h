// The fused block by its definition in float64, and drawn cases to compare with it.
#pragma once

#include <algorithm>
#include <cmath>
#include <ostream>
#include <stdexcept>

#include "compare.h"
#include "conv_reference.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::test {

inline double softplus(double y) { return y > 30 ? y : std::log1p(std::exp(y)); }
inline double mish(double y) { return y * std::tanh(softplus(y)); }
inline double mish_slope(double y) {
  const double gate = std::tanh(softplus(y));
  return gate + y / (1 + std::exp(-y)) * (1 - gate * gate);
}

/// One call of the fused block; inputs in float64 with values that float32 holds.
struct BlockCase {
  Tensor x, weight, bias, grad_out;  // bias may be undefined
  ops::ConvTranspose2dOptions options;
  ops::Epilogue epilogue;
};

/// The result, and the gradients of sum(z·grad_out).
struct BlockReference {
  Image y;  // of the convolution
  Image z;
  Image grad_y;  // the gradient of y
  ReferenceGradients gradients;
};

/// mish(y) + add, which the clamp limits.
inline double before_clamp(const ops::Epilogue& epilogue, double y) {
  return (epilogue.mish ? mish(y) : y) + epilogue.add;
}

inline BlockReference reference_block(const BlockCase& block) {
  const ops::Epilogue& e = block.epilogue;
  const Image y = reference_conv_transpose2d(block.x, block.weight, block.bias, block.options);
  Image z = y;
  Image grad(block.grad_out);
  for (std::size_t i = 0; i < z.values.size(); ++i) {
    const double value = before_clamp(e, y.values[i]);
    const bool inside =
        e.gradient_at_bounds ? value >= e.min && value <= e.max : value > e.min && value < e.max;
    z.values[i] = std::min(std::max(value, e.min), e.max) * e.scale;
    const double slope = e.scale * (e.mish ? mish_slope(y.values[i]) : 1);
    grad.values[i] *= inside || !e.clamps() ? slope : 0;
  }
  return {y, z, grad,
          reference_conv_transpose2d_gradients(block.x, block.weight, grad, block.options)};
}

/// Draws whole numbers and choices from a seed.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : generator_(seed) {}

  /// Uniform in low … high.
  std::int64_t roll(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(generator_.next() %
                                           static_cast<std::uint32_t>(high - low + 1));
  }
  bool chance(int percent) { return roll(1, 100) <= percent; }
  double pick(std::initializer_list<double> values) {
    return values.begin()[roll(0, static_cast<std::int64_t>(values.size()) - 1)];
  }
  Pair pair(std::int64_t low, std::int64_t high) { return {roll(low, high), roll(low, high)}; }

 private:
  Generator generator_;
};

inline ops::Epilogue draw_epilogue(Dice& dice) {
  ops::Epilogue e;
  e.mish = dice.chance(90);
  e.add = dice.pick({0, 0.5, -0.5, 1.25, -0.75});
  e.scale = dice.pick({1, 2, 0.25, -1.5, -1, 0});
  e.gradient_at_bounds = dice.chance(30);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  switch (dice.roll(0, 5)) {
    case 0:
      break;
    case 1:
      e.min = -0.25;
      break;
    case 2:
      e.max = 0.75;
      break;
    case 3:
      e.min = -1.5;
      e.max = -0.125;
      break;
    case 4:
      e.min = -kInfinity;
      e.max = -0.0625;
      break;
    default:
      e.min = -1;
      e.max = 1;
  }
  return e;
}

/// Sizes and options of case number `index`; about every fifth has one channel or batch 1.
struct BlockSizes {
  Shape x, weight, y;
  bool bias;
  ops::ConvTranspose2dOptions options;
};

inline BlockSizes draw_sizes(Dice& dice) {
  for (;;) {
    BlockSizes s;
    s.options.groups = dice.chance(60) ? 1 : dice.roll(2, 3);
    s.options.stride = dice.pair(1, 4);
    s.options.dilation = dice.chance(60) ? Pair(1) : dice.pair(1, 3);
    const Pair kernel = dice.chance(40) ? Pair(dice.roll(1, 7)) : dice.pair(1, 7);
    s.options.output_padding = {
        dice.roll(0, std::max(s.options.stride.h, s.options.dilation.h) - 1),
        dice.roll(0, std::max(s.options.stride.w, s.options.dilation.w) - 1)};
    s.options.padding = {dice.roll(0, s.options.dilation.h * (kernel.h - 1) / 2 + 1),
                         dice.roll(0, s.options.dilation.w * (kernel.w - 1) / 2 + 1)};
    const bool one_channel = dice.chance(20);
    const std::int64_t in = one_channel ? 1 : dice.roll(1, 4);
    const std::int64_t out = one_channel ? 1 : dice.roll(1, 4);
    s.x = {dice.chance(40) ? 1 : dice.roll(2, 3), in * s.options.groups, dice.roll(1, 6),
           dice.roll(1, 6)};
    s.weight = {in * s.options.groups, out, kernel.h, kernel.w};
    s.bias = dice.chance(75);
    s.y = transposed_shape(s.x, s.weight, s.options);
    if (s.y[2] > 0 && s.y[3] > 0 && s.y.numel() < 6000) return s;
  }
}

/// True when rounding decides nothing. The gradient jumps where mish(y) + add meets a bound, so
/// that an element within rounding of one may rightly fall on either side. And a sum whose terms
/// cancel has no relative accuracy for any way of adding float32 numbers.
inline bool is_well_posed(const BlockCase& block, const BlockReference& reference) {
  const ops::Epilogue& e = block.epilogue;
  double largest = 1;
  for (const double y : reference.y.values) largest = std::max(largest, std::abs(y));
  for (const double y : reference.y.values) {
    const double value = before_clamp(e, y);
    const double distance = std::min(std::abs(value - e.min), std::abs(value - e.max));
    if (distance < 1e-5 * largest) return false;
  }
  const auto norm = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value * value;
    return std::sqrt(sum);
  };
  // Of the gradients the bias's has the fewest numbers to average over.
  return norm(reference.gradients.bias) >= 0.1 * norm(reference.grad_y.values);
}

/// The convolution of `block` without the bias, of the result with it.
inline std::vector<double> without_bias(const BlockCase& block, const Image& y) {
  std::vector<double> values = y.values;
  if (!block.bias.defined()) return values;
  const std::vector<double> bias = block.bias.to_vector<double>();
  const auto plane = static_cast<std::size_t>(y.shape[2] * y.shape[3]);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] -= bias[i / plane % bias.size()];
  return values;
}

/// An arithmetic that is coarser than float32: what it rounds to, and how wrong results may be.
struct CoarsePrecision {
  const char* name;
  DType dtype;
  int bits;  // of the significand
  double tolerance;

  /// The largest relative error of one rounding.
  double unit() const { return std::ldexp(1, -bits); }
  /// The nearest value that the arithmetic reads as it is.
  Tensor round(const Tensor& values) const {
    std::vector<double> list = values.to_vector<double>();
    for (double& value : list) {
      int exponent = 0;
      const double fraction = std::frexp(value, &exponent);
      value = std::ldexp(std::nearbyint(std::ldexp(fraction, bits)), exponent - bits);
    }
    return tensor(list, values.shape()).to(dtype).to(DType::Float64);
  }
};

/// Takes the gradient from the elements that `precision` cannot place on one side of a bound: the
/// gradient jumps there, and one element on the other side is an error beyond any bound on
/// rounding. An implementation may round the convolution's result to `precision`, so that mish(y) +
/// add is off by mish' <= 1.1 times that, beside what sums of float32 are off by. With thousands of
/// elements there are always some that close to a bound, however often one draws; z is continuous
/// there and is compared everywhere.
inline void clear_undecided(BlockCase& block, const Image& y, const CoarsePrecision& precision) {
  const std::vector<double> convolved = without_bias(block, y);
  double largest = 1;
  for (const double value : y.values) largest = std::max(largest, std::abs(value));
  std::vector<double> grad = block.grad_out.to_vector<double>();
  for (std::size_t i = 0; i < grad.size(); ++i) {
    const double value = before_clamp(block.epilogue, y.values[i]);
    const double distance =
        std::min(std::abs(value - block.epilogue.min), std::abs(value - block.epilogue.max));
    const double margin = 1.1 * precision.unit() * std::abs(convolved[i]) + 1e-5 * largest;
    if (distance < margin) grad[i] = 0;
  }
  block.grad_out = tensor(grad, block.grad_out.shape());
}

inline Tensor squared(const Tensor& values) {
  std::vector<double> list = values.to_vector<double>();
  for (double& value : list) value *= value;
  return tensor(list, values.shape());
}

/// True when no sum cancels: each result is at least half as long as the root of the sum of its
/// terms' squares, so that a relative error of the terms is at most doubled.
inline bool is_conditioned(const BlockCase& block, const BlockReference& reference) {
  const auto sum_of_squares = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value * value;
    return sum;
  };
  const auto sum_of = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum;
  };
  const ops::Epilogue& e = block.epilogue;
  const std::vector<double> convolved = without_bias(block, reference.y);
  double z_terms = 0;
  for (std::size_t i = 0; i < convolved.size(); ++i) {
    const double value = before_clamp(e, reference.y.values[i]);
    if (value <= e.min || value >= e.max) continue;
    const double slope = e.scale * (e.mish ? mish_slope(reference.y.values[i]) : 1);
    z_terms += slope * slope * convolved[i] * convolved[i];
  }
  const ReferenceGradients terms = reference_conv_transpose2d_gradients(
      squared(block.x), squared(block.weight), Image(squared(reference.grad_y.tensor())),
      block.options);
  const ReferenceGradients& results = reference.gradients;
  return 4 * sum_of_squares(reference.z.values) >= z_terms &&
         4 * sum_of_squares(results.x.values) >= sum_of(terms.x.values) &&
         4 * sum_of_squares(results.weight.values) >= sum_of(terms.weight.values) &&
         4 * sum_of_squares(results.bias) >= sum_of(terms.bias);
}

/// Draws case number `index` until `accept(block)`, which may change the values, agrees.
template <class Accept>
BlockCase draw_block_until(std::uint64_t index, Accept&& accept) {
  Dice dice(0x7e40 + index);
  const BlockSizes sizes = draw_sizes(dice);
  BlockCase block;
  block.options = sizes.options;
  block.epilogue = draw_epilogue(dice);
  const double terms =
      static_cast<double>(sizes.x[1] / sizes.options.groups * sizes.weight[2] * sizes.weight[3]) /
      static_cast<double>(sizes.options.stride.h * sizes.options.stride.w);
  for (std::uint64_t attempt = 0; attempt < 1000; ++attempt) {
    Generator generator(1 + index + 1000 * attempt);
    const auto draw = [&](const Shape& shape, double spread) {
      const Tensor values = randn(shape, {}, generator).to(DType::Float64);
      std::vector<double> list = values.to_vector<double>();
      for (double& value : list) value = static_cast<float>(value * spread);
      return tensor(list, shape);
    };
    block.x = draw(sizes.x, 1);
    block.weight = draw(sizes.weight, 1 / std::sqrt(std::max(terms, 1.0)));
    block.bias = sizes.bias ? draw({sizes.y[1]}, 0.5) : Tensor();
    block.grad_out = draw(sizes.y, 1);
    if (accept(block)) return block;
  }
  throw std::runtime_error("no inputs found for this case");
}

/// Case number `index`, the same on every machine.
inline BlockCase draw_block(std::uint64_t index) {
  return draw_block_until(
      index, [](const BlockCase& block) { return is_well_posed(block, reference_block(block)); });
}

/// Case number `index` with values that `precision` holds and can be held to.
inline BlockCase draw_block(std::uint64_t index, const CoarsePrecision& precision) {
  return draw_block_until(index, [&](BlockCase& block) {
    block.x = precision.round(block.x);
    block.weight = precision.round(block.weight);
    if (block.bias.defined()) block.bias = precision.round(block.bias);
    block.grad_out = precision.round(block.grad_out);
    clear_undecided(block, reference_block(block).y, precision);
    return is_conditioned(block, reference_block(block));
  });
}

inline void PrintTo(const BlockCase& block, std::ostream* out) {
  *out << "x " << block.x.shape() << ", weight " << block.weight.shape()
       << (block.bias.defined() ? ", bias, " : ", ")
       << ops::ConvTranspose2dEpilogueOp(block.options, block.epilogue).attributes();
}

}  // namespace tenon::test
