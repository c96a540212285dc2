#include "problem.h"

#include <algorithm>
#include <cmath>

#include "normal.h"
#include "timing.h"

namespace bench {

using namespace tenon;

Precision parse_precision(const std::string& name) {
  if (name == "tf32") return {name, DType::Float32, Float32Precision::Tf32};
  TENON_CHECK(name == "float32" || name == "bfloat16" || name == "float16", "--precision: \"", name,
              "\" is not one of tf32, float32, bfloat16, float16");
  return {name, parse_dtype(name), Float32Precision::Float32};
}

Problem::Problem(const BlockShape& shape, const Precision& precision, Device device, bool train)
    : shape_(shape),
      precision_(precision),
      device_(device),
      train_(train),
      epilogue_{.mish = true, .add = 0.5, .min = -1, .max = 1, .scale = 2} {
  const double taps = static_cast<double>(shape.in_channels * shape.kernel * shape.kernel) /
                      static_cast<double>(shape.stride * shape.stride);
  const std::size_t count = rotation(device, floor_bytes());
  for (std::size_t i = 0; i < count; ++i) {
    InputSet set;
    set.x = normal(shape.x(), 1, precision.dtype, device);
    set.weight =
        normal(shape.weight(), 1 / std::sqrt(std::max(taps, 1.0)), precision.dtype, device);
    set.bias = normal({shape.out_channels}, 1, precision.dtype, device);
    if (train) {
      set.grad_out = normal(shape.z(), 1, precision.dtype, device);
      for (const Tensor& leaf : {set.x, set.weight, set.bias}) leaf.requires_grad_();
    }
    sets_.push_back(std::move(set));
  }
}

std::int64_t Problem::bytes_of(const Shape& shape) const {
  return shape.numel() * static_cast<std::int64_t>(item_size(precision_.dtype));
}

std::int64_t Problem::floor_bytes() const {
  const std::int64_t inputs =
      bytes_of(shape_.x()) + bytes_of(shape_.weight()) + bytes_of({shape_.out_channels});
  const std::int64_t forward = inputs + bytes_of(shape_.z());
  return train_ ? forward + 2 * inputs + bytes_of(shape_.z()) : forward;
}

double Problem::flop() const { return shape_.forward_flop() * (train_ ? 3 : 1); }

}  // namespace bench
