#include "tenon/ops/cpu/norm.h"

#include <algorithm>
#include <cmath>

#include "tenon/core/half.h"
#include "tenon/core/parallel.h"

namespace tenon::ops::cpu {
namespace {

/// Values that are summed in the compute type before they go into a double.
constexpr std::int64_t kRun = 256;

/// [N, C, rest]
struct Channels {
  std::int64_t batch, channels, plane;

  explicit Channels(const Tensor& x) : batch(x.size(0)), channels(x.size(1)), plane(1) {
    for (std::size_t d = 2; d < x.dim(); ++d) plane *= x.shape()[d];
  }
  std::int64_t count() const { return batch * plane; }
};

/// Calls `body(channel)` on the pool's threads.
template <class Body>
void for_each_channel(const Channels& sizes, Body&& body) {
  const std::int64_t grain =
      std::max<std::int64_t>(1, (1 << 14) / std::max<std::int64_t>(1, sizes.count()));
  parallel_for(0, sizes.channels, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t c = begin; c < end; ++c) body(c);
  });
}

/// Calls `body(first, count)` for runs of at most kRun elements that make up channel `c`.
template <class Body>
void for_each_run(const Channels& sizes, std::int64_t c, Body&& body) {
  for (std::int64_t n = 0; n < sizes.batch; ++n) {
    const std::int64_t first = (n * sizes.channels + c) * sizes.plane;
    for (std::int64_t done = 0; done < sizes.plane; done += kRun) {
      body(first + done, std::min(kRun, sizes.plane - done));
    }
  }
}

/// The sum of `term(i)` over the elements of channel `c`: sixteen lanes in the compute type within
/// a run, so that it vectorises, and double beyond.
template <class Compute, class Term>
double sum_channel(const Channels& sizes, std::int64_t c, Term&& term) {
  constexpr std::int64_t kLanes = 16;
  double total = 0;
  for_each_run(sizes, c, [&](std::int64_t first, std::int64_t count) {
    Compute lanes[kLanes] = {};
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (std::int64_t l = 0; l < kLanes; ++l) lanes[l] += term(first + i + l);
    }
    for (; i < count; ++i) lanes[0] += term(first + i);
    for (const Compute lane : lanes) total += static_cast<double>(lane);
  });
  return total;
}

template <class T>
void move_towards(T& running, double momentum, double value) {
  const double moved = (1 - momentum) * static_cast<double>(running) + momentum * value;
  running = static_cast<T>(static_cast<compute_type<T>>(moved));
}

}  // namespace

void batch_statistics(const Tensor& x, double eps, double momentum, const Tensor& running_mean,
                      const Tensor& running_var, const Tensor& mean, const Tensor& inverse) {
  const Channels sizes(x);
  visit_floating(x.dtype(), "batch_norm", [&]<class T>() {
    using Compute = compute_type<T>;
    const T* values = x.data<T>();
    const auto count = static_cast<double>(sizes.count());
    for_each_channel(sizes, [&](std::int64_t c) {
      const double center =
          sum_channel<Compute>(sizes, c,
                               [&](std::int64_t i) { return static_cast<Compute>(values[i]); }) /
          count;
      const auto shift = static_cast<Compute>(center);
      const double square = sum_channel<Compute>(sizes, c, [&](std::int64_t i) {
        const Compute distance = static_cast<Compute>(values[i]) - shift;
        return distance * distance;
      });
      // The second pass measured from `shift`, the mean as it can be represented.
      const double rest = center - static_cast<double>(shift);
      double variance = square / count - rest * rest;
      if (variance < 0) variance = 0;
      mean.data<Compute>()[c] = shift;
      inverse.data<Compute>()[c] = static_cast<Compute>(1 / std::sqrt(variance + eps));
      if (running_mean.defined()) {
        move_towards(running_mean.data<T>()[c * running_mean.strides()[0]], momentum, center);
        move_towards(running_var.data<T>()[c * running_var.strides()[0]], momentum,
                     variance * count / (count - 1));
      }
    });
  });
}

void running_statistics(const Tensor& running_mean, const Tensor& running_var, double eps,
                        const Tensor& mean, const Tensor& inverse) {
  visit_floating(running_mean.dtype(), "batch_norm", [&]<class T>() {
    using Compute = compute_type<T>;
    for (std::int64_t c = 0; c < mean.numel(); ++c) {
      const T variance = running_var.data<T>()[c * running_var.strides()[0]];
      mean.data<Compute>()[c] =
          static_cast<Compute>(running_mean.data<T>()[c * running_mean.strides()[0]]);
      inverse.data<Compute>()[c] =
          static_cast<Compute>(1 / std::sqrt(static_cast<double>(variance) + eps));
    }
  });
}

void normalize(const Tensor& x, const Tensor& mean, const Tensor& inverse, const Tensor& weight,
               const Tensor& bias, const Tensor& y) {
  const Channels sizes(x);
  visit_floating(x.dtype(), "batch_norm", [&]<class T>() {
    using Compute = compute_type<T>;
    const T* source = x.data<T>();
    T* target = y.data<T>();
    for_each_channel(sizes, [&](std::int64_t c) {
      const Compute center = mean.data<Compute>()[c];
      Compute scale = inverse.data<Compute>()[c];
      if (weight.defined()) scale *= static_cast<Compute>(weight.data<T>()[c]);
      const Compute shift = bias.defined() ? static_cast<Compute>(bias.data<T>()[c]) : Compute{};
      for_each_run(sizes, c, [&](std::int64_t first, std::int64_t count) {
        for (std::int64_t i = first; i < first + count; ++i) {
          target[i] = static_cast<T>((static_cast<Compute>(source[i]) - center) * scale + shift);
        }
      });
    });
  });
}

void batch_norm_backward(const Tensor& x, const Tensor& mean, const Tensor& inverse,
                         const Tensor& grad_out, const Tensor& weight, bool training,
                         const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_bias) {
  const Channels sizes(x);
  visit_floating(x.dtype(), "batch_norm_backward", [&]<class T>() {
    using Compute = compute_type<T>;
    const T* values = x.data<T>();
    const T* grads = grad_out.data<T>();
    for_each_channel(sizes, [&](std::int64_t c) {
      const Compute center = mean.data<Compute>()[c];
      const Compute scale = inverse.data<Compute>()[c];
      const double sum = sum_channel<Compute>(
          sizes, c, [&](std::int64_t i) { return static_cast<Compute>(grads[i]); });
      const double product = sum_channel<Compute>(sizes, c, [&](std::int64_t i) {
        return static_cast<Compute>(grads[i]) * (static_cast<Compute>(values[i]) - center);
      });
      grad_bias.data<T>()[c] = static_cast<T>(static_cast<Compute>(sum));
      grad_weight.data<T>()[c] =
          static_cast<T>(static_cast<Compute>(product * static_cast<double>(scale)));
      const Compute factor =
          weight.defined() ? scale * static_cast<Compute>(weight.data<T>()[c]) : scale;
      const double count = static_cast<double>(sizes.count());
      const auto grad_mean = static_cast<Compute>(training ? sum / count : 0.0);
      const auto slope = static_cast<Compute>(
          training ? product / count * static_cast<double>(scale) * static_cast<double>(scale)
                   : 0.0);
      T* target = grad_x.data<T>();
      for_each_run(sizes, c, [&](std::int64_t first, std::int64_t run) {
        for (std::int64_t i = first; i < first + run; ++i) {
          const Compute distance = static_cast<Compute>(values[i]) - center;
          target[i] = static_cast<T>(
              (static_cast<Compute>(grads[i]) - grad_mean - distance * slope) * factor);
        }
      });
    });
  });
}

}  // namespace tenon::ops::cpu
