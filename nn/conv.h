// Convolution layers.
#pragma once

#include "tenon/nn/module.h"
#include "tenon/ops/conv.h"

namespace tenon::nn {

/// `kernel` must be given; `{.kernel = 3, .stride = {2, 1}}`.
struct Conv2dOptions {
  Pair kernel;
  Pair stride = 1;
  Pair padding = 0;
  Pair dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
};

/// ops::conv2d: [N, in, H, W] or [in, H, W] -> [N, out, H', W']. Weight and bias start uniform in
/// ±1/sqrt(in/groups·kH·kW).
class Conv2d : public Module {
 public:
  /// Throws `Error` when a number is below 1 (padding: 0) or the groups do not divide the channels.
  Conv2d(std::int64_t in_channels, std::int64_t out_channels, const Conv2dOptions& options);

  Tensor forward(const Tensor& x) override;
  std::string extra_repr() const override;
  const Conv2dOptions& options() const { return options_; }

  Tensor weight;  ///< [out, in/groups, kH, kW]
  Tensor bias;    ///< [out], or undefined

 private:
  Conv2dOptions options_;
};

/// `kernel` must be given; `{.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}`.
struct ConvTranspose2dOptions {
  Pair kernel;
  Pair stride = 1;
  Pair padding = 0;
  Pair output_padding = 0;
  Pair dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
};

/// ops::conv_transpose2d: [N, in, H, W] or [in, H, W] -> [N, out, H', W']. Weight and bias start
/// uniform in ±1/sqrt(out/groups·kH·kW): PyTorch reads the fan in off the second dimension of the
/// weight, here as well.
class ConvTranspose2d : public Module {
 public:
  /// Throws `Error` as `Conv2d`, and when output_padding is neither below stride nor dilation.
  ConvTranspose2d(std::int64_t in_channels, std::int64_t out_channels,
                  const ConvTranspose2dOptions& options);

  Tensor forward(const Tensor& x) override;
  std::string extra_repr() const override;
  const ConvTranspose2dOptions& options() const { return options_; }

  Tensor weight;  ///< [in, out/groups, kH, kW]
  Tensor bias;    ///< [out], or undefined

 private:
  ConvTranspose2dOptions options_;
};

}  // namespace tenon::nn
