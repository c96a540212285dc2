#include "tenon/core/random.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tenon/core/cpu/random.h"
#include "tenon/core/cuda/random.h"
#include "tenon/core/dispatch.h"
#include "tenon/core/half.h"
#include "tenon/core/recording.h"
#include "tenon/core/tensor_body.h"

namespace tenon {
namespace {

/// Calls `kernel(values, seed, first block)` on the contiguous `target`, or on a contiguous tensor
/// that is then copied over it.
template <class Kernel>
void fill(const Tensor& target, Generator& generator, const Kernel& kernel) {
  const Tensor values = target.is_contiguous() ? target : detail::make_empty(target.spec());
  const auto blocks = static_cast<std::uint64_t>((target.numel() + 3) / 4);
  if (const detail::Recording* recording = detail::Recording::current()) {
    TENON_CHECK(target.device() == recording->device() && &generator == &default_generator(),
                "random numbers: a CapturedStep of ", recording->device(),
                " draws on its own device, from the default generator");
  }
  const std::uint64_t first = generator.advance(blocks);
  kernel(values, generator.seed(), first);
  if (!values.is_same(target)) target.copy_(values);
}

void check_floating(const Tensor& tensor, const char* op) {
  TENON_CHECK(is_floating(tensor.dtype()), op, ": needs a floating dtype, got ", tensor.dtype());
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

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
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

std::uint32_t Generator::next() {
  const std::uint64_t block = advance(1);
  return philox4x32(
      {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32)},
      {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)})[0];
}

Generator& default_generator() {
  thread_local Generator generator;
  return generator;
}

void manual_seed(std::uint64_t seed) {
  if (const detail::Recording* recording = detail::Recording::current()) {
    detail::refuse_while_recording(recording->device(), "manual_seed", "set the seed outside it");
  }
  default_generator().set_state(seed, 0);
}

void uniform_(const Tensor& tensor, double low, double high, Generator& generator) {
  visit_floating(tensor.dtype(), "uniform_", [&]<class T>() {
    const T first = round_to<T>(low);
    TENON_CHECK(low <= high && std::isfinite(widen(first)) && std::isfinite(high - low) &&
                    std::isfinite(widen(round_to<T>(high))),
                "uniform_: needs finite bounds with low <= high that ", tensor.dtype(),
                " can hold, got [", low, ", ", high, ")");
    detail::begin_in_place(tensor, "uniform_");
    // Rounding may reach `high`, which is excluded.
    const double last = widen(std::max(first, below(round_to<T>(high))));
    fill(tensor, generator, [&](const Tensor& values, std::uint64_t seed, std::uint64_t block) {
      TENON_DISPATCH(values.device(), uniform(values, low, high - low, last, seed, block));
    });
  });
}

void normal_(const Tensor& tensor, double mean, double stddev, Generator& generator) {
  TENON_CHECK(std::isfinite(mean) && std::isfinite(stddev) && stddev >= 0,
              "normal_: needs a finite mean and a finite stddev >= 0, got mean ", mean,
              " and stddev ", stddev);
  check_floating(tensor, "normal_");
  detail::begin_in_place(tensor, "normal_");
  fill(tensor, generator, [&](const Tensor& values, std::uint64_t seed, std::uint64_t block) {
    TENON_DISPATCH(values.device(), normal(values, mean, stddev, seed, block));
  });
}

void bernoulli_(const Tensor& tensor, double p, Generator& generator) {
  TENON_CHECK(p >= 0 && p <= 1, "bernoulli_: the probability must be in [0, 1], got ", p);
  check_floating(tensor, "bernoulli_");
  detail::begin_in_place(tensor, "bernoulli_");
  fill(tensor, generator, [&](const Tensor& values, std::uint64_t seed, std::uint64_t block) {
    TENON_DISPATCH(values.device(), bernoulli(values, p, seed, block));
  });
}

}  // namespace tenon
