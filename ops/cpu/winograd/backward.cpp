#include <algorithm>

#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/fused/block_gradients.h"
#include "tenon/ops/cpu/ordered_commit.h"
#include "tenon/ops/cpu/winograd/block.h"
#include "tenon/ops/cpu/winograd/outputs.h"
#include "tenon/ops/cpu/winograd/weight_gradient.h"

namespace tenon::ops::cpu {
namespace winograd {
namespace {

/// Small images are taken together to about so many tiles, over which a product of the weight
/// gradient sums, where as many items are left as a few cores want. The number of threads has no
/// part in these numbers, because the sums are added up item by item.
constexpr std::int64_t kTilesOfItem = 128;
constexpr std::int64_t kLeastItems = 4;
/// Partial sums of the weight gradient, at most.
constexpr std::int64_t kMostChunks = 64;

/// Some images at a time: the gradient of z with channels side by side, which becomes dy in place
/// as y is computed again; of it dx and the weight gradient.
///
/// Position i of x takes part in y[q] of a phase at q = i - first - later and q = i - first - later
/// - 1, by the taps g0 and g1: of e, the three elements of dy from q = 2i - first - later - 1 on,
///   dx[2i]     = e0·g1 + e1·g0
///   dx[2i + 1] = e1·g1 + e2·g0
/// which is the forward's form with the taps in reverse.
class Backward {
 public:
  Backward(const Plan& plan, const simd::Kernels& kernels, const simd::Chain& chain,
           const Tensor& weight, const Tensor& bias, const BlockGradients& gradients)
      : plan_(plan),
        kernels_(kernels),
        chain_(chain),
        gradients_(gradients),
        outputs_(plan, kernels, weight, bias),
        filters_(Filters::gradient(plan, kernels, weight)),
        weight_gradient_(plan, kernels),
        x_window_(outputs_.window(plan.rows.tiles)),
        dy_window_(kernels, plan.out_channels, plan.output_rows(), plan.output_columns(),
                   (plan.rows.high - plan.rows.low) * plan.stride.h,
                   (plan.columns.high - plan.columns.low) * plan.stride.w) {
    const std::int64_t tiles = plan.rows.tiles * plan.columns.tiles;
    images_ = std::min(kTilesOfItem / tiles, plan.batch / kLeastItems);
    images_ = std::max<std::int64_t>(1, images_);
  }

  void run(const float* x, const float* grad_out) const {
    const std::int64_t items = (plan_.batch + images_ - 1) / images_;
    const std::int64_t grain = (items + kMostChunks - 1) / kMostChunks;
    const Scratch<float> bias_sums(plan_.out_channels);
    OrderedCommit commit;
    parallel_for(0, (items + grain - 1) / grain, 1, [&](std::int64_t chunk, std::int64_t) {
      const Buffers buffers(*this);
      commit.run(
          chunk,
          [&] {
            for (std::int64_t i = chunk * grain; i < std::min((chunk + 1) * grain, items); ++i) {
              run_item(i * images_, std::min(images_, plan_.batch - i * images_), x, grad_out,
                       i > chunk * grain, buffers);
            }
          },
          [&] {
            // In the gradient's own memory, of the same size.
            commit_sums(buffers.weight_sums, chunk > 0, gradients_.weight);
            commit_sums(buffers.bias_sums, chunk > 0, bias_sums.data());
          });
    });
    if (gradients_.weight != nullptr) store_weight_gradient();
    if (gradients_.bias != nullptr) {
      std::copy_n(bias_sums.data(), bias_sums.size(), gradients_.bias);
    }
  }

 private:
  /// A thread's memory, and what a chunk of items adds up.
  struct Buffers {
    explicit Buffers(const Backward& b)
        : x(b.images_ * b.x_window_.image_size()),
          dy(b.images_ * b.dy_window_.image_size()),
          products(b.products_size()),
          outputs(b.outputs_, products.data()),
          combined(b.dy_window_.row_size()),
          factors(3 * b.gradient_tiles() * b.plan_.out_channels),
          rows((4 * b.plan_.columns.input_tiles + 1) * b.plan_.in_channels),
          weight(b.weight_gradient_, b.images_ * b.plan_.rows.tiles * b.plan_.columns.tiles,
                 std::max(b.x_window_.row_size(), b.dy_window_.row_size()),
                 b.gradients_.weight != nullptr, products.data()),
          weight_sums(b.gradients_.weight != nullptr ? b.weight_gradient_.size() : 0),
          bias_sums(b.plan_.out_channels),
          row_sums(b.plan_.out_channels) {
      bias_sums.fill_zero();
    }
    Scratch<float> x, dy;  // windows
    /// Of y, then of dx ([factor][tile][channel of x]), then of the weight gradient.
    Scratch<float> products;
    Outputs::Buffers outputs;
    Scratch<float> combined;  // rows of dy
    Scratch<float> factors;   // of dy: [factor along the columns][tile][channel of y]
    Scratch<float> rows;      // two of dx: [row][column][channel of x]
    WeightGradient::Buffers weight;
    Scratch<float> weight_sums, bias_sums;
    Scratch<float> row_sums;  // of the bias gradient
    mutable LinesAhead ahead{};
  };

  static void add(const Scratch<float>& part, float* sum) {
    for (std::int64_t i = 0; i < part.size(); ++i) sum[i] += part.data()[i];
  }

  static void commit_sums(const Scratch<float>& part, bool adds, float* sum) {
    if (adds) {
      add(part, sum);
    } else {
      std::copy_n(part.data(), part.size(), sum);
    }
  }

  /// Brings the sums, which lie in the gradient's memory, into its order.
  void store_weight_gradient() const {
    const Scratch<float> sums(weight_gradient_.size());
    std::copy_n(gradients_.weight, sums.size(), sums.data());
    weight_gradient_.store(sums.data(), gradients_.weight);
  }

  /// Rows of tiles of x, and tiles, whose products are computed together.
  std::int64_t gradient_rows() const {
    return std::max<std::int64_t>(1, kTilesOfItem / 2 / plan_.columns.input_tiles);
  }
  std::int64_t gradient_tiles() const { return gradient_rows() * plan_.columns.input_tiles; }
  std::int64_t products_size() const {
    return std::max({outputs_.products_size(), kFactors * gradient_tiles() * plan_.in_channels,
                     gradients_.weight != nullptr ? weight_gradient_.products_size() : 0});
  }
  // Where output (0, 0) lies in dy's window.
  std::int64_t top() const { return -plan_.rows.low * plan_.stride.h; }
  std::int64_t left() const { return -plan_.columns.low * plan_.stride.w; }

  void run_item(std::int64_t image, std::int64_t images, const float* x, const float* grad_out,
                bool adds, const Buffers& buffers) const {
    const std::int64_t plane = plan_.rows.phase_axis.input * plan_.columns.phase_axis.input;
    const std::int64_t plane_out = plan_.output_rows() * plan_.output_columns();
    x_window_.pack(x + image * plan_.in_channels * plane, images, plan_.rows.first,
                   plan_.columns.first, buffers.x.data());
    dy_window_.pack(grad_out + image * plan_.out_channels * plane_out, images, -top(), -left(),
                    buffers.dy.data());
    const std::int64_t count = plan_.output_columns() * plan_.out_channels;
    outputs_.compute({0, images, 0, plan_.rows.tiles}, buffers.x.data(), 0,
                     outputs_.filters().strips().count, buffers.outputs,
                     [&](std::int64_t i, std::int64_t row, const float* y) {
                       float* dy = dy_row(buffers, i, row);
                       kernels_.gradient(chain_, y, dy, count);
                       if (gradients_.bias != nullptr) sum_bias(dy, buffers);
                     },
                     {});
    if (gradients_.x != nullptr) {
      compute_grad_x(images, gradients_.x + image * plan_.in_channels * plane, buffers);
    }
    if (gradients_.weight != nullptr) {
      weight_gradient_.compute(images, {x_window_, buffers.x.data(), 0, 0},
                               {dy_window_, buffers.dy.data(), top(), left()}, buffers.weight, adds,
                               buffers.weight_sums.data());
    }
  }

  float* dy_row(const Buffers& buffers, std::int64_t image, std::int64_t row) const {
    return buffers.dy.data() + image * dy_window_.image_size() +
           dy_window_.offset(top() + row, left());
  }

  /// Adds one row of dy, whose sum is taken first: long sums lose digits.
  void sum_bias(const float* dy, const Buffers& buffers) const {
    buffers.row_sums.fill_zero();
    simd::SignedRows rows{.rows = {dy},
                          .signs = {1},
                          .count = 1,
                          .width = plan_.out_channels,
                          .repeats = plan_.output_columns(),
                          .row_step = plan_.out_channels,
                          .target = buffers.row_sums.data(),
                          .target_step = 0,
                          .target_vector = kernels_.lanes,
                          .adds = true};
    kernels_.add_rows(rows);
    add(buffers.row_sums, buffers.bias_sums.data());
  }

  void compute_grad_x(std::int64_t images, float* grad_x, const Buffers& buffers) const {
    const std::int64_t all = images * plan_.rows.input_tiles;
    for (std::int64_t first = 0; first < all; first += gradient_rows()) {
      const std::int64_t last = std::min(first + gradient_rows(), all);
      const std::int64_t tiles = (last - first) * plan_.columns.input_tiles;
      announce_rows(first, last, grad_x, buffers);
      for (std::int64_t phase = 0; phase < plan_.phases(); ++phase) {
        for (int factor = 0; factor < kFactors; ++factor) {
          if (factor % 3 == 0) compute_factors(first, last, factor / 3, phase, buffers);
          filters_.multiply(buffers.factors.data() + factor % 3 * tiles * plan_.out_channels, tiles,
                            phase, factor, 0, filters_.strips().count, nullptr, phase > 0,
                            buffers.products.data() + factor * tiles * plan_.in_channels,
                            plan_.in_channels, &buffers.ahead);
        }
      }
      for (std::int64_t row = first; row < last; ++row) {
        store_rows(row, row - first, last - first, grad_x, buffers);
      }
    }
  }

  /// Says that rows [first, last) of tiles of dx are soon written.
  void announce_rows(std::int64_t first, std::int64_t last, const float* grad_x,
                     const Buffers& buffers) const {
    const std::int64_t height = plan_.rows.phase_axis.input;
    const std::int64_t width = plan_.columns.phase_axis.input;
    buffers.ahead.clear();
    for (std::int64_t row = first; row < last; ++row) {
      const std::int64_t y = 2 * (row % plan_.rows.input_tiles);
      const std::int64_t image = row / plan_.rows.input_tiles;
      buffers.ahead.add(grad_x + (image * plan_.in_channels * height + y) * width,
                        plan_.in_channels, height * width,
                        std::min<std::int64_t>(2, height - y) * width);
    }
    buffers.ahead.start(
        kFactors * plan_.phases() *
        filters_.calls((last - first) * plan_.columns.input_tiles, 0, filters_.strips().count));
  }

  /// One phase's three factors of dy along the columns, of one along the rows, for rows of tiles of
  /// x counted through the item's images.
  void compute_factors(std::int64_t first, std::int64_t last, int vertical, std::int64_t phase,
                       const Buffers& buffers) const {
    const std::int64_t row_phase = phase / plan_.stride.w;
    const std::int64_t column_phase = phase % plan_.stride.w;
    const std::int64_t tile_columns = plan_.columns.input_tiles;
    const std::int64_t q_column = -plan_.columns.first - plan_.columns.later(column_phase) - 1;
    const std::int64_t column = left() + q_column * plan_.stride.w + column_phase;
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t q_row =
          2 * (i % plan_.rows.input_tiles) - plan_.rows.first - plan_.rows.later(row_phase) - 1;
      const float* corner = buffers.dy.data() +
                            i / plan_.rows.input_tiles * dy_window_.image_size() +
                            dy_window_.offset(top() + q_row * plan_.stride.h + row_phase, 0);
      const float* combined = combine_rows(
          kernels_, data_terms(vertical), dy_window_.row_size(),
          [&](int r) { return corner + dy_window_.offset(r * plan_.stride.h, 0); },
          buffers.combined.data());
      kernels_.data_factors(
          {.row = combined + dy_window_.offset(0, column),
           .element_step = plan_.stride.w * plan_.out_channels,
           .width = plan_.out_channels,
           .repeats = tile_columns,
           .row_step = 2 * plan_.stride.w * plan_.out_channels,
           .target = buffers.factors.data() + (i - first) * tile_columns * plan_.out_channels,
           .target_factor = (last - first) * tile_columns * plan_.out_channels,
           .target_step = plan_.out_channels,
           .target_vector = kernels_.lanes},
          3);
    }
  }

  /// Two rows of dx, of a row of tiles that is number `index` of `count` in the products.
  void store_rows(std::int64_t tile_row, std::int64_t index, std::int64_t count, float* grad_x,
                  const Buffers& buffers) const {
    const std::int64_t height = plan_.rows.phase_axis.input;
    const std::int64_t width = plan_.columns.phase_axis.input;
    const std::int64_t channels = plan_.in_channels;
    const std::int64_t tile_columns = plan_.columns.input_tiles;
    const float* products = buffers.products.data() + index * tile_columns * channels;
    const std::int64_t first = 2 * (tile_row % plan_.rows.input_tiles);
    const std::int64_t rows = std::min<std::int64_t>(2, height - first);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < 2; ++c) {
        simd::SignedRows sum{.width = channels,
                             .repeats = tile_columns,
                             .row_step = channels,
                             .target = buffers.rows.data() + (r * width + c) * channels,
                             .target_step = 2 * channels,
                             .target_vector = kernels_.lanes};
        set_terms(sum, output_terms(r), output_terms(c), [&](int i, int j) {
          return products + (3 * i + j) * count * tile_columns * channels;
        });
        kernels_.add_rows(sum);
      }
    }
    kernels_.transpose(
        buffers.rows.data(), channels, rows * width, channels,
        grad_x + (tile_row / plan_.rows.input_tiles * channels * height + first) * width,
        height * width);
  }

  const Plan& plan_;
  const simd::Kernels& kernels_;
  const simd::Chain& chain_;
  BlockGradients gradients_;
  Outputs outputs_;
  Filters filters_;
  WeightGradient weight_gradient_;
  Window x_window_, dy_window_;
  std::int64_t images_;  // of an item
};

}  // namespace
}  // namespace winograd

bool winograd_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                       const Tensor& grad_out, const ConvTranspose2dOptions& options,
                       const simd::Chain& chain, const Tensor& grad_x, const Tensor& grad_weight,
                       const Tensor& grad_bias) {
  if (!winograd::suits(x.shape(), weight.shape(), grad_out.shape(), options)) return false;
  const winograd::Plan plan(x.shape(), weight.shape(), grad_out.shape(), options);
  winograd::Backward(plan, simd::kernels(), chain, weight, bias,
                     BlockGradients::of(grad_x, grad_weight, grad_bias))
      .run(x.data<float>(), grad_out.data<float>());
  return true;
}

}  // namespace tenon::ops::cpu
