// The pointwise chain behind a fused convolution, on runs of values in the cache. A chain is a
// class with these two functions; the tile kernels take it as a template argument, so that another
// chain needs no other kernel.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tenon/ops/cpu/array_math.h"
#include "tenon/ops/cpu/lanes.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::ops::cpu {

/// clamp(mish(y) + add, min, max)·scale and its gradient; T is float or double.
///
/// With e = exp(min(y, 20)) and n = e² + 2e: mish(y) = y·n / (n + 2), whose derivative is
/// n / (n + 2) + y·4e(e + 1) / (n + 2)². Infinities and NaN give what PyTorch's chain gives.
template <class T>
class MishClampScale {
 public:
  explicit MishClampScale(const Epilogue& epilogue)
      : mish_(epilogue.mish),
        clamps_(epilogue.clamps()),
        at_bounds_(epilogue.gradient_at_bounds),
        add_(static_cast<T>(epilogue.add)),
        min_(static_cast<T>(epilogue.min)),
        max_(static_cast<T>(epilogue.max)),
        scale_(static_cast<T>(epilogue.scale)) {}

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
      for (std::int64_t i = 0; i < run; ++i) y[i] = bounded(y[i] + add_) * scale_;
    }
  }

  /// Replaces `count` gradients of z by those of y, given the values y.
  void gradient(const T* values, T* gradients, std::int64_t count) const {
    alignas(kLaneAlignment) T powers[kRun];
    T activated[kRun];
    for (std::int64_t first = 0; first < count; first += kRun) {
      const std::int64_t run = std::min(kRun, count - first);
      const T* y = values + first;
      T* g = gradients + first;
      if (!mish_) {
        for (std::int64_t i = 0; i < run; ++i) g[i] = passed(y[i] + add_, g[i] * scale_);
        continue;
      }
      exponentials(y, run, powers);
      for (std::int64_t i = 0; i < run; ++i) {
        const T e = powers[i];
        const T n = e * (e + T(2));
        const T gate = n / (n + T(2));
        // Above 20 the slope of the gate is below the last digit; zero makes mish'(∞) the NaN that
        // PyTorch has there.
        const T slope = T(4) * e * (e + T(1)) / ((n + T(2)) * (n + T(2)));
        activated[i] = y[i] * gate;
        powers[i] = gate + y[i] * (y[i] >= T(20) ? T(0) : slope);
      }
      // `activated` is rounded as in `apply`, so that both see the same side of a bound.
      for (std::int64_t i = 0; i < run; ++i) {
        g[i] = passed(activated[i] + add_, g[i] * scale_) * powers[i];
      }
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

  T bounded(T value) const {
    const T raised = value < min_ ? min_ : value;
    return raised > max_ ? max_ : raised;
  }

  /// The gradient behind the clamp, whose argument is `value`.
  T passed(T value, T gradient) const {
    const bool inside = at_bounds_ ? value >= min_ && value <= max_ : value > min_ && value < max_;
    return inside || !clamps_ ? gradient : T(0);
  }

  bool mish_;
  bool clamps_;
  bool at_bounds_;
  T add_;
  T min_;
  T max_;
  T scale_;
};

}  // namespace tenon::ops::cpu
