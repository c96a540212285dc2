// The pointwise chain behind a fused convolution, on one value in a register. A chain is a class
// with these two functions; kernels take it as a template argument, so that another chain needs no
// other kernel.
#pragma once

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

/// clamp(mish(y) + add, min, max)·scale and its gradient; C is float or double, kMish whether mish
/// is there at all.
///
/// With e = exp(min(y, 20)) and n = e² + 2e: mish(y) = y·n / (n + 2), whose derivative is
/// n / (n + 2) + y·4e(e + 1) / (n + 2)². Infinities and NaN give what PyTorch's chain gives.
template <class C, bool kMish>
class MishClampScale {
 public:
  explicit MishClampScale(const Epilogue& epilogue)
      : clamps_(epilogue.clamps()),
        at_bounds_(epilogue.gradient_at_bounds),
        add_(static_cast<C>(epilogue.add)),
        min_(static_cast<C>(epilogue.min)),
        max_(static_cast<C>(epilogue.max)),
        scale_(static_cast<C>(epilogue.scale)) {}

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
    C slope = C(1);
    if constexpr (kMish) {
      const C e = fast_exp(y < C(20) ? y : C(20));
      const C n = e * (e + C(2));
      const C inverse = fast_reciprocal(n + C(2));
      const C gate = n * inverse;  // tanh(softplus(y))
      // Above 20 the gate's slope is below the last digit; zero makes mish'(∞) the NaN that
      // PyTorch has there.
      const C gate_slope = y >= C(20) ? C(0) : C(4) * e * (e + C(1)) * inverse * inverse;
      value = y * gate;
      slope = gate + y * gate_slope;
    }
    value += add_;
    const bool inside = at_bounds_ ? value >= min_ && value <= max_ : value > min_ && value < max_;
    return (inside || !clamps_ ? grad * scale_ : C(0)) * slope;
  }

 private:
  bool clamps_;
  bool at_bounds_;
  C add_;
  C min_;
  C max_;
  C scale_;
};

}  // namespace tenon::ops::cuda
