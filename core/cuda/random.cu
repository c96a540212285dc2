#include <numbers>

#include "tenon/core/cuda/philox.cuh"
#include "tenon/core/cuda/random.h"
#include "tenon/core/cuda/types.cuh"

namespace tenon::cuda {
namespace {

/// 2^-32: one step of a 32-bit word taken as a fraction.
constexpr double kWordStep = 0x1p-32;

/// Bits of the significand of `T`, at most the 32 of a word.
// clang-format off
template <class T> constexpr int kUniformBits = 32;
template <> constexpr int kUniformBits<float> = 24;
template <> constexpr int kUniformBits<__half> = 11;
template <> constexpr int kUniformBits<__nv_bfloat16> = 8;
// clang-format on

template <class T>
struct Uniform {
  double low;
  double width;
  double last;
  __device__ T value(std::uint32_t word) const {
    constexpr double kStep = 1.0 / static_cast<double>(std::int64_t{1} << kUniformBits<T>);
    const double fraction = (word >> (32 - kUniformBits<T>)) * kStep;
    const T drawn = convert<T>(::fma(fraction, width, low));
    return convert<double>(drawn) < last ? drawn : convert<T>(last);
  }
  __device__ Pack<T, 4> operator()(uint4 words) const {
    return {value(words.x), value(words.y), value(words.z), value(words.w)};
  }
};

template <class T>
struct Normal {
  double mean;
  double stddev;
  /// Box and Muller: a pair of uniforms gives the radius and the angle of two normals. The first
  /// is moved from [0, 1) to (0, 1], so that its logarithm is finite.
  __device__ void draw_pair(std::uint32_t first, std::uint32_t second, T* pair) const {
    const double radius = ::sqrt(-2.0 * ::log((first + 1.0) * kWordStep));
    const double angle = 2.0 * std::numbers::pi * (second * kWordStep);
    pair[0] = convert<T>(::fma(stddev, radius * ::cos(angle), mean));
    pair[1] = convert<T>(::fma(stddev, radius * ::sin(angle), mean));
  }
  __device__ Pack<T, 4> operator()(uint4 words) const {
    Pack<T, 4> values;
    draw_pair(words.x, words.y, values.values);
    draw_pair(words.z, words.w, values.values + 2);
    return values;
  }
};

template <class T>
struct Bernoulli {
  double p;
  __device__ T value(std::uint32_t word) const {
    return convert<T>(word * kWordStep < p ? 1.0f : 0.0f);
  }
  __device__ Pack<T, 4> operator()(uint4 words) const {
    return {value(words.x), value(words.y), value(words.z), value(words.w)};
  }
};

__global__ void set_random_state_kernel(PreviousKernel previous, RandomState* state,
                                        RandomState value) {
  previous.wait();
  *state = value;
}

}  // namespace

void set_random_state(void* state, Device device, const RandomState& value) {
  const DeviceGuard guard(device);
  launch<set_random_state_kernel>({1, 1}, device, static_cast<RandomState*>(state), value);
}

void uniform(const Tensor& target, double low, double width, double last, std::uint64_t seed,
             std::uint64_t first_block) {
  visit_device_floating(target.dtype(), "uniform_", [&]<class T>() {
    fill_from_philox<T>(target, seed, first_block, Uniform<T>{low, width, last});
  });
}

void normal(const Tensor& target, double mean, double stddev, std::uint64_t seed,
            std::uint64_t first_block) {
  visit_device_floating(target.dtype(), "normal_", [&]<class T>() {
    fill_from_philox<T>(target, seed, first_block, Normal<T>{mean, stddev});
  });
}

void bernoulli(const Tensor& target, double p, std::uint64_t seed, std::uint64_t first_block) {
  visit_device_floating(target.dtype(), "bernoulli_", [&]<class T>() {
    fill_from_philox<T>(target, seed, first_block, Bernoulli<T>{p});
  });
}

}  // namespace tenon::cuda
