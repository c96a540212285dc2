// The problems that the benchmark knows by name, and those given by their numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tenon/core/shape.h"
#include "tenon/ops/conv.h"

namespace bench {

/// One fused block: x [batch, in_channels, height, width] through a transposed convolution with a
/// square kernel, then the pointwise chain.
struct BlockShape {
  std::string name;
  std::int64_t batch;
  std::int64_t in_channels;
  std::int64_t height;
  std::int64_t width;
  std::int64_t out_channels;
  std::int64_t kernel;
  std::int64_t stride;
  std::int64_t padding;
  std::int64_t output_padding;

  tenon::ops::ConvTranspose2dOptions options() const;
  tenon::Shape x() const;
  tenon::Shape weight() const;
  tenon::Shape z() const;
  /// Multiplications and additions of the convolution, those that the padding cuts off included.
  double forward_flop() const;
  /// "128,64,128,128,64,3,2,1,1": what `parse_shape` takes.
  std::string numbers() const;
};

/// mission, dcgan8, dcgan32, unet, k5, s1, small.
const std::vector<BlockShape>& known_shapes();

/// A known name, or N,Cin,H,W,Cout,k,s,p,op. Throws `tenon::Error` saying what is wrong.
BlockShape parse_shape(const std::string& text);

}  // namespace bench
