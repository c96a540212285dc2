#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/channels_last.cuh"
#include "tenon/ops/cuda/fused/epilogue.cuh"
#include "tenon/ops/cuda/fused/epilogue_pass.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;

template <class T, class Chain>
struct Apply {
  using C = compute_type<T>;
  const T* bias;  // may be null
  Chain chain;

  __device__ T operator()(T y, std::int64_t channel) const {
    const C shift = bias == nullptr ? C(0) : convert<C>(bias[channel]);
    return convert<T>(chain(convert<C>(y) + shift));
  }
};

template <class T, class Chain>
struct Gradient {
  using C = compute_type<T>;
  const T* y;
  const T* bias;  // may be null
  Chain chain;

  __device__ C operator()(T grad, std::int64_t at, std::int64_t channel) const {
    const C shift = bias == nullptr ? C(0) : convert<C>(bias[channel]);
    return chain.gradient(convert<C>(y[at]) + shift, convert<C>(grad));
  }
};

/// Calls `launch.template operator()<T>(chain)` for the dtype and the chain.
template <class Launch>
void with_types(const Tensor& data, const Epilogue& epilogue, Launch&& launch) {
  tenon::cuda::visit_device_floating(data.dtype(), "conv_transpose2d_epilogue", [&]<class T>() {
    using C = compute_type<T>;
    if (epilogue.mish) {
      launch.template operator()<T>(MishClampScale<C, true>(epilogue));
    } else {
      launch.template operator()<T>(MishClampScale<C, false>(epilogue));
    }
  });
}

template <class T>
T* pointer(const Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.raw_data()) : nullptr;
}

}  // namespace

void epilogue_pass_from_channels_last(const Tensor& y, const Tensor& bias, const Epilogue& epilogue,
                                      const Tensor& z) {
  if (z.numel() == 0) return;
  const tenon::cuda::DeviceGuard guard(z.device());
  const TileGrid grid(z.shape());
  with_types(z, epilogue, [&]<class T>(auto chain) {
    const Apply<T, decltype(chain)> apply{pointer<const T>(bias), chain};
    spread_channels_kernel<T>
        <<<grid.blocks(), TileGrid::threads(), 0, tenon::cuda::current_stream(z.device())>>>(
            pointer<const T>(y), pointer<T>(z), grid, apply);
    TENON_CUDA_CHECK(cudaGetLastError());
  });
}

void epilogue_gradient_pass_channels_last(const Tensor& data, const Tensor& bias,
                                          const Tensor& grad_out, const Epilogue& epilogue,
                                          const Tensor& grad_bias) {
  const Device device = data.device();
  const tenon::cuda::DeviceGuard guard(device);
  if (data.numel() == 0) {
    if (grad_bias.defined()) kernels::fill(grad_bias, 0);
    return;
  }
  const TileGrid grid(data.shape());
  with_types(data, epilogue, [&]<class T>(auto chain) {
    using C = compute_type<T>;
    Tensor partial;
    if (grad_bias.defined()) {
      const DType sum_dtype = sizeof(C) == 8 ? DType::Float64 : DType::Float32;
      partial = tenon::detail::make_empty(
          {{grid.images * grid.pixel_tiles, grid.channels}, sum_dtype, device});
    }
    const Gradient<T, decltype(chain)> gradient{pointer<const T>(data), pointer<const T>(bias),
                                                chain};
    gather_channels_kernel<T>
        <<<grid.blocks(), TileGrid::threads(), 0, tenon::cuda::current_stream(device)>>>(
            pointer<const T>(grad_out), pointer<T>(data), grid, gradient, pointer<C>(partial));
    TENON_CUDA_CHECK(cudaGetLastError());
    if (!grad_bias.defined()) return;
    const Tensor sum = tenon::detail::make_empty({{grid.channels}, partial.dtype(), device});
    kernels::sum_to(partial, sum);
    kernels::copy(sum, grad_bias);
  });
}

}  // namespace tenon::ops::cuda
