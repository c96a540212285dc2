#include <limits>
#include <numbers>

#include "tenon/ops/cuda/activation.h"
#include "tenon/ops/cuda/activation_math.cuh"
#include "tenon/ops/cuda/map.cuh"

namespace tenon::ops::cuda {
namespace {

/// A bound in the compute type; infinite ones become the integer type's limits.
template <class C>
C bound(double value) {
  if constexpr (std::is_integral_v<C>) {
    if (value >= 9.2e18) return std::numeric_limits<C>::max();
    if (value <= -9.2e18) return std::numeric_limits<C>::min();
  }
  return static_cast<C>(value);
}

/// Limits first from below, then from above, so that `high` wins; comparisons with NaN fail and
/// leave it.
template <class C>
struct Limit {
  C low;
  C high;
  __device__ C operator()(C x) const {
    const C raised = x < low ? low : x;
    return raised > high ? high : raised;
  }
};

void limit(const Tensor& x, const ActivationParameters& bounds, const Tensor& y) {
  const auto make = [&bounds]<class C>() {
    return Limit<C>{bound<C>(bounds.first), bound<C>(bounds.second)};
  };
  if (is_floating(y.dtype())) {
    map_floating_made<1>({x}, y, make);
  } else {
    map_integer<1>({x}, y, make.template operator()<std::int64_t>());
  }
}

template <class C>
struct LeakyRelu {
  C slope;
  __device__ C operator()(C x) const { return x > C(0) ? x : x * slope; }
};

struct Tanh {
  template <class C>
  __device__ C operator()(C x) const {
    return ::tanh(x);
  }
};

struct Sigmoid {
  template <class C>
  __device__ C operator()(C x) const {
    return logistic(x);
  }
};

struct LogSigmoid {
  template <class C>
  __device__ C operator()(C x) const {
    return (x > C(0) ? C(0) : x) - ::log1p(::exp(-::fabs(x)));
  }
};

template <class C>
struct Softplus {
  C beta;
  C threshold;
  __device__ C operator()(C x) const {
    return x * beta > threshold ? x : ::log1p(::exp(x * beta)) / beta;
  }
};

template <class C>
struct Elu {
  C alpha;
  __device__ C operator()(C x) const { return x > C(0) ? x : alpha * ::expm1(x); }
};

struct Gelu {
  template <class C>
  __device__ C operator()(C x) const {
    return x * normal_distribution(x);
  }
};

struct GeluTanh {
  template <class C>
  __device__ C operator()(C x) const {
    return x * logistic(gelu_tanh_argument(x));
  }
};

struct Silu {
  template <class C>
  __device__ C operator()(C x) const {
    return x / (C(1) + ::exp(-x));
  }
};

struct Mish {
  template <class C>
  __device__ C operator()(C x) const {
    const C n = mish_numerator(::exp(::fmin(x, C(20))));
    return x * (n / (n + C(2)));
  }
};

}  // namespace

void activation(ActivationKind kind, const ActivationParameters& parameters, const Tensor& x,
                const Tensor& y) {
  const double first = parameters.first;
  const double second = parameters.second;
  switch (kind) {
    case ActivationKind::Relu:
      return limit(x, {.first = 0, .second = std::numeric_limits<double>::infinity()}, y);
    case ActivationKind::LeakyRelu:
      return map_floating_made<1>(
          {x}, y, [first]<class C>() { return LeakyRelu<C>{static_cast<C>(first)}; });
    case ActivationKind::Hardtanh:
    case ActivationKind::Clamp:
      return limit(x, parameters, y);
    case ActivationKind::Tanh:
      return map_floating<1>({x}, y, Tanh());
    case ActivationKind::Sigmoid:
      return map_floating<1>({x}, y, Sigmoid());
    case ActivationKind::LogSigmoid:
      return map_floating<1>({x}, y, LogSigmoid());
    case ActivationKind::Softplus:
      return map_floating_made<1>({x}, y, [first, second]<class C>() {
        return Softplus<C>{static_cast<C>(first), static_cast<C>(second)};
      });
    case ActivationKind::Elu:
      return map_floating_made<1>({x}, y,
                                  [first]<class C>() { return Elu<C>{static_cast<C>(first)}; });
    case ActivationKind::Gelu:
      return map_floating<1>({x}, y, Gelu());
    case ActivationKind::GeluTanh:
      return map_floating<1>({x}, y, GeluTanh());
    case ActivationKind::Silu:
      return map_floating<1>({x}, y, Silu());
    case ActivationKind::Mish:
      return map_floating<1>({x}, y, Mish());
  }
}

}  // namespace tenon::ops::cuda
