// The geometry of a transposed convolution along one axis, as the kernels walk it.
//
// Output o receives x[i]·w[k] exactly when o + padding = i·stride + k·dilation. Outputs that agree
// modulo the stride are a phase: o = phase + stride·q. Only the taps with
// k·dilation ≡ phase + padding (mod stride) reach them, and each of those reads
// x[q + tap_shift(phase, k)]: a phase is a correlation of stride 1 with a part of the kernel, and
// every tap belongs to one phase only. Plain numbers without memory, for host and device.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define TENON_HOST_DEVICE __host__ __device__
#else
#define TENON_HOST_DEVICE
#endif

namespace tenon::ops {

/// One axis (rows or columns) of a transposed convolution.
struct PhaseAxis {
  std::int64_t input;   ///< size of x
  std::int64_t output;  ///< size of y
  std::int64_t kernel;
  std::int64_t stride;
  std::int64_t padding;
  std::int64_t dilation;

  /// Distance of neighbouring taps of one phase: stride / gcd(stride, dilation).
  TENON_HOST_DEVICE constexpr std::int64_t tap_step() const {
    std::int64_t a = stride;
    std::int64_t b = dilation;
    while (b != 0) {
      const std::int64_t rest = a % b;
      a = b;
      b = rest;
    }
    return stride / a;
  }

  /// The first tap of `phase` (0 … stride − 1); `kernel` when it has none.
  TENON_HOST_DEVICE constexpr std::int64_t first_tap(std::int64_t phase) const {
    const std::int64_t end = tap_step() < kernel ? tap_step() : kernel;
    for (std::int64_t k = 0; k < end; ++k) {
      if ((phase + padding - k * dilation) % stride == 0) return k;
    }
    return kernel;
  }

  /// How many taps `phase` has; 0 where the output is bias alone.
  TENON_HOST_DEVICE constexpr std::int64_t tap_count(std::int64_t phase) const {
    const std::int64_t step = tap_step();
    return (kernel - first_tap(phase) + step - 1) / step;
  }

  /// Tap `k` of `phase` reads x at q + this.
  TENON_HOST_DEVICE constexpr std::int64_t tap_shift(std::int64_t phase, std::int64_t k) const {
    return (phase + padding - k * dilation) / stride;
  }

  /// How many outputs `phase` has: q runs from 0 to this.
  TENON_HOST_DEVICE constexpr std::int64_t output_count(std::int64_t phase) const {
    return phase < output ? (output - phase + stride - 1) / stride : 0;
  }
};

}  // namespace tenon::ops
