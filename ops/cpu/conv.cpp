#include "tenon/ops/cpu/conv.h"

#include <algorithm>
#include <type_traits>

#include "tenon/core/half.h"
#include "tenon/core/kernels.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/batched/convolution.h"
#include "tenon/ops/cpu/columns.h"
#include "tenon/ops/cpu/conv_columns.h"
#include "tenon/ops/cpu/gemm.h"
#include "tenon/ops/cpu/ordered_commit.h"
#include "tenon/ops/cpu/scratch.h"

namespace tenon::ops::cpu {
namespace {

/// Elements in a block of columns: what half of a usual second-level cache holds.
constexpr std::int64_t kBlockElements = 1 << 17;

using Geometry = ConvGeometry;

/// columns[(c, ky, kx), j] = what output position `first` + j reads of `image` [channels, H, W].
template <class T, class Compute>
void pack_columns(const Geometry& g, const T* image, std::int64_t first, std::int64_t count,
                  Compute* columns) {
  for (std::int64_t c = 0; c < g.in_channels; ++c) {
    for (std::int64_t ky = 0; ky < g.kernel.h; ++ky) {
      for (std::int64_t kx = 0; kx < g.kernel.w; ++kx) {
        for (std::int64_t done = 0; done < count;) {
          const std::int64_t oy = (first + done) / g.out_width;
          const std::int64_t ox = (first + done) % g.out_width;
          const std::int64_t run = std::min(count - done, g.out_width - ox);
          const std::int64_t iy = oy * g.stride.h - g.padding.h + ky * g.dilation.h;
          const std::int64_t ix = ox * g.stride.w - g.padding.w + kx * g.dilation.w;
          if (iy >= 0 && iy < g.height) {
            gather_row(image + (c * g.height + iy) * g.width, g.width, ix, g.stride.w, run,
                       columns + done);
          } else {
            std::fill_n(columns + done, run, Compute{});
          }
          done += run;
        }
        columns += count;
      }
    }
  }
}

/// How a convolution's output positions are cut into blocks, and their columns made: of float32 in
/// whole rows, through `ConvColumns`, unless a row alone is too much.
template <class T>
class Blocks {
 public:
  using Compute = compute_type<T>;

  explicit Blocks(const Geometry& g)
      : g_(g),
        by_rows_(std::is_same_v<T, float> && g.depth() * g.out_width <= 8 * kBlockElements),
        rows_(g, simd::kernels(), kBlockElements),
        positions_(by_rows_ ? rows_.rows() * g.out_width
                            : std::clamp<std::int64_t>(
                                  kBlockElements / std::max<std::int64_t>(1, g.depth()), 16,
                                  std::max<std::int64_t>(16, g.positions()))) {}

  /// Positions of a block, and blocks of an image.
  std::int64_t positions() const { return positions_; }
  std::int64_t count() const { return (g_.positions() + positions_ - 1) / positions_; }
  /// Elements of a block's columns, and of the memory that packing needs besides.
  std::int64_t size() const { return by_rows_ ? rows_.size() : g_.depth() * positions_; }
  std::int64_t window_size() const { return by_rows_ ? rows_.window_size() : 0; }

  /// columns[(c, ky, kx), j] = what output position `first`, where a block begins, + j reads.
  void pack(const T* image, std::int64_t first, std::int64_t count, Compute* window,
            Compute* columns) const {
    if constexpr (std::is_same_v<T, float>) {
      if (by_rows_) {
        rows_.pack(image, first / g_.out_width, count / g_.out_width, window, columns);
        return;
      }
    }
    pack_columns(g_, image, first, count, columns);
  }

 private:
  const Geometry& g_;
  bool by_rows_;
  ConvColumns rows_;
  std::int64_t positions_;
};

/// y[c, first + j] = values[c·stride + j] + bias[c]
template <class T>
void store_block(const Geometry& g, const compute_type<T>* values, std::int64_t stride,
                 std::int64_t first, std::int64_t count, const T* bias, T* y) {
  if (std::is_same_v<T, compute_type<T>> && bias == nullptr) return;
  for (std::int64_t c = 0; c < g.out_channels; ++c) {
    const auto add = bias == nullptr ? compute_type<T>{} : static_cast<compute_type<T>>(bias[c]);
    T* target = y + c * g.positions() + first;
    for (std::int64_t j = 0; j < count; ++j) {
      target[j] = static_cast<T>(values[c * stride + j] + add);
    }
  }
}

template <class T>
void conv2d_typed(const Geometry& g, const T* x, const T* weight, const T* bias, T* y) {
  using Compute = compute_type<T>;
  constexpr bool kDirect = std::is_same_v<T, Compute>;
  const std::int64_t depth = g.depth();
  const Blocks<T> cut(g);
  const std::int64_t block = cut.positions();
  const std::int64_t blocks = cut.count();
  const std::int64_t weight_size = g.groups * g.out_channels * depth;
  const Scratch<Compute> weight_copy(copy_size<T>(weight_size));
  const Compute* weights = as_compute<T>(weight, weight_size, weight_copy);
  const bool reads_image = kDirect && g.is_pointwise();
  const std::int64_t items = g.batch * g.groups * blocks;
  parallel_for(0, items, (items + 63) / 64, [&](std::int64_t begin, std::int64_t end) {
    const Scratch<Compute> columns(reads_image ? 0 : cut.size());
    const Scratch<Compute> window(reads_image ? 0 : cut.window_size());
    const Scratch<Compute> tile(copy_size<T>(g.out_channels * block));
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t slice = item / blocks;  // image and group
      const std::int64_t group = slice % g.groups;
      const std::int64_t first = item % blocks * block;
      const std::int64_t count = std::min(block, g.positions() - first);
      const T* image = x + slice * g.in_channels * g.height * g.width;
      T* result = y + slice * g.out_channels * g.positions();
      MatrixView<const Compute> right{columns.data(), count, 1};
      if constexpr (kDirect) {
        if (reads_image) right = {image + first, g.positions(), 1};
      }
      if (!reads_image) cut.pack(image, first, count, window.data(), columns.data());
      Compute* values = tile.data();
      std::int64_t values_stride = count;
      if constexpr (kDirect) {
        values = result + first;
        values_stride = g.positions();
      }
      gemm<Compute>(g.out_channels, count, depth,
                    {weights + group * g.out_channels * depth, depth, 1}, right, values,
                    values_stride, false);
      store_block<T>(g, values, values_stride, first, count,
                     bias == nullptr ? nullptr : bias + group * g.out_channels, result);
    }
  });
}

/// Adds the weight gradient of one image and group to `partial` [out_channels, depth].
template <class T>
void add_weight_grad(const Geometry& g, const Blocks<T>& cut, const T* image, const T* grad,
                     const Scratch<compute_type<T>>& window,
                     const Scratch<compute_type<T>>& columns,
                     const Scratch<compute_type<T>>& grad_copy, compute_type<T>* partial) {
  using Compute = compute_type<T>;
  const std::int64_t block = cut.positions();
  const std::int64_t depth = g.depth();
  for (std::int64_t first = 0; first < g.positions(); first += block) {
    const std::int64_t count = std::min(block, g.positions() - first);
    cut.pack(image, first, count, window.data(), columns.data());
    MatrixView<const Compute> left{grad_copy.data(), count, 1};
    if constexpr (std::is_same_v<T, Compute>) {
      left = {grad + first, g.positions(), 1};
    } else {
      for (std::int64_t c = 0; c < g.out_channels; ++c) {
        gather_row(grad + c * g.positions(), g.positions(), first, 1, count,
                   grad_copy.data() + c * count);
      }
    }
    gemm<Compute>(g.out_channels, depth, count, left, {columns.data(), 1, count}, partial, depth,
                  true);
  }
}

template <class T>
void weight_grad_typed(const Geometry& g, const T* x, const T* grad_out, T* grad_weight) {
  using Compute = compute_type<T>;
  const std::int64_t depth = g.depth();
  const std::int64_t group_size = g.out_channels * depth;
  const Scratch<Compute> sum(copy_size<T>(g.groups * group_size));
  const Blocks<T> cut(g);
  Compute* total = sum.data();
  if constexpr (std::is_same_v<T, Compute>) total = grad_weight;
  std::fill_n(total, g.groups * group_size, Compute{});
  const std::int64_t images = images_per_chunk(g.batch, g.positions());
  const std::int64_t chunks = (g.batch + images - 1) / images;
  OrderedCommit commit;
  parallel_for(0, g.groups * chunks, 1, [&](std::int64_t chunk, std::int64_t) {
    const std::int64_t group = chunk / chunks;
    const std::int64_t first = chunk % chunks * images;
    const Scratch<Compute> partial(group_size);
    commit.run(
        chunk,
        [&] {
          const Scratch<Compute> window(cut.window_size());
          const Scratch<Compute> columns(cut.size());
          const Scratch<Compute> grad_copy(copy_size<T>(g.out_channels * cut.positions()));
          partial.fill_zero();
          for (std::int64_t n = first; n < std::min(first + images, g.batch); ++n) {
            const std::int64_t slice = n * g.groups + group;
            add_weight_grad<T>(g, cut, x + slice * g.in_channels * g.height * g.width,
                               grad_out + slice * g.out_channels * g.positions(), window, columns,
                               grad_copy, partial.data());
          }
        },
        [&] {
          Compute* target = total + group * group_size;
          for (std::int64_t i = 0; i < group_size; ++i) target[i] += partial.data()[i];
        });
  });
  if constexpr (!std::is_same_v<T, Compute>) {
    std::transform(total, total + g.groups * group_size, grad_weight,
                   [](Compute value) { return static_cast<T>(value); });
  }
}

}  // namespace

void conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options,
            const Tensor& y) {
  if (y.numel() == 0) return;
  if (x.dtype() == DType::Float32 && batched_conv2d(x, weight, bias, options, y)) return;
  const Geometry geometry(x.shape(), y.shape(), {weight.size(2), weight.size(3)}, options);
  visit_floating(x.dtype(), "conv2d", [&]<class T>() {
    conv2d_typed<T>(geometry, x.data<T>(), weight.data<T>(),
                    bias.defined() ? bias.data<T>() : nullptr, y.data<T>());
  });
}

void conv2d_weight_grad(const Tensor& x, const Tensor& grad_out, const Conv2dOptions& options,
                        const Tensor& grad_weight) {
  if (x.dtype() == DType::Float32 &&
      batched_conv2d_backward(x, {}, grad_out, options, {}, grad_weight, {})) {
    return;
  }
  const Geometry geometry(x.shape(), grad_out.shape(), {grad_weight.size(2), grad_weight.size(3)},
                          options);
  visit_floating(x.dtype(), "conv2d_weight_grad", [&]<class T>() {
    weight_grad_typed<T>(geometry, x.data<T>(), grad_out.data<T>(), grad_weight.data<T>());
  });
}

void conv2d_backward(const Tensor& x, const Tensor& weight, const Tensor& grad_out,
                     const Conv2dOptions& options, const Tensor& grad_x, const Tensor& grad_weight,
                     const Tensor& grad_bias) {
  if (x.dtype() == DType::Float32 &&
      batched_conv2d_backward(x, weight, grad_out, options, grad_x, grad_weight, grad_bias)) {
    return;
  }
  if (grad_x.defined()) {
    // The kernel takes the size of its result from the result.
    conv_transpose2d(grad_out, weight, {},
                     {.stride = options.stride,
                      .padding = options.padding,
                      .dilation = options.dilation,
                      .groups = options.groups},
                     grad_x);
  }
  conv2d_weight_grad(x, grad_out, options, grad_weight);
  if (grad_bias.defined()) {
    kernels::sum_to(grad_out, grad_bias.reshape({1, grad_bias.numel(), 1, 1}));
  }
}

}  // namespace tenon::ops::cpu
