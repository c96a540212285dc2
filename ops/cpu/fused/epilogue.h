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

/// clamp(mish(y) + add, min, max)·scale and its gradient on double; SimdChain is that of float.
///
/// With e = exp(min(y, 20)) and n = e² + 2e: mish(y) = y·n / (n + 2), whose derivative is
/// n / (n + 2) + y·4e(e + 1) / (n + 2)². Infinities and NaN give what PyTorch's chain gives.
class MishClampScale {
 public:
  explicit MishClampScale(const Epilogue& epilogue)
      : mish_(epilogue.mish),
        clamps_(epilogue.clamps()),
        add_(epilogue.add),
        min_(epilogue.min),
        max_(epilogue.max),
        scale_(epilogue.scale),
        first_inside_(epilogue.gradient_at_bounds ? min_ : std::nextafter(min_, kInfinity)),
        last_inside_(epilogue.gradient_at_bounds ? max_ : std::nextafter(max_, -kInfinity)) {}

  /// Replaces `count` values y by z.
  void apply(double* values, std::int64_t count) const {
    alignas(kLaneAlignment) double powers[kRun];
    for (std::int64_t first = 0; first < count; first += kRun) {
      const std::int64_t run = std::min(kRun, count - first);
      double* y = values + first;
      if (mish_) {
        exponentials(y, run, powers);
        for (std::int64_t i = 0; i < run; ++i) {
          const double n = powers[i] * (powers[i] + 2.0);
          y[i] = y[i] * (n / (n + 2.0));
        }
      }
      // Copies, so that the loop vectorises: what it writes could be the members.
      const double add = add_, min = min_, max = max_, scale = scale_;
      for (std::int64_t i = 0; i < run; ++i) {
        const double value = y[i] + add;
        const double raised = value < min ? min : value;
        y[i] = (raised > max ? max : raised) * scale;
      }
    }
  }

  /// Replaces `count` gradients of z by those of y, given the values y.
  void gradient(const double* values, double* gradients, std::int64_t count) const {
    alignas(kLaneAlignment) double slopes[kRun];
    double activated[kRun];
    for (std::int64_t first = 0; first < count; first += kRun) {
      const std::int64_t run = std::min(kRun, count - first);
      const double* y = values + first;
      double* g = gradients + first;
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
  static void exponentials(const double* y, std::int64_t count, double* powers) {
    const std::int64_t whole = count - count % kLanes;
    OutputLanes<double>(powers, whole) = exponential(InputLanes<double>(y, whole).min(20.0));
    if (whole == count) return;
    double last[kLanes] = {};
    std::copy(y + whole, y + count, last);
    OutputLanes<double>(powers + whole, kLanes) =
        exponential(InputLanes<double>(last, kLanes).min(20.0));
  }

  /// mish(y), rounded as in `apply`, so that both see the same side of a bound, and mish'(y).
  static void mish_with_slopes(const double* y, std::int64_t count, double* activated,
                               double* slopes) {
    exponentials(y, count, slopes);
    for (std::int64_t i = 0; i < count; ++i) {
      const double e = slopes[i];
      const double n = e * (e + 2.0);
      const double gate = n / (n + 2.0);
      // Above 20 the slope of the gate is below the last digit; zero makes mish'(∞) the NaN that
      // PyTorch has there.
      const double slope = 4.0 * e * (e + 1.0) / ((n + 2.0) * (n + 2.0));
      activated[i] = y[i] * gate;
      slopes[i] = gate + y[i] * (y[i] >= 20.0 ? 0.0 : slope);
    }
  }

  /// Gradients of z become those of the clamp's argument, which is activated + add.
  void pass_clamp(const double* activated, std::int64_t count, double* gradients) const {
    // Copies, so that the loops vectorise: what they write could be the members.
    const double add = add_, scale = scale_, first = first_inside_, last = last_inside_;
    if (!clamps_) {
      for (std::int64_t i = 0; i < count; ++i) gradients[i] *= scale;
      return;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const double value = activated[i] + add;
      const double passed = value >= first ? gradients[i] * scale : 0.0;
      gradients[i] = value <= last ? passed : 0.0;
    }
  }

  static constexpr double kInfinity = std::numeric_limits<double>::infinity();

  bool mish_;
  bool clamps_;
  double add_;
  double min_;
  double max_;
  double scale_;
  double first_inside_;  // the values between which the clamp passes a gradient, both included
  double last_inside_;
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
using EpilogueFunction = std::conditional_t<std::is_same_v<T, float>, SimdChain, MishClampScale>;

}  // namespace tenon::ops::cpu
