#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/reduce.cuh"
#include "tenon/ops/cuda/norm.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;
using tenon::cuda::Place;

/// [1, C, 1, ...]: one result a channel.
Shape channel_shape(const Tensor& x) {
  Shape shape = Shape::filled(x.dim(), 1);
  shape[1] = x.shape()[1];
  return shape;
}

/// A tensor [C] seen as [C, 1, ...], to broadcast over `x`.
Tensor over_channels(const Tensor& channels, const Tensor& x) {
  Shape shape = Shape::filled(x.dim() - 1, 1);
  Strides strides = Shape::filled(x.dim() - 1, 0);
  shape[0] = channels.shape()[0];
  strides[0] = channels.strides()[0];
  return tenon::detail::make_view(channels, shape, strides, channels.body()->offset);
}

/// A possibly undefined tensor [C] as a kernel argument.
template <class T>
struct ChannelVector {
  T* data = nullptr;
  std::int64_t stride = 0;

  explicit ChannelVector(const Tensor& tensor) {
    if (!tensor.defined()) return;
    data = static_cast<T*>(tensor.raw_data());
    stride = tensor.strides()[0];
  }
  __device__ explicit operator bool() const { return data != nullptr; }
  __device__ T& operator[](std::int64_t c) const { return data[c * stride]; }
};

/// Count, mean and sum of squared distances from it, combined by the rule of Chan, Golub and
/// LeVeque ("Algorithms for computing the sample variance", 1983).
template <class C>
struct Moments {
  C count;
  C mean;
  C squares;
};

template <class T>
struct MomentsReducer {
  using C = compute_type<T>;
  __device__ Moments<C> identity() const { return {C(0), C(0), C(0)}; }
  __device__ Moments<C> map(T value, const Place&) const { return {C(1), convert<C>(value), C(0)}; }
  __device__ Moments<C> combine(const Moments<C>& a, const Moments<C>& b) const {
    if (a.count == C(0)) return b;
    if (b.count == C(0)) return a;
    const C count = a.count + b.count;
    const C distance = b.mean - a.mean;
    const C share = b.count / count;
    return {count, a.mean + distance * share,
            a.squares + b.squares + distance * distance * a.count * share};
  }
};

template <class T>
struct StoreStatistics {
  using C = compute_type<T>;
  C* mean;
  C* inverse;
  ChannelVector<T> running_mean;
  ChannelVector<T> running_var;
  C eps;
  C momentum;

  __device__ void operator()(std::int64_t c, const Moments<C>& m) const {
    mean[c] = m.mean;
    inverse[c] = C(1) / sqrt(m.squares / m.count + eps);
    if (!running_mean) return;
    const C unbiased = m.squares / (m.count - C(1));
    running_mean[c] =
        convert<T>(convert<C>(running_mean[c]) * (C(1) - momentum) + m.mean * momentum);
    running_var[c] =
        convert<T>(convert<C>(running_var[c]) * (C(1) - momentum) + unbiased * momentum);
  }
};

/// 1 / sqrt(variance + eps)
template <class T>
struct InverseDeviation {
  using C = compute_type<T>;
  C eps;
  __device__ C operator()(T variance) const { return C(1) / sqrt(convert<C>(variance) + eps); }
};

template <class T>
struct Widen {
  __device__ compute_type<T> operator()(T value) const { return convert<compute_type<T>>(value); }
};

/// (x − mean)·inverse[·weight][+ bias]
template <class T>
struct Normalize {
  using C = compute_type<T>;
  __device__ C operator()(T x, C mean, C inverse) const { return (convert<C>(x) - mean) * inverse; }
  __device__ C operator()(T x, C mean, C inverse, T weight) const {
    return (*this)(x, mean, inverse) * convert<C>(weight);
  }
  __device__ C operator()(T x, C mean, C inverse, T weight, T bias) const {
    return (*this)(x, mean, inverse, weight) + convert<C>(bias);
  }
};

template <class T>
struct NormalizeShifted {
  using C = compute_type<T>;
  __device__ C operator()(T x, C mean, C inverse, T bias) const {
    return Normalize<T>()(x, mean, inverse) + convert<C>(bias);
  }
};

/// Σ grad and Σ grad·(x − mean)·inverse of a channel: the gradients of bias and weight.
template <class C>
struct GradientSums {
  C grad;
  C product;
};

template <class T>
struct GradientReducer {
  using C = compute_type<T>;
  const T* x;
  const C* mean;
  const C* inverse;

  __device__ GradientSums<C> identity() const { return {C(0), C(0)}; }
  __device__ GradientSums<C> map(T grad, const Place& place) const {
    const C g = convert<C>(grad);
    const C centred = convert<C>(x[place.offset]) - mean[place.result];
    return {g, g * centred * inverse[place.result]};
  }
  __device__ GradientSums<C> combine(const GradientSums<C>& a, const GradientSums<C>& b) const {
    return {a.grad + b.grad, a.product + b.product};
  }
};

template <class T>
struct StoreSums {
  using C = compute_type<T>;
  C* grad;
  C* product;
  ChannelVector<T> grad_weight;
  ChannelVector<T> grad_bias;

  __device__ void operator()(std::int64_t c, const GradientSums<C>& sums) const {
    grad[c] = sums.grad;
    product[c] = sums.product;
    if (grad_weight) grad_weight[c] = convert<T>(sums.product);
    if (grad_bias) grad_bias[c] = convert<T>(sums.grad);
  }
};

/// inverse·weight·(grad − mean of grad − normalized x·mean of grad·normalized x), the means left
/// out when the statistics do not depend on x.
template <class T>
struct GradX {
  using C = compute_type<T>;
  C share;  // 1 / count in training, otherwise 0

  __device__ C operator()(T x, T grad, C mean, C inverse, C sum, C product) const {
    const C normalized = (convert<C>(x) - mean) * inverse;
    return inverse * (convert<C>(grad) - share * (sum + normalized * product));
  }
  __device__ C operator()(T x, T grad, C mean, C inverse, C sum, C product, T weight) const {
    return (*this)(x, grad, mean, inverse, sum, product) * convert<C>(weight);
  }
};

template <class C>
C* statistics(const Tensor& tensor) {
  return static_cast<C*>(tensor.raw_data());
}

}  // namespace

void batch_statistics(const Tensor& x, double eps, double momentum, const Tensor& running_mean,
                      const Tensor& running_var, const Tensor& mean, const Tensor& inverse) {
  const tenon::detail::ReductionNest nest(x, channel_shape(x));
  tenon::cuda::visit_device_floating(x.dtype(), "batch_norm", [&]<class T>() {
    using C = compute_type<T>;
    const StoreStatistics<T> store{
        statistics<C>(mean),           statistics<C>(inverse), ChannelVector<T>(running_mean),
        ChannelVector<T>(running_var), static_cast<C>(eps),    static_cast<C>(momentum)};
    tenon::cuda::reduce<T, Moments<C>>(x, nest, MomentsReducer<T>(), store);
  });
}

void running_statistics(const Tensor& running_mean, const Tensor& running_var, double eps,
                        const Tensor& mean, const Tensor& inverse) {
  tenon::cuda::visit_device_floating(running_mean.dtype(), "batch_norm", [&]<class T>() {
    using C = compute_type<T>;
    tenon::cuda::elementwise<C, T>(mean, {running_mean}, Widen<T>());
    tenon::cuda::elementwise<C, T>(inverse, {running_var},
                                   InverseDeviation<T>{static_cast<C>(eps)});
  });
}

void normalize(const Tensor& x, const Tensor& mean, const Tensor& inverse, const Tensor& weight,
               const Tensor& bias, const Tensor& y) {
  const Tensor m = over_channels(mean, x);
  const Tensor i = over_channels(inverse, x);
  const Tensor w = weight.defined() ? over_channels(weight, x) : Tensor();
  const Tensor b = bias.defined() ? over_channels(bias, x) : Tensor();
  tenon::cuda::visit_device_floating(x.dtype(), "batch_norm", [&]<class T>() {
    using C = compute_type<T>;
    if (w.defined() && b.defined()) {
      tenon::cuda::elementwise<T, T, C, C, T, T>(y, {x, m, i, w, b}, Normalize<T>());
    } else if (w.defined()) {
      tenon::cuda::elementwise<T, T, C, C, T>(y, {x, m, i, w}, Normalize<T>());
    } else if (b.defined()) {
      tenon::cuda::elementwise<T, T, C, C, T>(y, {x, m, i, b}, NormalizeShifted<T>());
    } else {
      tenon::cuda::elementwise<T, T, C, C>(y, {x, m, i}, Normalize<T>());
    }
  });
}

void batch_norm_backward(const Tensor& x, const Tensor& mean, const Tensor& inverse,
                         const Tensor& grad_out, const Tensor& weight, bool training,
                         const Tensor& grad_x, const Tensor& grad_weight, const Tensor& grad_bias) {
  const std::int64_t channels = x.shape()[1];
  const tenon::detail::ReductionNest nest(grad_out, channel_shape(x));
  const Tensor sum = tenon::detail::make_empty(mean.spec());
  const Tensor product = tenon::detail::make_empty(mean.spec());
  tenon::cuda::visit_device_floating(x.dtype(), "batch_norm", [&]<class T>() {
    using C = compute_type<T>;
    const GradientReducer<T> reducer{static_cast<const T*>(x.raw_data()), statistics<C>(mean),
                                     statistics<C>(inverse)};
    const StoreSums<T> store{statistics<C>(sum), statistics<C>(product),
                             ChannelVector<T>(grad_weight), ChannelVector<T>(grad_bias)};
    tenon::cuda::reduce<T, GradientSums<C>>(grad_out, nest, reducer, store);
    if (!grad_x.defined() || x.numel() == 0) return;
    const C count = static_cast<C>(x.numel() / channels);
    const GradX<T> grad_of_x{training ? C(1) / count : C(0)};
    const Tensor m = over_channels(mean, x);
    const Tensor i = over_channels(inverse, x);
    const Tensor s = over_channels(sum, x);
    const Tensor p = over_channels(product, x);
    if (weight.defined()) {
      const Tensor w = over_channels(weight, x);
      tenon::cuda::elementwise<T, T, T, C, C, C, C, T>(grad_x, {x, grad_out, m, i, s, p, w},
                                                       grad_of_x);
    } else {
      tenon::cuda::elementwise<T, T, T, C, C, C, C>(grad_x, {x, grad_out, m, i, s, p}, grad_of_x);
    }
  });
}

}  // namespace tenon::ops::cuda
