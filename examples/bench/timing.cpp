#include "timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <string>
#include <vector>

#include "normal.h"

#ifdef TENON_WITH_CUDA
#include <cuda_profiler_api.h>
#include <cudnn.h>

#include "tenon/core/cuda/runtime.h"
#endif
#include "tenon/core/factories.h"
#include "tenon/core/memory.h"
#include "tenon/core/parallel.h"
#include "tenon/core/stream.h"
#include "tenon/ops/cpu/simd/kernels.h"

namespace bench {
namespace {

using namespace tenon;

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double now_ms() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

/// Microseconds until the host gets control back; few calls at a time, because a full queue would
/// make it wait for the device.
double host_time(Device device, const Step& step) {
  constexpr int kRounds = 5;
  constexpr int kCalls = 8;
  std::vector<double> times;
  for (int round = 0; round < kRounds; ++round) {
    synchronize(device);
    const double start = now_ms();
    for (std::size_t i = 0; i < kCalls; ++i) step(i);
    times.push_back((now_ms() - start) * 1e3 / kCalls);
  }
  synchronize(device);
  return median(times);
}

}  // namespace

double measure_roughly(Device device, const Step& step, int repeats) {
  step(0);
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    Event begin(device);
    Event end(device);
    begin.record();
    step(static_cast<std::size_t>(i) + 1);
    end.record();
    times.push_back(begin.elapsed_ms(end));
  }
  return median(times);
}

Timing measure(Device device, const Step& step) {
  const double sample_ms = 1.0;
  const double total_ms = device.is_cuda() ? 300.0 : 1000.0;
  const double once = std::max(measure_roughly(device, step, 3), 1e-4);
  const auto calls = static_cast<std::size_t>(std::clamp(std::ceil(sample_ms / once), 1.0, 256.0));
  const auto samples = static_cast<std::size_t>(
      std::clamp(total_ms / (once * static_cast<double>(calls)), 10.0, 100.0));

  std::vector<Event> marks;
  for (std::size_t i = 0; i <= samples; ++i) marks.emplace_back(device);
  std::size_t call = 0;
  for (std::size_t i = 0; i < calls; ++i) step(call++);
  marks[0].record();
  for (std::size_t sample = 1; sample <= samples; ++sample) {
    for (std::size_t i = 0; i < calls; ++i) step(call++);
    marks[sample].record();
  }
  std::vector<double> times;
  for (std::size_t sample = 1; sample <= samples; ++sample) {
    times.push_back(marks[sample - 1].elapsed_ms(marks[sample]) / static_cast<double>(calls));
  }
  return {median(times), device.is_cuda() ? host_time(device, step) : 0};
}

void take_turns(Device device, const Step& step) {
  constexpr std::size_t kWarmUp = 64;  // until what each set of inputs keeps is there
  std::size_t call = 0;
  while (call < kWarmUp) step(call++);
  synchronize(device);
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    step(call++);
    synchronize(device);
    const double start = now_ms();
    step(call++);
    synchronize(device);
    std::cout << now_ms() - start << std::endl;
  }
}

void profile(Device device, const Step& step) {
  constexpr std::size_t kWarmUp = 3;  // compiles, chooses plans and configurations
  for (std::size_t i = 0; i < kWarmUp; ++i) step(i);
  synchronize(device);
#ifdef TENON_WITH_CUDA
  if (device.is_cuda()) TENON_CUDA_CHECK(cudaProfilerStart());
#endif
  step(kWarmUp);
  synchronize(device);
#ifdef TENON_WITH_CUDA
  if (device.is_cuda()) TENON_CUDA_CHECK(cudaProfilerStop());
#endif
}

std::int64_t peak_memory(Device device, const Step& step) {
  synchronize(device);
  reset_peak_memory(device);
  const std::int64_t before = memory_stats(device).in_use;
  step(0);
  synchronize(device);
  return memory_stats(device).peak - before;
}

double copy_bandwidth(Device device) {
  const std::int64_t elements = std::int64_t{1} << (device.is_cuda() ? 28 : 25);
  const Tensor source = normal({elements}, 1, DType::Float32, device);
  const Tensor target = empty_like(source);
  double best = measure(device, [&](std::size_t) { target.copy_(source); }).milliseconds;
#ifdef TENON_WITH_CUDA
  if (device.is_cuda()) {
    const auto bytes = static_cast<std::size_t>(elements) * item_size(source.dtype());
    const auto copy = [&](std::size_t) {
      TENON_CUDA_CHECK(cudaMemcpyAsync(target.raw_data(), source.raw_data(), bytes,
                                       cudaMemcpyDeviceToDevice,
                                       tenon::cuda::current_stream(device)));
    };
    best = std::min(best, measure(device, copy).milliseconds);
  }
#endif
  return 2.0 * static_cast<double>(elements) * 4.0 / (best * 1e-3);
}

double flop_rate(Device device) {
  if (device.is_cuda()) return 0;
  namespace simd = ops::cpu::simd;
  const simd::Kernels& kernels = simd::kernels();
  constexpr std::int64_t kDepth = 64;
  constexpr std::int64_t kCalls = 4000;
  const std::int64_t width = kernels.vectors * kernels.lanes;
  std::vector<std::int32_t> offsets;
  for (std::int64_t k = 0; k < kDepth; ++k) offsets.push_back(static_cast<std::int32_t>(k * width));
  const auto run = [&](std::int64_t, std::int64_t) {
    const std::vector<float> values(static_cast<std::size_t>(kDepth * width), 0.5f);
    const std::vector<float> weights(static_cast<std::size_t>(kDepth * kernels.channels), 0.5f);
    std::vector<float> sums(static_cast<std::size_t>(kernels.channels * width));
    simd::Product product{.vectors = {},
                          .vector_count = kernels.vectors,
                          .channels = kernels.channels,
                          .depth = kDepth,
                          .offsets = offsets.data(),
                          .weights = weights.data(),
                          .start = weights.data(),
                          .sums = sums.data(),
                          .sums_stride = width};
    for (int v = 0; v < kernels.vectors; ++v)
      product.vectors[v] = values.data() + v * kernels.lanes;
    for (std::int64_t call = 0; call < kCalls; ++call) kernels.multiply(product);
  };
  const std::int64_t threads = num_threads();
  const double ms =
      measure(device, [&](std::size_t) { parallel_for(0, threads, 1, run); }).milliseconds;
  return 2.0 * static_cast<double>(kDepth * width * kernels.channels * kCalls * threads) /
         (ms * 1e-3);
}

std::size_t rotation([[maybe_unused]] Device device, std::int64_t set_bytes) {
  double cache_bytes = 64 << 20;  // more than most processors have
#ifdef TENON_WITH_CUDA
  if (device.is_cuda()) cache_bytes = static_cast<double>(tenon::cuda::properties(device).l2_bytes);
#endif
  const double sets = std::ceil(2 * cache_bytes / static_cast<double>(set_bytes)) + 1;
  // From twice the cache on, a call's own data push out whatever the call before left.
  if (static_cast<double>(set_bytes) >= 2 * cache_bytes) return 1;
  return static_cast<std::size_t>(std::min(sets, 64.0));
}

std::string device_description([[maybe_unused]] Device device) {
#ifdef TENON_WITH_CUDA
  if (device.is_cuda()) {
    cudaDeviceProp properties;
    TENON_CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index()));
    int runtime = 0;
    TENON_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
    const std::size_t cudnn = cudnnGetVersion();
    return tenon::detail::concat(properties.name, ", CUDA ", runtime / 1000, '.',
                                 runtime % 1000 / 10, ", cuDNN ", cudnn / 10000, '.',
                                 cudnn / 100 % 100, '.', cudnn % 100);
  }
#endif
  return tenon::detail::concat("CPU, ", num_threads(), " threads, ",
                               ops::cpu::simd::kernels().name);
}

}  // namespace bench
