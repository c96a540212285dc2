// The pointwise chain behind a fused convolution, on runs of values in the cache. A chain is a
// class with these two functions; the tile kernels take it as a template argument, so that another
// chain needs no other kernel.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "tenon/ops/cpu/array_math.h"
#include "tenon/ops/cpu/lanes.h"
#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cpu {

/// clamp(mish(y) + add, min, max)·scale and its gradient, on double; float has SimdChain.
///
/// With e = exp(min(y, 20)) and n = e² + 2e: mish(y) = y·n / (n + 2), whose derivative is
/// n / (n + 2) + y·4e(e + 1) / (n + 2)². Infinities and NaN give what PyTorch's chain gives.
template <class T>
class MishClampScale {
 public:
  explicit MishClampScale(const Epilogue& epilogue)
      : mish_(epilogue.mish),
        clamps_(epilogue.clamps()),
        add_(static_cast<T>(epilogue.add)),
        min_(static_cast<T>(epilogue.min)),
        max_(static_cast<T>(epilogue.max)),
        scale_(static_cast<T>(epilogue.scale)),
        first_inside_(epilogue.gradient_at_bounds ? min_ : std::nextafter(min_, kInfinity)),
        last_inside_(epilogue.gradient_at_bounds ? max_ : std::nextafter(max_, -kInfinity)) {}

  /// Replaces `count` values y by z.
  void apply(T* values, std::int64_t count) const {
    alignas(kLaneAlignment) T powers[kRun];
    for (std::int64_t first = 0; first < count; first += kRun) {
      const std::int64_t run = std::min(kRun, count - first);
      T* y = values + first;
      if (mish_) {
        exponentials(y, run, powers);
        for (std::int64_t i = 0; i < run; ++i) {
          const T n = powers[i] * (powers[i] + T(2));
          y[i] = y[i] * (n / (n + T(2)));
        }
      }
      // Copies, so that the loop vectorises: what it writes could be the members.
      const T add = add_, min = min_, max = max_, scale = scale_;
      for (std::int64_t i = 0; i < run; ++i) {
        const T value = y[i] + add;
        const T raised = value < min ? min : value;
        y[i] = (raised > max ? max : raised) * scale;
      }
    }
  }

  /// Replaces `count` gradients of z by those of y, given the values y.
  void gradient(const T* values, T* gradients, std::int64_t count) const {
    alignas(kLaneAlignment) T slopes[kRun];
    T activated[kRun];
    for (std::int64_t first = 0; first < count; first += kRun) {
      const std::int64_t run = std::min(kRun, count - first);
      const T* y = values + first;
      T* g = gradients + first;
      if (mish_) mish_with_slopes(y, run, activated, slopes);
      pass_clamp(mish_ ? activated : y, run, g);
      for (std::int64_t i = 0; mish_ && i < run; ++i) g[i] *= slopes[i];
    }
  }

 private:
  static constexpr std::int64_t kRun = 256;
  static_assert(kRun % kLanes == 0);

  /// exp(min(y, 20)) of `count` values; `powers` is aligned and has room for a multiple of kLanes.
  /// The backward meets the values at other places than the forward and must find them on the same
  /// side of a bound.
  static void exponentials(const T* y, std::int64_t count, T* powers) {
    const std::int64_t whole = count - count % kLanes;
    OutputLanes<T>(powers, whole) = exponential(InputLanes<T>(y, whole).min(T(20)));
    if (whole == count) return;
    T last[kLanes] = {};
    std::copy(y + whole, y + count, last);
    OutputLanes<T>(powers + whole, kLanes) = exponential(InputLanes<T>(last, kLanes).min(T(20)));
  }

  /// mish(y), rounded as in `apply`, so that both see the same side of a bound, and mish'(y).
  static void mish_with_slopes(const T* y, std::int64_t count, T* activated, T* slopes) {
    exponentials(y, count, slopes);
    for (std::int64_t i = 0; i < count; ++i) {
      const T e = slopes[i];
      const T n = e * (e + T(2));
      const T gate = n / (n + T(2));
      // Above 20 the slope of the gate is below the last digit; zero makes mish'(∞) the NaN that
      // PyTorch has there.
      const T slope = T(4) * e * (e + T(1)) / ((n + T(2)) * (n + T(2)));
      activated[i] = y[i] * gate;
      slopes[i] = gate + y[i] * (y[i] >= T(20) ? T(0) : slope);
    }
  }

  /// Gradients of z become those of the clamp's argument, which is activated + add.
  void pass_clamp(const T* activated, std::int64_t count, T* gradients) const {
    // Copies, so that the loops vectorise: what they write could be the members.
    const T add = add_, scale = scale_, first = first_inside_, last = last_inside_;
    if (!clamps_) {
      for (std::int64_t i = 0; i < count; ++i) gradients[i] *= scale;
      return;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const T value = activated[i] + add;
      const T passed = value >= first ? gradients[i] * scale : T(0);
      gradients[i] = value <= last ? passed : T(0);
    }
  }

  static constexpr T kInfinity = std::numeric_limits<T>::infinity();

  bool mish_;
  bool clamps_;
  T add_;
  T min_;
  T max_;
  T scale_;
  T first_inside_;  // the values between which the clamp passes a gradient, both included
  T last_inside_;
};

/// The chain as the inner loops take it.
inline simd::Chain chain_of(const Epilogue& epilogue) {
  const auto min = static_cast<float>(epilogue.min);
  const auto max = static_cast<float>(epilogue.max);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  return {.mish = epilogue.mish,
          .clamps = epilogue.clamps(),
          .add = static_cast<float>(epilogue.add),
          .min = min,
          .max = max,
          .scale = static_cast<float>(epilogue.scale),
          .first_inside = epilogue.gradient_at_bounds ? min : std::nextafter(min, kInfinity),
          .last_inside = epilogue.gradient_at_bounds ? max : std::nextafter(max, -kInfinity)};
}

/// The same function on float, by the inner loops: whatever computes a value, forward or backward,
/// on many channels or on one, rounds it alike.
class SimdChain {
 public:
  explicit SimdChain(const Epilogue& epilogue)
      : chain_(chain_of(epilogue)), kernels_(simd::kernels()) {}

  /// Replaces `count` values y by z.
  void apply(float* values, std::int64_t count) const { kernels_.apply(chain_, values, count); }

  /// Replaces `count` gradients of z by those of y, given the values y.
  void gradient(const float* values, float* gradients, std::int64_t count) const {
    const std::int64_t whole = count - count % kernels_.lanes;
    kernels_.gradient(chain_, values, gradients, whole);
    // The loop reads whole vectors, and behind the values there may be nothing.
    float last[kLanes] = {};
    std::copy(values + whole, values + count, last);
    kernels_.gradient(chain_, last, gradients + whole, count - whole);
  }

 private:
  simd::Chain chain_;
  const simd::Kernels& kernels_;
};

template <class T>
using EpilogueFunction = std::conditional_t<std::is_same_v<T, float>, SimdChain, MishClampScale<T>>;

}  // namespace tenon::ops::cpu
