#include "tenon/ops/cpu/fused/conv_transpose2d_epilogue.h"

#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/conv_transpose_tiles.h"
#include "tenon/ops/cpu/fused/epilogue.h"
#include "tenon/ops/cpu/ordered_commit.h"

namespace tenon::ops::cpu {
namespace {

template <class T>
const T* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

template <class T>
T* result_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

/// The fused backward of one dtype.
template <class T, class EpilogueFunction>
class Backward {
 public:
  using Compute = compute_type<T>;

  Backward(const TransposedPlan& plan, const PackedOperands<T>& operands,
           const EpilogueFunction& epilogue, const T* x, const T* grad_out, T* grad_x,
           T* grad_weight, T* grad_bias)
      : plan_(plan),
        operands_(operands),
        epilogue_(epilogue),
        x_(x),
        grad_out_(grad_out),
        grad_x_(grad_x),
        grad_weight_(grad_weight),
        grad_bias_(grad_bias) {}

  void run() const {
    const Scratch<Compute> weight_sum(grad_weight_ ? plan_.groups * plan_.group_weights() : 0);
    const Scratch<Compute> bias_sum(grad_bias_ ? plan_.groups * plan_.out_channels : 0);
    weight_sum.fill_zero();
    bias_sum.fill_zero();
    const std::int64_t images =
        images_per_chunk(plan_.batch, plan_.rows.input * plan_.columns.input);
    const std::int64_t chunks = (plan_.batch + images - 1) / images;
    OrderedCommit commit;
    parallel_for(0, plan_.groups * chunks, 1, [&](std::int64_t chunk, std::int64_t) {
      const std::int64_t group = chunk / chunks;
      const std::int64_t first = chunk % chunks * images;
      const Sums sums(grad_weight_ ? plan_.group_weights() : 0,
                      grad_bias_ ? plan_.out_channels : 0);
      commit.run(
          chunk, [&] { run_images(group, first, std::min(first + images, plan_.batch), sums); },
          [&] {
            add(sums.weights, weight_sum.data() + group * sums.weights.size());
            add(sums.bias, bias_sum.data() + group * sums.bias.size());
          });
    });
    if (grad_weight_) {
      // Taps that reach no output belong to no phase: their gradient is zero.
      std::fill_n(grad_weight_, plan_.groups * plan_.group_weights(), T{});
      for_each_weight(plan_, [&](std::int64_t k, std::int64_t i) {
        grad_weight_[k] = static_cast<T>(weight_sum.data()[i]);
      });
    }
    for (std::int64_t c = 0; c < bias_sum.size(); ++c) {
      grad_bias_[c] = static_cast<T>(bias_sum.data()[c]);
    }
  }

 private:
  /// What a chunk of images adds up.
  struct Sums {
    Sums(std::int64_t weight_count, std::int64_t bias_count)
        : weights(weight_count), bias(bias_count) {
      weights.fill_zero();
      bias.fill_zero();
    }
    Scratch<Compute> weights;
    Scratch<Compute> bias;
  };

  /// A thread's buffers for one tile.
  struct Buffers {
    explicit Buffers(const TransposedPlan& plan)
        : columns(plan.max_depth * plan.max_positions()),
          y(plan.out_channels * plan.max_positions()),
          grad(plan.out_channels * plan.max_positions()) {}
    Scratch<Compute> columns;
    Scratch<Compute> y;
    Scratch<Compute> grad;
  };

  static void add(const Scratch<Compute>& part, Compute* sum) {
    for (std::int64_t i = 0; i < part.size(); ++i) sum[i] += part.data()[i];
  }

  void run_images(std::int64_t group, std::int64_t first, std::int64_t last,
                  const Sums& sums) const {
    constexpr bool kDirect = std::is_same_v<T, Compute>;
    const Buffers buffers(plan_);
    // Of 16-bit types grad_x is summed in float, one image and group at a time.
    const Scratch<Compute> image_sum(grad_x_ && !kDirect ? plan_.input_size() : 0);
    for (std::int64_t n = first; n < last; ++n) {
      const std::int64_t slice = n * plan_.groups + group;
      Compute* grad_image = image_sum.data();
      if constexpr (kDirect) {
        if (grad_x_) grad_image = grad_x_ + slice * plan_.input_size();
      }
      if (grad_x_) std::fill_n(grad_image, plan_.input_size(), Compute{});
      for (std::int64_t index = 0; index < plan_.tiles(); ++index) {
        for (const Phase& phase : plan_.phases) {
          run_tile(group, slice, phase, plan_.tile(index, phase), buffers, sums, grad_image);
        }
      }
      if constexpr (!kDirect) {
        if (grad_x_) {
          std::transform(grad_image, grad_image + plan_.input_size(),
                         grad_x_ + slice * plan_.input_size(),
                         [](Compute value) { return static_cast<T>(value); });
        }
      }
    }
  }

  void run_tile(std::int64_t group, std::int64_t slice, const Phase& phase, const Tile& tile,
                const Buffers& buffers, const Sums& sums, Compute* grad_image) const {
    const std::int64_t count = tile.count();
    if (count == 0) return;
    Compute* columns = buffers.columns.data();
    Compute* grad = buffers.grad.data();
    pack_columns(plan_, phase, tile, x_ + slice * plan_.input_size(), columns);
    convolve_tile<T>(plan_, operands_, group, phase, count, columns, buffers.y.data());
    load_grad(slice, phase, tile, grad);
    epilogue_.gradient(buffers.y.data(), grad, plan_.out_channels * count);
    if (grad_bias_) {
      for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
        sums.bias.data()[c] +=
            Eigen::Map<const Eigen::Array<Compute, Eigen::Dynamic, 1>>(grad + c * count, count)
                .sum();
      }
    }
    if (grad_weight_) {
      gemm<Compute>(plan_.out_channels, phase.depth, count, {grad, count, 1}, {columns, 1, count},
                    sums.weights.data() + phase.weights, phase.depth, true);
    }
    if (grad_x_) {
      // The columns have served: their place takes their gradient.
      gemm<Compute>(phase.depth, count, plan_.out_channels,
                    {operands_.weights(plan_, group, phase), 1, phase.depth}, {grad, count, 1},
                    columns, count, false);
      unpack_columns(plan_, phase, tile, columns, grad_image);
    }
  }

  /// grad [out_channels, positions] = the tile's part of grad_out.
  void load_grad(std::int64_t slice, const Phase& phase, const Tile& tile, Compute* grad) const {
    const std::int64_t plane = plan_.rows.output * plan_.columns.output;
    for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
      const T* source = grad_out_ + slice * plan_.output_size() + c * plane;
      for_each_output_row(plan_, phase, tile, [&](std::int64_t j, std::int64_t o) {
        Compute* target = grad + c * tile.count() + j;
        for (std::int64_t i = 0; i < tile.columns; ++i) {
          target[i] = static_cast<Compute>(source[o + i * plan_.stride.w]);
        }
      });
    }
  }

  const TransposedPlan& plan_;
  const PackedOperands<T>& operands_;
  const EpilogueFunction& epilogue_;
  const T* x_;
  const T* grad_out_;
  T* grad_x_;
  T* grad_weight_;
  T* grad_bias_;
};

}  // namespace

void conv_transpose2d_epilogue(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                               const Tensor& z) {
  if (z.numel() == 0) return;
  const TransposedPlan plan(x.shape(), weight.shape(), z.shape(), options);
  visit_floating(x.dtype(), "conv_transpose2d_epilogue", [&]<class T>() {
    const MishClampScale<compute_type<T>> function(epilogue);
    run_tiles<T>(
        plan, x.data<T>(), weight.data<T>(), data_or_null<T>(bias),
        [&](compute_type<T>* values, std::int64_t count) { function.apply(values, count); },
        z.data<T>());
  });
}

void conv_transpose2d_epilogue_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                        const Tensor& grad_out,
                                        const ConvTranspose2dOptions& options,
                                        const Epilogue& epilogue, const Tensor& grad_x,
                                        const Tensor& grad_weight, const Tensor& grad_bias) {
  const TransposedPlan plan(x.shape(), weight.shape(), grad_out.shape(), options);
  visit_floating(x.dtype(), "conv_transpose2d_epilogue_backward", [&]<class T>() {
    using Function = MishClampScale<compute_type<T>>;
    const Function function(epilogue);
    const PackedOperands<T> operands(plan, weight.data<T>(), data_or_null<T>(bias));
    Backward<T, Function>(plan, operands, function, x.data<T>(), grad_out.data<T>(),
                          result_or_null<T>(grad_x), result_or_null<T>(grad_weight),
                          result_or_null<T>(grad_bias))
        .run();
  });
}

}  // namespace tenon::ops::cpu
