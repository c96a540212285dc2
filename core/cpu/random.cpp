#include "tenon/core/cpu/random.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "tenon/core/half.h"
#include "tenon/core/parallel.h"
#include "tenon/core/random.h"

namespace tenon::cpu {
namespace {

using Words = std::array<std::uint32_t, 4>;

/// Blocks handed to one thread at a time.
constexpr std::int64_t kBlockGrain = 1 << 12;

/// 2^-32: one step of a 32-bit word taken as a fraction.
constexpr double kWordStep = 0x1p-32;

/// Overwrites `target` with what `draw` makes of the words, four elements a block.
template <class T, class Draw>
void fill(const Tensor& target, std::uint64_t seed, std::uint64_t first_block, const Draw& draw) {
  T* out = target.data<T>();
  const std::int64_t count = target.numel();
  parallel_for(0, (count + 3) / 4, kBlockGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const std::uint64_t index = first_block + static_cast<std::uint64_t>(block);
      const Words words =
          philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32)},
                     {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
      const std::array<T, 4> values = draw(words);
      std::copy_n(values.begin(), std::min<std::int64_t>(4, count - 4 * block), out + 4 * block);
    }
  });
}

template <class T>
T round_to(double value) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(value);
  } else {
    return T(static_cast<float>(value));
  }
}

/// Bits of the significand of `T`, at most the 32 of a word.
template <class T>
constexpr int kUniformBits = std::min(32, std::numeric_limits<T>::digits);

}  // namespace

void uniform(const Tensor& target, double low, double width, double last, std::uint64_t seed,
             std::uint64_t first_block) {
  visit_floating(target.dtype(), "uniform_", [&]<class T>() {
    constexpr int kBits = kUniformBits<T>;
    const double step = std::ldexp(1.0, -kBits);
    const T largest = round_to<T>(last);
    fill<T>(target, seed, first_block, [&](const Words& words) {
      std::array<T, 4> values;
      for (std::size_t i = 0; i < 4; ++i) {
        const double fraction = (words[i] >> (32 - kBits)) * step;
        values[i] = std::min(largest, round_to<T>(std::fma(fraction, width, low)));
      }
      return values;
    });
  });
}

void normal(const Tensor& target, double mean, double stddev, std::uint64_t seed,
            std::uint64_t first_block) {
  visit_floating(target.dtype(), "normal_", [&]<class T>() {
    fill<T>(target, seed, first_block, [&](const Words& words) {
      // A pair of uniforms gives the radius and the angle of two normals. The first is moved from
      // [0, 1) to (0, 1], so that its logarithm is finite.
      std::array<T, 4> values;
      for (std::size_t i = 0; i < 4; i += 2) {
        const double radius = std::sqrt(-2.0 * std::log((words[i] + 1.0) * kWordStep));
        const double angle = 2.0 * std::numbers::pi * (words[i + 1] * kWordStep);
        values[i] = round_to<T>(std::fma(stddev, radius * std::cos(angle), mean));
        values[i + 1] = round_to<T>(std::fma(stddev, radius * std::sin(angle), mean));
      }
      return values;
    });
  });
}

void bernoulli(const Tensor& target, double p, std::uint64_t seed, std::uint64_t first_block) {
  visit_floating(target.dtype(), "bernoulli_", [&]<class T>() {
    fill<T>(target, seed, first_block, [&](const Words& words) {
      std::array<T, 4> values;
      for (std::size_t i = 0; i < 4; ++i) values[i] = T(words[i] * kWordStep < p ? 1.0f : 0.0f);
      return values;
    });
  });
}

}  // namespace tenon::cpu
