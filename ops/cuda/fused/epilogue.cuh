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
__device__ inline float fast_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
__device__ inline float fast_exp(float x) {
  constexpr float kLog2E = 1.4426950408889634f;
  return fast_exp2(x * kLog2E);
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
        clamps_(epilogue.clamps()),
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
    return (inside || !clamps_ ? grad : C(0)) * slope;
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

  C add_;
  C min_;
  C max_;
  C scale_;
  bool clamps_;
  bool at_bounds_;  // whether the clamp passes a gradient there
};

/// The same behind products of TF32 or 16-bit numbers, with mish, in fewer instructions. What is
/// coarser is tanh(softplus(y)), whose error is some 10^-7 of one where it is near zero: far below
/// what the operands' rounding does to y.
///
/// With e = exp(y) and s = e + 1: tanh(softplus(y)) = 1 - 2 / (s² + 1), and its derivative is
/// 4·e·s / (s² + 1)².
class CoarseMishClampScale {
 public:
  explicit CoarseMishClampScale(const Epilogue& epilogue)
      : add_(static_cast<float>(epilogue.add)),
        min_(static_cast<float>(epilogue.min)),
        max_(static_cast<float>(epilogue.max)),
        scale_(static_cast<float>(epilogue.scale)),
        minus_two_scale_(-2 * scale_),
        four_scale_(4 * scale_),
        scaled_add_(scale_ * add_) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    if (!epilogue.clamps() || scale_ == 0) return;
    first_inside_ = scale_ * (scale_ < 0 ? max_ : min_);
    last_inside_ = scale_ * (scale_ < 0 ? min_ : max_);
    if (epilogue.gradient_at_bounds) return;
    first_inside_ = std::nextafter(first_inside_, kInfinity);
    last_inside_ = std::nextafter(last_inside_, -kInfinity);
  }

  /// z from y.
  __device__ float operator()(float y) const {
    const float value = fmaf(y, fmaf(-2.0f, Exponential(y).inverse, 1.0f), add_);
    return min_or_nan(max_or_nan(value, min_), max_) * scale_;
  }

  /// The gradient of y from that of z. A NaN passes it, as in PyTorch, and becomes a NaN.
  __device__ float gradient(float y, float grad) const {
    // All times the scale, which then takes no multiplication of its own. (Which in the forward is
    // slower, though there are fewer instructions.)
    const Exponential exponential(y);
    const float gate = fmaf(minus_two_scale_, exponential.inverse, scale_);
    const float value = fmaf(y, gate, scaled_add_);
    const bool outside = (value < first_inside_) | (value > last_inside_);
    return (outside ? 0.0f : grad) * fmaf(four_scale_ * y, exponential.quarter_of_slope(), gate);
  }

 private:
  struct Exponential {
    float e;
    float s;
    float inverse;  // of s² + 1

    __device__ explicit Exponential(float y) {
      // Beyond 2^63.5 the inverse is zero, s² not yet infinite.
      constexpr float kLog2E = 1.4426950408889634f;
      e = fast_exp2(fminf(y * kLog2E, 63.5f));
      s = e + 1.0f;
      inverse = fast_reciprocal(fmaf(s, s, 1.0f));
    }
    /// A quarter of the derivative of tanh(softplus(y)).
    __device__ float quarter_of_slope() const { return (e * inverse) * (s * inverse); }
  };

  float add_;
  float min_;
  float max_;
  float scale_;
  float minus_two_scale_;  // worked out before, lest registers hold them
  float four_scale_;
  float scaled_add_;
  // Results between which the clamp passes a gradient, both included. Without a clamp, and with a
  // scale of zero, all are.
  float first_inside_ = -std::numeric_limits<float>::infinity();
  float last_inside_ = std::numeric_limits<float>::infinity();
};

/// No chain: what the data gradient has behind its sums.
struct NoChain {
  explicit NoChain(const Epilogue& /*epilogue*/) {}
  __device__ float operator()(float sum) const { return sum; }
};

}  // namespace tenon::ops::cuda
