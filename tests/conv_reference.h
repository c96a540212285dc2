// Convolutions by the definition, in float64 and one product at a time: what the ops are compared
// with. Uses nothing of the library's kernels.
#pragma once

#include <vector>

#include "tenon/core/factories.h"
#include "tenon/ops/conv.h"

namespace tenon::test {

/// The values of a float tensor as doubles, with its shape.
struct Image {
  Shape shape;
  std::vector<double> values;

  explicit Image(const Tensor& tensor)
      : shape(tensor.shape()), values(tensor.to_vector<double>()) {}
  explicit Image(const Shape& zeros)
      : shape(zeros), values(static_cast<std::size_t>(zeros.numel())) {}

  double& at(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
    return values[static_cast<std::size_t>(((a * shape[1] + b) * shape[2] + c) * shape[3] + d)];
  }
  Tensor tensor() const { return tenon::tensor(values, shape); }
};

/// Calls visit(n, channel of x, channel of y, iy, ix, oy, ox, ky, kx, channel within the group of
/// the weight's second dimension) for every product of conv_transpose2d.
template <class Visitor>
void for_each_transposed_product(const Shape& x, const Shape& weight, const Shape& y,
                                 const ops::ConvTranspose2dOptions& o, Visitor&& visit) {
  const std::int64_t group_in = x[1] / o.groups;
  const std::int64_t group_out = weight[1];
  for (std::int64_t n = 0; n < x[0]; ++n) {
    for (std::int64_t ci = 0; ci < x[1]; ++ci) {
      for (std::int64_t co = 0; co < group_out; ++co) {
        for (std::int64_t iy = 0; iy < x[2]; ++iy) {
          for (std::int64_t ix = 0; ix < x[3]; ++ix) {
            for (std::int64_t ky = 0; ky < weight[2]; ++ky) {
              for (std::int64_t kx = 0; kx < weight[3]; ++kx) {
                const std::int64_t oy = iy * o.stride.h - o.padding.h + ky * o.dilation.h;
                const std::int64_t ox = ix * o.stride.w - o.padding.w + kx * o.dilation.w;
                if (oy < 0 || oy >= y[2] || ox < 0 || ox >= y[3]) continue;
                visit(n, ci, ci / group_in * group_out + co, iy, ix, oy, ox, ky, kx, co);
              }
            }
          }
        }
      }
    }
  }
}

inline Shape transposed_shape(const Shape& x, const Shape& weight,
                              const ops::ConvTranspose2dOptions& o) {
  return {x[0], weight[1] * o.groups,
          (x[2] - 1) * o.stride.h - 2 * o.padding.h + o.dilation.h * (weight[2] - 1) +
              o.output_padding.h + 1,
          (x[3] - 1) * o.stride.w - 2 * o.padding.w + o.dilation.w * (weight[3] - 1) +
              o.output_padding.w + 1};
}

/// y = conv_transpose2d(x, weight, bias); `bias` may be undefined.
inline Image reference_conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                        const ops::ConvTranspose2dOptions& options) {
  Image image(x);
  Image kernel(weight);
  Image y(transposed_shape(x.shape(), weight.shape(), options));
  if (bias.defined()) {
    const std::vector<double> add = bias.to_vector<double>();
    const std::int64_t plane = y.shape[2] * y.shape[3];
    for (std::size_t i = 0; i < y.values.size(); ++i) {
      y.values[i] = add[i / static_cast<std::size_t>(plane) % add.size()];
    }
  }
  for_each_transposed_product(x.shape(), weight.shape(), y.shape, options,
                              [&](auto n, auto ci, auto channel, auto iy, auto ix, auto oy, auto ox,
                                  auto ky, auto kx, auto co) {
                                y.at(n, channel, oy, ox) +=
                                    image.at(n, ci, iy, ix) * kernel.at(ci, co, ky, kx);
                              });
  return y;
}

/// The gradients of sum(y·grad) with respect to x, weight and bias.
struct ReferenceGradients {
  Image x;
  Image weight;
  std::vector<double> bias;
};

inline ReferenceGradients reference_conv_transpose2d_gradients(
    const Tensor& x, const Tensor& weight, Image grad, const ops::ConvTranspose2dOptions& options) {
  Image image(x);
  Image kernel(weight);
  ReferenceGradients result{Image(x.shape()), Image(weight.shape()),
                            std::vector<double>(static_cast<std::size_t>(grad.shape[1]))};
  for_each_transposed_product(x.shape(), weight.shape(), grad.shape, options,
                              [&](auto n, auto ci, auto channel, auto iy, auto ix, auto oy, auto ox,
                                  auto ky, auto kx, auto co) {
                                const double g = grad.at(n, channel, oy, ox);
                                result.x.at(n, ci, iy, ix) += g * kernel.at(ci, co, ky, kx);
                                result.weight.at(ci, co, ky, kx) += g * image.at(n, ci, iy, ix);
                              });
  const std::int64_t plane = grad.shape[2] * grad.shape[3];
  for (std::size_t i = 0; i < grad.values.size(); ++i) {
    result.bias[i / static_cast<std::size_t>(plane) % result.bias.size()] += grad.values[i];
  }
  return result;
}

/// y = conv2d(x, weight, bias); `bias` may be undefined.
inline Image reference_conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
                              const ops::Conv2dOptions& o, const Shape& y_shape) {
  Image image(x);
  Image kernel(weight);
  Image y(y_shape);
  const std::vector<double> add =
      bias.defined() ? bias.to_vector<double>() : std::vector<double>(weight.size(0));
  const std::int64_t group_out = weight.size(0) / o.groups;
  for (std::int64_t n = 0; n < y_shape[0]; ++n) {
    for (std::int64_t co = 0; co < y_shape[1]; ++co) {
      for (std::int64_t oy = 0; oy < y_shape[2]; ++oy) {
        for (std::int64_t ox = 0; ox < y_shape[3]; ++ox) {
          double sum = add[static_cast<std::size_t>(co)];
          for (std::int64_t ci = 0; ci < weight.size(1); ++ci) {
            for (std::int64_t ky = 0; ky < weight.size(2); ++ky) {
              for (std::int64_t kx = 0; kx < weight.size(3); ++kx) {
                const std::int64_t iy = oy * o.stride.h - o.padding.h + ky * o.dilation.h;
                const std::int64_t ix = ox * o.stride.w - o.padding.w + kx * o.dilation.w;
                if (iy < 0 || iy >= x.size(2) || ix < 0 || ix >= x.size(3)) continue;
                sum += image.at(n, co / group_out * weight.size(1) + ci, iy, ix) *
                       kernel.at(co, ci, ky, kx);
              }
            }
          }
          y.at(n, co, oy, ox) = sum;
        }
      }
    }
  }
  return y;
}

}  // namespace tenon::test
