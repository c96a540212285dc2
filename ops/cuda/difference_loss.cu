#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/reduce.cuh"
#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/difference_loss.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;

struct Square {
  template <class C>
  __device__ C operator()(C d) const {
    return d * d;
  }
};

struct Absolute {
  template <class C>
  __device__ C operator()(C d) const {
    return ::fabs(d);
  }
};

struct Itself {
  template <class C>
  __device__ C operator()(C d) const {
    return d;
  }
};

struct Sign {
  template <class C>
  __device__ C operator()(C d) const {
    return d > C(0) ? C(1) : d < C(0) ? C(-1) : C(0);
  }
};

/// Adds up the losses of x, the source, and of `target`, which lies as it does.
template <class T, class Loss>
struct LossSum {
  using State = compute_type<T>;
  const T* target;
  __device__ State identity() const { return State(0); }
  __device__ State map(T value, const tenon::cuda::Place& place) const {
    return Loss()(convert<State>(value) - convert<State>(target[place.offset]));
  }
  __device__ State combine(State a, State b) const { return a + b; }
};

template <class T>
struct StoreQuotient {
  T* target;
  compute_type<T> divisor;
  __device__ void operator()(std::int64_t position, compute_type<T> total) const {
    target[position] = convert<T>(total / divisor);
  }
};

/// (x, target, grad) -> grad·slope·f(x - target)
template <class T, class Derivative>
struct LossGradient {
  using C = compute_type<T>;
  C slope;
  __device__ C operator()(T x, T target, T grad) const {
    return Derivative()(convert<C>(x) - convert<C>(target)) * (convert<C>(grad) * slope);
  }
};

}  // namespace

void difference_loss(DifferenceLossKind kind, const Tensor& x, const Tensor& target, double divisor,
                     const Tensor& loss) {
  const tenon::detail::ReductionNest nest(x, {}, tenon::detail::SummedOrder::Memory);
  tenon::cuda::visit_device_floating(x.dtype(), "difference_loss", [&]<class T>() {
    using C = compute_type<T>;
    const StoreQuotient<T> store{static_cast<T*>(loss.raw_data()), static_cast<C>(divisor)};
    const auto* other = static_cast<const T*>(target.raw_data());
    if (kind == DifferenceLossKind::Squared) {
      tenon::cuda::reduce<T, C>(x, nest, LossSum<T, Square>{other}, store);
    } else {
      tenon::cuda::reduce<T, C>(x, nest, LossSum<T, Absolute>{other}, store);
    }
  });
}

void difference_loss_grad(DifferenceLossKind kind, double slope, const Tensor& grad,
                          const Tensor& x, const Tensor& target, const Tensor& grad_x) {
  tenon::cuda::visit_device_floating(x.dtype(), "difference_loss_grad", [&]<class T>() {
    const auto factor = static_cast<compute_type<T>>(slope);
    if (kind == DifferenceLossKind::Squared) {
      tenon::cuda::elementwise<T, T, T, T>(grad_x, {x, target, grad},
                                           LossGradient<T, Itself>{factor});
    } else {
      tenon::cuda::elementwise<T, T, T, T>(grad_x, {x, target, grad},
                                           LossGradient<T, Sign>{factor});
    }
  });
}

}  // namespace tenon::ops::cuda
