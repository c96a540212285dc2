#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/kernels.h"
#include "tenon/ops/cuda/pool.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;
using tenon::cuda::PreviousKernel;

constexpr int kThreads = 256;

/// How planes, each one channel of one image, lie in memory: one after another, or channels-last.
/// Kernels walk their results in the order of memory.
struct Planes {
  std::int64_t channels;
  bool channels_last;

  /// Two tensors of one format; one of them may be so small that it could have either.
  Planes(const Tensor& a, const Tensor& b)
      : channels(a.shape()[1]), channels_last(!a.is_contiguous() || !b.is_contiguous()) {}

  /// The plane, and the pixel in it, of element `i` of planes of `pixels`.
  __device__ std::int64_t plane_of(std::int64_t i, std::int64_t pixels) const {
    return channels_last ? i / channels / pixels * channels + i % channels : i / pixels;
  }
  __device__ std::int64_t pixel_of(std::int64_t i, std::int64_t pixels) const {
    return (channels_last ? i / channels : i) % pixels;
  }
  /// Where a plane begins, and how far its pixels are apart.
  __device__ std::int64_t begin(std::int64_t plane, std::int64_t pixels) const {
    return channels_last ? plane / channels * channels * pixels + plane % channels : plane * pixels;
  }
  __device__ std::int64_t step() const { return channels_last ? channels : 1; }
};

/// Images and windows as a kernel argument.
struct Windows {
  Planes layout;
  std::int64_t planes, height, width, out_height, out_width;
  int kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;

  Windows(const Tensor& image, const Tensor& result, Pair kernel, Pair stride, Pair padding,
          Pair dilation)
      : layout(image, result),
        planes(image.shape()[0] * image.shape()[1]),
        height(image.shape()[2]),
        width(image.shape()[3]),
        out_height(result.shape()[2]),
        out_width(result.shape()[3]),
        kernel_h(static_cast<int>(kernel.h)),
        kernel_w(static_cast<int>(kernel.w)),
        stride_h(static_cast<int>(stride.h)),
        stride_w(static_cast<int>(stride.w)),
        padding_h(static_cast<int>(padding.h)),
        padding_w(static_cast<int>(padding.w)),
        dilation_h(static_cast<int>(dilation.h)),
        dilation_w(static_cast<int>(dilation.w)) {}
};

/// Rows (or columns) from `begin` to `end` of an average's window, and how many count.
struct Extent {
  std::int64_t begin, end, counted;
};

__device__ Extent extent(std::int64_t out, int kernel, int stride, int padding, std::int64_t size,
                         bool count_padding) {
  const std::int64_t first = out * stride - padding;
  const std::int64_t last = min(first + kernel, size + padding);
  const std::int64_t begin = max(first, std::int64_t{0});
  const std::int64_t end = min(last, size);
  return {begin, end, count_padding ? last - first : end - begin};
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    max_pool_kernel(PreviousKernel previous, const T* x, Windows w, T* y, std::int64_t* places) {
  previous.wait();
  using C = compute_type<T>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= w.planes * w.out_height * w.out_width) return;
  const std::int64_t results = w.out_height * w.out_width;
  const std::int64_t pixel = w.layout.pixel_of(i, results);
  const std::int64_t column = pixel % w.out_width * w.stride_w - w.padding_w;
  const std::int64_t row = pixel / w.out_width * w.stride_h - w.padding_h;
  const T* plane = x + w.layout.begin(w.layout.plane_of(i, results), w.height * w.width);
  std::int64_t best_place = -1;
  T best_value{};
  for (int a = 0; a < w.kernel_h; ++a) {
    const std::int64_t h = row + a * w.dilation_h;
    if (h < 0 || h >= w.height) continue;
    for (int b = 0; b < w.kernel_w; ++b) {
      const std::int64_t v = column + b * w.dilation_w;
      if (v < 0 || v >= w.width) continue;
      const T value = plane[(h * w.width + v) * w.layout.step()];
      const C candidate = convert<C>(value);
      const C best = convert<C>(best_value);
      if (best_place < 0 || candidate > best || candidate != candidate) {
        best_place = h * w.width + v;
        best_value = value;
      }
    }
  }
  y[i] = best_value;
  places[i] = best_place;
}

/// One warp a plane takes the values 32 at a time. Lanes that hit one place are added by the first
/// of them in the order of lanes, so that the sum never depends on timing.
template <class T>
__global__ void __launch_bounds__(kThreads)
    plane_scatter_kernel(PreviousKernel previous, const T* values, const std::int64_t* places,
                         Planes layout, std::int64_t planes, std::int64_t values_a_plane,
                         std::int64_t pixels, T* result) {
  previous.wait();
  using C = compute_type<T>;
  const std::int64_t plane = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (plane >= planes) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t step = layout.step();
  const T* from = values + layout.begin(plane, values_a_plane);
  const std::int64_t* at = places + layout.begin(plane, values_a_plane);
  T* to = result + layout.begin(plane, pixels);
  for (std::int64_t first = 0; first < values_a_plane; first += 32) {
    const std::int64_t i = first + lane;
    const bool active = i < values_a_plane;
    const std::int64_t place = active ? at[i * step] : -1 - lane;
    const C value = active ? convert<C>(from[i * step]) : C(0);
    const unsigned peers = __match_any_sync(0xffffffffu, static_cast<unsigned long long>(place));
    C sum(0);
    for (int source = 0; source < 32; ++source) {
      const C other = __shfl_sync(0xffffffffu, value, source);
      if ((peers >> source & 1u) != 0) sum += other;
    }
    if (active && lane == __ffs(static_cast<int>(peers)) - 1) {
      to[place * step] = convert<T>(convert<C>(to[place * step]) + sum);
    }
    __syncwarp();
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    plane_gather_kernel(PreviousKernel previous, const T* planes, const std::int64_t* places,
                        Planes layout, std::int64_t count, std::int64_t values_a_plane,
                        std::int64_t pixels, T* values) {
  previous.wait();
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const std::int64_t begin = layout.begin(layout.plane_of(i, values_a_plane), pixels);
  values[i] = planes[begin + places[i] * layout.step()];
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    avg_pool_kernel(PreviousKernel previous, const T* x, Windows w, bool count_padding, T* y) {
  previous.wait();
  using C = compute_type<T>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= w.planes * w.out_height * w.out_width) return;
  const std::int64_t results = w.out_height * w.out_width;
  const std::int64_t pixel = w.layout.pixel_of(i, results);
  const Extent columns =
      extent(pixel % w.out_width, w.kernel_w, w.stride_w, w.padding_w, w.width, count_padding);
  const Extent rows =
      extent(pixel / w.out_width, w.kernel_h, w.stride_h, w.padding_h, w.height, count_padding);
  const T* plane = x + w.layout.begin(w.layout.plane_of(i, results), w.height * w.width);
  C sum(0);
  for (std::int64_t h = rows.begin; h < rows.end; ++h) {
    for (std::int64_t v = columns.begin; v < columns.end; ++v) {
      sum += convert<C>(plane[(h * w.width + v) * w.layout.step()]);
    }
  }
  y[i] = convert<T>(sum / static_cast<C>(rows.counted * columns.counted));
}

/// One thread an element of the image adds the windows that cover it.
template <class T>
__global__ void __launch_bounds__(kThreads)
    avg_pool_backward_kernel(PreviousKernel previous, const T* grad_out, Windows w,
                             bool count_padding, T* grad_x) {
  previous.wait();
  using C = compute_type<T>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= w.planes * w.height * w.width) return;
  const std::int64_t pixel = w.layout.pixel_of(i, w.height * w.width);
  const std::int64_t v = pixel % w.width + w.padding_w;
  const std::int64_t h = pixel / w.width + w.padding_h;
  const std::int64_t index = w.layout.plane_of(i, w.height * w.width);
  const T* plane = grad_out + w.layout.begin(index, w.out_height * w.out_width);
  const auto first = [](std::int64_t at, int kernel, int stride) {
    return at < kernel ? std::int64_t{0} : (at - kernel) / stride + 1;
  };
  C sum(0);
  for (std::int64_t p = first(h, w.kernel_h, w.stride_h); p <= h / w.stride_h && p < w.out_height;
       ++p) {
    const Extent rows = extent(p, w.kernel_h, w.stride_h, w.padding_h, w.height, count_padding);
    for (std::int64_t q = first(v, w.kernel_w, w.stride_w); q <= v / w.stride_w && q < w.out_width;
         ++q) {
      const Extent columns = extent(q, w.kernel_w, w.stride_w, w.padding_w, w.width, count_padding);
      sum += convert<C>(plane[(p * w.out_width + q) * w.layout.step()]) /
             static_cast<C>(rows.counted * columns.counted);
    }
  }
  grad_x[i] = convert<T>(sum);
}

/// Launches `kKernel` with one thread for each of `count` items.
template <auto kKernel, class... Arguments>
void launch_items(std::int64_t count, Device device, const Arguments&... arguments) {
  if (count == 0) return;
  const tenon::cuda::DeviceGuard guard(device);
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  tenon::cuda::launch<kKernel>({blocks, kThreads}, device, arguments...);
}

template <class T>
T* pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.raw_data());
}

}  // namespace

void max_pool2d(const Tensor& x, Pair kernel, Pair stride, const MaxPool2dOptions& options,
                const Tensor& y, const Tensor& places) {
  const Windows w(x, y, kernel, stride, options.padding, options.dilation);
  tenon::cuda::visit_device_floating(x.dtype(), "max_pool2d", [&]<class T>() {
    launch_items<max_pool_kernel<T>>(y.numel(), x.device(), pointer<const T>(x), w, pointer<T>(y),
                                     pointer<std::int64_t>(places));
  });
}

void plane_scatter(const Tensor& values, const Tensor& places, const Tensor& plane) {
  kernels::fill(plane, 0);
  const std::int64_t planes = plane.shape()[0] * plane.shape()[1];
  const std::int64_t pixels = plane.shape()[2] * plane.shape()[3];
  const std::int64_t values_a_plane = planes == 0 ? 0 : values.numel() / planes;
  tenon::cuda::visit_device_floating(values.dtype(), "max_pool2d", [&]<class T>() {
    launch_items<plane_scatter_kernel<T>>(
        planes * 32, values.device(), pointer<const T>(values), pointer<const std::int64_t>(places),
        Planes(plane, values), planes, values_a_plane, pixels, pointer<T>(plane));
  });
}

void plane_gather(const Tensor& plane, const Tensor& places, const Tensor& values) {
  const std::int64_t planes = plane.shape()[0] * plane.shape()[1];
  const std::int64_t pixels = plane.shape()[2] * plane.shape()[3];
  const std::int64_t values_a_plane = planes == 0 ? 0 : values.numel() / planes;
  tenon::cuda::visit_device_floating(plane.dtype(), "max_pool2d", [&]<class T>() {
    launch_items<plane_gather_kernel<T>>(values.numel(), plane.device(), pointer<const T>(plane),
                                         pointer<const std::int64_t>(places), Planes(plane, values),
                                         values.numel(), values_a_plane, pixels,
                                         pointer<T>(values));
  });
}

void avg_pool2d(const Tensor& x, Pair kernel, Pair stride, const AvgPool2dOptions& options,
                const Tensor& y) {
  const Windows w(x, y, kernel, stride, options.padding, 1);
  tenon::cuda::visit_device_floating(x.dtype(), "avg_pool2d", [&]<class T>() {
    launch_items<avg_pool_kernel<T>>(y.numel(), x.device(), pointer<const T>(x), w,
                                     options.count_include_pad, pointer<T>(y));
  });
}

void avg_pool2d_backward(const Tensor& grad_out, Pair kernel, Pair stride,
                         const AvgPool2dOptions& options, const Tensor& grad_x) {
  const Windows w(grad_x, grad_out, kernel, stride, options.padding, 1);
  tenon::cuda::visit_device_floating(grad_out.dtype(), "avg_pool2d", [&]<class T>() {
    launch_items<avg_pool_backward_kernel<T>>(grad_x.numel(), grad_out.device(),
                                              pointer<const T>(grad_out), w,
                                              options.count_include_pad, pointer<T>(grad_x));
  });
}

}  // namespace tenon::ops::cuda
