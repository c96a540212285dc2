#include "tenon/ops/cpu/pool.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tenon/core/half.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {
namespace {

/// Calls `body(plane)` for every plane of [N, C, H, W] on the pool's threads.
template <class Body>
void for_each_plane(const Shape& shape, Body&& body) {
  const std::int64_t size = std::max<std::int64_t>(1, shape[2] * shape[3]);
  const std::int64_t grain = std::max<std::int64_t>(1, (1 << 14) / size);
  parallel_for(0, shape[0] * shape[1], grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t plane = begin; plane < end; ++plane) body(plane);
  });
}

template <class T>
void max_of_plane(const T* x, Pair size, Pair kernel, Pair stride, const MaxPool2dOptions& options,
                  Pair out, T* y, std::int64_t* places) {
  using Compute = compute_type<T>;
  const Pair& dilation = options.dilation;
  for (std::int64_t oy = 0; oy < out.h; ++oy) {
    for (std::int64_t ox = 0; ox < out.w; ++ox) {
      const std::int64_t top = oy * stride.h - options.padding.h;
      const std::int64_t left = ox * stride.w - options.padding.w;
      Compute best = -std::numeric_limits<Compute>::infinity();
      std::int64_t place = -1;
      for (std::int64_t ky = 0; ky < kernel.h; ++ky) {
        const std::int64_t iy = top + ky * dilation.h;
        if (iy < 0 || iy >= size.h) continue;
        for (std::int64_t kx = 0; kx < kernel.w; ++kx) {
          const std::int64_t ix = left + kx * dilation.w;
          if (ix < 0 || ix >= size.w) continue;
          const auto value = static_cast<Compute>(x[iy * size.w + ix]);
          if (place < 0 || value > best || std::isnan(value)) {
            best = value;
            place = iy * size.w + ix;
          }
        }
      }
      y[oy * out.w + ox] = static_cast<T>(best);
      places[oy * out.w + ox] = place;
    }
  }
}

/// The window of one output along one axis, cut to the image, and the divisor's part.
struct Window {
  std::int64_t begin, end, divisor;

  Window(std::int64_t o, std::int64_t size, std::int64_t kernel, std::int64_t stride,
         std::int64_t padding, bool count_include_pad) {
    const std::int64_t first = o * stride - padding;
    const std::int64_t last = std::min(first + kernel, size + padding);
    begin = std::max<std::int64_t>(first, 0);
    end = std::min(last, size);
    divisor = count_include_pad ? last - first : end - begin;
  }
};

/// Calls `body(o, rows, columns)` for every output of a plane.
template <class Body>
void for_each_window(Pair size, Pair out, Pair kernel, Pair stride, const AvgPool2dOptions& options,
                     Body&& body) {
  for (std::int64_t oy = 0; oy < out.h; ++oy) {
    const Window rows(oy, size.h, kernel.h, stride.h, options.padding.h, options.count_include_pad);
    for (std::int64_t ox = 0; ox < out.w; ++ox) {
      body(oy * out.w + ox, rows,
           Window(ox, size.w, kernel.w, stride.w, options.padding.w, options.count_include_pad));
    }
  }
}

/// Place number `i`, which must lie in a plane of `size` elements.
std::int64_t checked_place(const std::int64_t* places, std::int64_t i, std::int64_t size,
                           const char* op) {
  TENON_CHECK(places[i] >= 0 && places[i] < size, op, ": place ", places[i],
              " is outside of a plane of ", size, " elements");
  return places[i];
}

Pair plane_size(const Tensor& x) { return {x.size(2), x.size(3)}; }

}  // namespace

void max_pool2d(const Tensor& x, Pair kernel, Pair stride, const MaxPool2dOptions& options,
                const Tensor& y, const Tensor& places) {
  const Pair size = plane_size(x);
  const Pair out = plane_size(y);
  visit_floating(x.dtype(), "max_pool2d", [&]<class T>() {
    for_each_plane(y.shape(), [&](std::int64_t plane) {
      max_of_plane<T>(x.data<T>() + plane * size.h * size.w, size, kernel, stride, options, out,
                      y.data<T>() + plane * out.h * out.w,
                      places.data<std::int64_t>() + plane * out.h * out.w);
    });
  });
}

void plane_scatter(const Tensor& values, const Tensor& places, const Tensor& plane) {
  const std::int64_t size = plane.size(2) * plane.size(3);
  const std::int64_t count = values.size(2) * values.size(3);
  const std::int64_t* place = places.data<std::int64_t>();
  visit_floating(values.dtype(), "plane_scatter", [&]<class T>() {
    using Compute = compute_type<T>;
    for_each_plane(plane.shape(), [&](std::int64_t index) {
      const Scratch<Compute> sum(size);
      sum.fill_zero();
      for (std::int64_t i = index * count; i < (index + 1) * count; ++i) {
        sum.data()[checked_place(place, i, size, "plane_scatter")] +=
            static_cast<Compute>(values.data<T>()[i]);
      }
      std::transform(sum.data(), sum.data() + size, plane.data<T>() + index * size,
                     [](Compute value) { return static_cast<T>(value); });
    });
  });
}

void plane_gather(const Tensor& plane, const Tensor& places, const Tensor& values) {
  const std::int64_t size = plane.size(2) * plane.size(3);
  const std::int64_t count = values.size(2) * values.size(3);
  const std::int64_t* place = places.data<std::int64_t>();
  visit_floating(values.dtype(), "plane_gather", [&]<class T>() {
    for_each_plane(values.shape(), [&](std::int64_t index) {
      for (std::int64_t i = index * count; i < (index + 1) * count; ++i) {
        values.data<T>()[i] =
            plane.data<T>()[index * size + checked_place(place, i, size, "plane_gather")];
      }
    });
  });
}

void avg_pool2d(const Tensor& x, Pair kernel, Pair stride, const AvgPool2dOptions& options,
                const Tensor& y) {
  const Pair size = plane_size(x);
  const Pair out = plane_size(y);
  visit_floating(x.dtype(), "avg_pool2d", [&]<class T>() {
    using Compute = compute_type<T>;
    for_each_plane(y.shape(), [&](std::int64_t plane) {
      const T* image = x.data<T>() + plane * size.h * size.w;
      T* result = y.data<T>() + plane * out.h * out.w;
      for_each_window(size, out, kernel, stride, options,
                      [&](std::int64_t o, const Window& rows, const Window& columns) {
                        Compute sum{};
                        for (std::int64_t iy = rows.begin; iy < rows.end; ++iy) {
                          for (std::int64_t ix = columns.begin; ix < columns.end; ++ix) {
                            sum += static_cast<Compute>(image[iy * size.w + ix]);
                          }
                        }
                        const auto divisor = static_cast<Compute>(rows.divisor * columns.divisor);
                        result[o] = static_cast<T>(sum / divisor);
                      });
    });
  });
}

void avg_pool2d_backward(const Tensor& grad_out, Pair kernel, Pair stride,
                         const AvgPool2dOptions& options, const Tensor& grad_x) {
  const Pair size = plane_size(grad_x);
  const Pair out = plane_size(grad_out);
  visit_floating(grad_out.dtype(), "avg_pool2d_backward", [&]<class T>() {
    using Compute = compute_type<T>;
    for_each_plane(grad_x.shape(), [&](std::int64_t plane) {
      const Scratch<Compute> sum(size.h * size.w);
      sum.fill_zero();
      const T* grad = grad_out.data<T>() + plane * out.h * out.w;
      for_each_window(size, out, kernel, stride, options,
                      [&](std::int64_t o, const Window& rows, const Window& columns) {
                        const auto divisor = static_cast<Compute>(rows.divisor * columns.divisor);
                        const Compute share = static_cast<Compute>(grad[o]) / divisor;
                        for (std::int64_t iy = rows.begin; iy < rows.end; ++iy) {
                          for (std::int64_t ix = columns.begin; ix < columns.end; ++ix) {
                            sum.data()[iy * size.w + ix] += share;
                          }
                        }
                      });
      std::transform(sum.data(), sum.data() + size.h * size.w,
                     grad_x.data<T>() + plane * size.h * size.w,
                     [](Compute value) { return static_cast<T>(value); });
    });
  });
}

}  // namespace tenon::ops::cpu
