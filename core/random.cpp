#include "tenon/core/random.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "tenon/core/half.h"
#include "tenon/core/parallel.h"
#include "tenon/core/tensor_body.h"

namespace tenon {
namespace {

using Words = std::array<std::uint32_t, 4>;

/// Blocks handed to one thread at a time.
constexpr std::int64_t kBlockGrain = 1 << 12;

/// 2^-32: one step of a 32-bit word taken as a fraction.
constexpr double kWordStep = 0x1p-32;

/// Block number `index` of the stream of `seed`.
Words block_words(std::uint64_t seed, std::uint64_t index) {
  return philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32)},
                    {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

/// Overwrites the contiguous `target` with what `draw` makes of the words, four elements a block.
template <class T, class Draw>
void fill_contiguous(const Tensor& target, Generator& generator, const Draw& draw) {
  T* out = target.data<T>();
  const std::int64_t count = target.numel();
  const std::int64_t blocks = (count + 3) / 4;
  const std::uint64_t seed = generator.seed();
  const std::uint64_t first = generator.advance(static_cast<std::uint64_t>(blocks));
  parallel_for(0, blocks, kBlockGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block) {
      const std::array<T, 4> values =
          draw(block_words(seed, first + static_cast<std::uint64_t>(block)));
      std::copy_n(values.begin(), std::min<std::int64_t>(4, count - 4 * block), out + 4 * block);
    }
  });
}

/// The same for any strides and device; other devices get the values that the CPU draws.
template <class T, class Draw>
void fill(const Tensor& target, Generator& generator, const Draw& draw) {
  if (target.is_contiguous() && target.device().is_cpu()) {
    fill_contiguous<T>(target, generator, draw);
    return;
  }
  const Tensor values = detail::make_empty({target.shape(), target.dtype(), Device::cpu()});
  fill_contiguous<T>(values, generator, draw);
  target.copy_(values);
}

template <class T>
T round_to(double value) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(value);
  } else {
    return T(static_cast<float>(value));
  }
}

template <class T>
double widen(T value) {
  return static_cast<double>(static_cast<compute_type<T>>(value));
}

/// Bits of the significand of `T`, at most the 32 of a word.
template <class T>
constexpr int kUniformBits = std::min(32, std::numeric_limits<T>::digits);

/// The largest value of `T` below the finite `value`.
template <class T>
T below(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::nextafter(value, -std::numeric_limits<T>::infinity());
  } else {
    const auto bits = Eigen::numext::bit_cast<std::uint16_t>(value);
    const bool negative = (bits & 0x8000u) != 0;
    const bool zero = (bits & 0x7fffu) == 0;
    const int next = zero ? 0x8001 : bits + (negative ? 1 : -1);
    return Eigen::numext::bit_cast<T>(static_cast<std::uint16_t>(next));
  }
}

}  // namespace

Words philox4x32(Words counter, std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9;  // golden ratio
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85;  // sqrt(3) - 1
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

std::uint32_t Generator::next() { return block_words(seed_, advance(1))[0]; }

Generator& default_generator() {
  thread_local Generator generator;
  return generator;
}

void manual_seed(std::uint64_t seed) { default_generator().set_state(seed, 0); }

void uniform_(const Tensor& tensor, double low, double high, Generator& generator) {
  visit_floating(tensor.dtype(), "uniform_", [&]<class T>() {
    const T first = round_to<T>(low);
    const double width = high - low;
    TENON_CHECK(low <= high && std::isfinite(widen(first)) && std::isfinite(width) &&
                    std::isfinite(widen(round_to<T>(high))),
                "uniform_: needs finite bounds with low <= high that ", tensor.dtype(),
                " can hold, got [", low, ", ", high, ")");
    detail::begin_in_place(tensor, "uniform_");
    // Rounding may reach `high`, which is excluded.
    const T last = std::max(first, below(round_to<T>(high)));
    constexpr int kBits = kUniformBits<T>;
    const double step = std::ldexp(1.0, -kBits);
    fill<T>(tensor, generator, [&](const Words& words) {
      std::array<T, 4> values;
      for (std::size_t i = 0; i < 4; ++i) {
        const double fraction = (words[i] >> (32 - kBits)) * step;
        values[i] = std::min(last, round_to<T>(std::fma(fraction, width, low)));
      }
      return values;
    });
  });
}

void normal_(const Tensor& tensor, double mean, double stddev, Generator& generator) {
  TENON_CHECK(std::isfinite(mean) && std::isfinite(stddev) && stddev >= 0,
              "normal_: needs a finite mean and a finite stddev >= 0, got mean ", mean,
              " and stddev ", stddev);
  visit_floating(tensor.dtype(), "normal_", [&]<class T>() {
    detail::begin_in_place(tensor, "normal_");
    fill<T>(tensor, generator, [&](const Words& words) {
      // Box and Muller: a pair of uniforms gives the radius and the angle of two normals. The
      // first is moved from [0, 1) to (0, 1], so that its logarithm is finite.
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

void bernoulli_(const Tensor& tensor, double p, Generator& generator) {
  TENON_CHECK(p >= 0 && p <= 1, "bernoulli_: the probability must be in [0, 1], got ", p);
  visit_floating(tensor.dtype(), "bernoulli_", [&]<class T>() {
    detail::begin_in_place(tensor, "bernoulli_");
    fill<T>(tensor, generator, [&](const Words& words) {
      std::array<T, 4> values;
      for (std::size_t i = 0; i < 4; ++i) values[i] = T(words[i] * kWordStep < p ? 1.0f : 0.0f);
      return values;
    });
  });
}

}  // namespace tenon
