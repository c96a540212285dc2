#include <numbers>

#include "tenon/ops/cuda/activation.h"
#include "tenon/ops/cuda/activation_math.cuh"
#include "tenon/ops/cuda/map.cuh"

namespace tenon::ops::cuda {
namespace {

// Each is called with the gradient and what was saved. Where a condition blocks the gradient the
// result is 0 even if the gradient is infinite or NaN.

struct ReluGrad {
  template <class C>
  __device__ C operator()(C grad, C y) const {
    return !(y <= C(0)) ? grad : C(0);
  }
};

template <class C>
struct LeakyReluGrad {
  C slope;
  __device__ C operator()(C grad, C x) const { return x > C(0) ? grad : grad * slope; }
};

template <class C>
struct HardtanhGrad {
  C low;
  C high;
  __device__ C operator()(C grad, C x) const { return x > low && x < high ? grad : C(0); }
};

template <class C>
struct ClampGrad {
  C low;
  C high;
  __device__ C operator()(C grad, C x) const { return x >= low && x <= high ? grad : C(0); }
};

struct TanhGrad {
  template <class C>
  __device__ C operator()(C grad, C y) const {
    return grad * (C(1) - y * y);
  }
};

struct SigmoidGrad {
  template <class C>
  __device__ C operator()(C grad, C y) const {
    return grad * (y * (C(1) - y));
  }
};

struct LogSigmoidGrad {
  template <class C>
  __device__ C operator()(C grad, C x) const {
    return grad * logistic(-x);
  }
};

template <class C>
struct SoftplusGrad {
  C beta;
  C threshold;
  __device__ C operator()(C grad, C x) const {
    return x * beta > threshold ? grad : grad * logistic(x * beta);
  }
};

template <class C>
struct EluGrad {
  C alpha;
  __device__ C operator()(C grad, C x) const { return x > C(0) ? grad : alpha * grad * ::exp(x); }
};

/// f' = Φ(x) + x·φ(x)
struct GeluGrad {
  template <class C>
  __device__ C operator()(C grad, C x) const {
    constexpr C kDensityAtZero = C(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
    return grad * (normal_distribution(x) + x * kDensityAtZero * ::exp(C(-0.5) * (x * x)));
  }
};

/// f' = s + x·s·(1 - s)·u' with s = σ(u), u = 2√(2/π)·(x + 0.044715·x³).
struct GeluTanhGrad {
  template <class C>
  __device__ C operator()(C grad, C x) const {
    const C s = logistic(gelu_tanh_argument(x));
    const C slope = kGeluTanhFactor<C> * (C(1) + C(3 * 0.044715) * (x * x));
    return grad * (s + x * s * (C(1) - s) * slope);
  }
};

/// f' = s·(1 + x·(1 - s)) with s = σ(x).
struct SiluGrad {
  template <class C>
  __device__ C operator()(C grad, C x) const {
    const C s = logistic(x);
    return grad * (s * (C(1) + x * (C(1) - s)));
  }
};

/// f' = t + x·σ(x)·(1 - t²) with t = n/(n+2); in terms of e = e^x the second summand is
/// 4x·e·(e+1)/(n+2)². At x >= 20 it is below the rounding of t.
struct MishGrad {
  template <class C>
  __device__ C operator()(C grad, C x) const {
    const C e = ::exp(::fmin(x, C(20)));
    const C n = mish_numerator(e);
    const C slope = x >= C(20) ? C(0) : C(4) * e * (e + C(1)) / ((n + C(2)) * (n + C(2)));
    return grad * (n / (n + C(2)) + x * slope);
  }
};

}  // namespace

void activation_grad(ActivationKind kind, const ActivationParameters& parameters,
                     const Tensor& grad, const Tensor& saved, const Tensor& grad_x) {
  const double first = parameters.first;
  const double second = parameters.second;
  const std::array<Tensor, 2> inputs{grad, saved};
  switch (kind) {
    case ActivationKind::Relu:
      return map_floating<2>(inputs, grad_x, ReluGrad());
    case ActivationKind::LeakyRelu:
      return map_floating_made<2>(
          inputs, grad_x, [first]<class C>() { return LeakyReluGrad<C>{static_cast<C>(first)}; });
    case ActivationKind::Hardtanh:
      return map_floating_made<2>(inputs, grad_x, [first, second]<class C>() {
        return HardtanhGrad<C>{static_cast<C>(first), static_cast<C>(second)};
      });
    case ActivationKind::Clamp:
      return map_floating_made<2>(inputs, grad_x, [first, second]<class C>() {
        return ClampGrad<C>{static_cast<C>(first), static_cast<C>(second)};
      });
    case ActivationKind::Tanh:
      return map_floating<2>(inputs, grad_x, TanhGrad());
    case ActivationKind::Sigmoid:
      return map_floating<2>(inputs, grad_x, SigmoidGrad());
    case ActivationKind::LogSigmoid:
      return map_floating<2>(inputs, grad_x, LogSigmoidGrad());
    case ActivationKind::Softplus:
      return map_floating_made<2>(inputs, grad_x, [first, second]<class C>() {
        return SoftplusGrad<C>{static_cast<C>(first), static_cast<C>(second)};
      });
    case ActivationKind::Elu:
      return map_floating_made<2>(inputs, grad_x,
                                  [first]<class C>() { return EluGrad<C>{static_cast<C>(first)}; });
    case ActivationKind::Gelu:
      return map_floating<2>(inputs, grad_x, GeluGrad());
    case ActivationKind::GeluTanh:
      return map_floating<2>(inputs, grad_x, GeluTanhGrad());
    case ActivationKind::Silu:
      return map_floating<2>(inputs, grad_x, SiluGrad());
    case ActivationKind::Mish:
      return map_floating<2>(inputs, grad_x, MishGrad());
  }
}

}  // namespace tenon::ops::cuda
