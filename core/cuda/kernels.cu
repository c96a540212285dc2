#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/fault.h"
#include "tenon/core/cuda/kernels.h"
#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/reduce.cuh"
#include "tenon/core/cuda/staging.h"
#include "tenon/core/kernels.h"
#include "tenon/core/recording.h"

namespace tenon::cuda {
namespace {

template <class To>
struct Convert {
  template <class From>
  __device__ To operator()(From value) const {
    return convert<To>(value);
  }
};

template <class T>
struct Constant {
  T value;
  __device__ T operator()() const { return value; }
};

template <class T>
struct Add {
  __device__ T operator()(T a, T b) const {
    using C = compute_type<T>;
    return convert<T>(convert<C>(a) + convert<C>(b));
  }
};

template <class T>
struct Sum {
  using State = compute_type<T>;
  __device__ State identity() const { return State(0); }
  __device__ State map(T value, const Place&) const { return convert<State>(value); }
  __device__ State combine(State a, State b) const { return static_cast<State>(a + b); }
};

template <class T>
struct Store {
  T* target;
  template <class State>
  __device__ void operator()(std::int64_t position, State state) const {
    target[position] = convert<T>(state);
  }
};

__global__ void empty_kernel(PreviousKernel previous) { previous.wait(); }

/// A copy within one device.
void copy_local(const Tensor& source, const Tensor& target) {
  visit_device_dtype(source.dtype(), [&]<class From>() {
    visit_device_dtype(target.dtype(),
                       [&]<class To>() { elementwise<To, From>(target, {source}, Convert<To>()); });
  });
}

/// A copy between devices of dense tensors alike in shape, strides and dtype.
void copy_bytes(const Tensor& source, const Tensor& target) {
  const Device gpu = target.device().is_cuda() ? target.device() : source.device();
  tenon::detail::refuse_while_recording(gpu, "a copy between devices",
                                        "copy before or after the step, into a tensor it reads");
  const DeviceGuard guard(gpu);
  const auto bytes = static_cast<std::size_t>(source.numel()) * item_size(source.dtype());
  if (source.device().is_cpu()) {
    send_staged(source.raw_data(), target.raw_data(), bytes, gpu);
    return;
  }
  const cudaStream_t stream = current_stream(gpu);
  TENON_CUDA_CHECK(
      cudaMemcpyAsync(target.raw_data(), source.raw_data(), bytes, cudaMemcpyDefault, stream));
  if (target.device().is_cpu()) {
    wait_for(stream, gpu);
    throw_pending_fault(gpu);
  }
}

}  // namespace

void copy(const Tensor& source, const Tensor& target) {
  if (target.numel() == 0) return;
  if (source.device() == target.device()) {
    copy_local(source, target);
    return;
  }
  // Convert where the source is, move bytes, spread them where the target is.
  const Strides packed_strides = preserved_strides(source.shape(), source.strides());
  const bool plain = source.dtype() == target.dtype() && packed_strides == source.strides();
  const Tensor packed =
      plain ? source
            : detail::make_empty({source.shape(), target.dtype(), source.device()}, packed_strides);
  if (!plain) kernels::copy(source, packed);
  const bool lies_alike =
      target.shape() == source.shape() &&
      (target.strides() == packed_strides || (target.is_contiguous() && packed.is_contiguous()));
  if (lies_alike) {
    copy_bytes(packed, target);
  } else {
    const Tensor arrived =
        detail::make_empty({source.shape(), target.dtype(), target.device()}, packed_strides);
    copy_bytes(packed, arrived);
    kernels::copy(arrived, target);
  }
}

void fill(const Tensor& target, Scalar value) {
  // Converted on the host, by the rules of the CPU.
  const Tensor one = detail::make_empty({{}, target.dtype(), Device::cpu()});
  kernels::fill(one, value);
  visit_device_dtype(target.dtype(), [&]<class T>() {
    elementwise<T>(target, {}, Constant<T>{*static_cast<const T*>(one.raw_data())});
  });
}

void add(const Tensor& a, const Tensor& b, const Tensor& target) {
  visit_device_dtype(target.dtype(), [&]<class T>() {
    elementwise<T, T, T>(target, {a, b}, Add<T>());
  });
}

void sum_to(const Tensor& source, const Tensor& target) {
  if (source.numel() == 0) {
    fill(target, 0);
    return;
  }
  const tenon::detail::ReductionNest nest(source, target.shape(),
                                          tenon::detail::SummedOrder::Memory);
  visit_device_dtype(source.dtype(), [&]<class T>() {
    reduce<T, typename Sum<T>::State>(source, nest, Sum<T>(),
                                      Store<T>{static_cast<T*>(target.raw_data())});
  });
}

void launch_nothing(Device device, unsigned threads) {
  const DeviceGuard guard(device);
  launch<empty_kernel>({1, threads}, device);
}

}  // namespace tenon::cuda
