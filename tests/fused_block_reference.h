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

/// Case number `index`, the same on every machine.
inline BlockCase draw_block(std::uint64_t index) {
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
    if (is_well_posed(block, reference_block(block))) return block;
  }
  throw std::runtime_error("no inputs found for this case");
}

inline void PrintTo(const BlockCase& block, std::ostream* out) {
  *out << "x " << block.x.shape() << ", weight " << block.weight.shape()
       << (block.bias.defined() ? ", bias, " : ", ")
       << ops::ConvTranspose2dEpilogueOp(block.options, block.epilogue).attributes();
}

}  // namespace tenon::test
