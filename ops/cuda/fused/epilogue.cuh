// The pointwise chain behind a fused convolution, on one value in a register. A chain is a class
// with these two functions; kernels take it as a template argument, so that another chain needs no
// other kernel.
#pragma once

#include <cmath>
#include <limits>

#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cuda {

// exp and reciprocal, as fast as the result's accuracy allows: the hardware's are good to two units
// in the last place, and what they flush to zero is far below the last digit of a result.
__device__ inline float fast_exp(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * kLog2E));
  return result;
}
__device__ inline double fast_exp(double x) { return exp(x); }
__device__ inline float fast_reciprocal(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ inline double fast_reciprocal(double x) { return 1.0 / x; }

// The smaller and the larger number; a NaN if either is.
__device__ inline float min_or_nan(float a, float b) {
  float result;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
__device__ inline double min_or_nan(double a, double b) { return a > b ? b : a; }
__device__ inline float max_or_nan(float a, float b) {
  float result;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
  return result;
}
__device__ inline double max_or_nan(double a, double b) { return a < b ? b : a; }

/// x where `mask` has all bits, 0 where it has none.
__device__ inline float only_if(unsigned mask, float x) {
  return __uint_as_float(__float_as_uint(x) & mask);
}
__device__ inline double only_if(unsigned mask, double x) { return mask != 0 ? x : 0.0; }

/// clamp(mish(y) + add, min, max)·scale and its gradient; C is float or double, kMish whether mish
/// is there at all.
///
/// With e = exp(min(y, 20)) and n = e² + 2e: mish(y) = y·n / (n + 2), whose derivative is
/// n / (n + 2) + y·4e(e + 1) / (n + 2)², where e(e + 1) = n - e. Infinities and NaN give what
/// PyTorch's chain gives.
template <class C, bool kMish>
class MishClampScale {
 public:
  explicit MishClampScale(const Epilogue& epilogue)
      : add_(static_cast<C>(epilogue.add)),
        min_(static_cast<C>(epilogue.min)),
        max_(static_cast<C>(epilogue.max)),
        scale_(static_cast<C>(epilogue.scale)),
        first_inside_(epilogue.gradient_at_bounds ? min_ : std::nextafter(min_, kInfinity)),
        last_inside_(epilogue.gradient_at_bounds ? max_ : std::nextafter(max_, -kInfinity)),
        clamp_mask_(epilogue.clamps() ? ~0U : 0U),
        at_bounds_(epilogue.gradient_at_bounds) {}

  /// z from y.
  __device__ C operator()(C y) const {
    C value = y;
    if constexpr (kMish) {
      const C e = fast_exp(y < C(20) ? y : C(20));
      const C n = e * (e + C(2));
      value = y * (n * fast_reciprocal(n + C(2)));
    }
    value += add_;
    return min_or_nan(max_or_nan(value, min_), max_) * scale_;
  }

  /// The gradient of y from that of z.
  __device__ C gradient(C y, C grad) const {
    C value = y;
    const C slope = slope_and_value(value);
    // Without a clamp there is nothing to compare, and a NaN passes its gradient too.
    const bool inside = at_bounds_ ? value >= min_ && value <= max_ : value > min_ && value < max_;
    return (inside || clamp_mask_ == 0 ? grad : C(0)) * slope;
  }

  /// The same without a branch, of which the compiler makes copies: for long straight runs of it.
  __device__ C straight_gradient(C y, C grad) const {
    C value = y;
    const C slope = slope_and_value(value);
    const C compared = only_if(clamp_mask_, value);
    const bool inside = (compared >= first_inside_) & (compared <= last_inside_);
    return (inside ? grad : C(0)) * slope;
  }

 private:
  /// y becomes what the clamp limits; returns the slope of the chain where the clamp passes it.
  __device__ C slope_and_value(C& y) const {
    C slope = scale_;
    if constexpr (kMish) {
      const C e = fast_exp(y < C(20) ? y : C(20));
      const C n = e * (e + C(2));
      const C inverse = fast_reciprocal(n + C(2));
      const C gate = n * inverse;  // tanh(softplus(y))
      // Above 20 the gate's slope is below the last digit; zero makes mish'(∞) the NaN that
      // PyTorch has there.
      const C quarter = y < C(20) ? (n - e) * (inverse * inverse) : C(0);
      slope *= gate + C(4) * (y * quarter);
      y *= gate;
    }
    y += add_;
    return slope;
  }

  static constexpr C kInfinity = std::numeric_limits<C>::infinity();

  C add_;
  C min_;
  C max_;
  C scale_;
  C first_inside_;  // the values between which the clamp passes a gradient, both included
  C last_inside_;
  unsigned clamp_mask_;  // all bits where there is a clamp
  bool at_bounds_;       // whether the clamp passes a gradient there
};

/// No chain: what the data gradient has behind its sums.
struct NoChain {
  explicit NoChain(const Epilogue& /*epilogue*/) {}
  __device__ float operator()(float sum) const { return sum; }
};

}  // namespace tenon::ops::cuda
