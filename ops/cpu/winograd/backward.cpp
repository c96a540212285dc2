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

/// Small images are taken together to about so many outputs of a phase, over whose tiles a product
/// of the weight gradient sums, where as many items are left as a few cores want. The number of
/// threads has no part in these numbers, because the sums are added up item by item.
constexpr std::int64_t kOutputsOfItem = 512;
constexpr std::int64_t kLeastItems = 4;
/// Partial sums of the weight gradient, at most.
constexpr std::int64_t kMostChunks = 64;

/// Some images at a time: the gradient of z with channels side by side, which becomes dy in place
/// as y is computed again; of it dx and the weight gradient.
///
/// Position i of x takes part in y[q] of a phase at q = i - first - later and q = i - first - later
/// - 1, by the taps g0 and g1: with e, the elements of dy from q = i - first - later - 1 on,
///   dx[i + j] = e_j·g1 + e_(j + 1)·g0
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
    const std::int64_t outputs =
        plan.rows.tiles * plan.rows.form.tile * plan.columns.tiles * plan.columns.form.tile;
    images_ = std::min(kOutputsOfItem / outputs, plan.batch / kLeastItems);
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
          factors(b.factors_size()),
          products(b.products_size()),
          outputs(b.outputs_, factors.data(), products.data()),
          rows(b.plan_.rows.input_form.tile * b.tiles_of_run() * b.plan_.columns.input_form.tile *
               b.plan_.in_channels),
          weight(b.weight_gradient_, b.tiles_of_item(), factors.data()),
          weight_sums(b.gradients_.weight != nullptr ? b.weight_gradient_.size() : 0),
          bias_sums(b.plan_.out_channels),
          row_sums(b.plan_.out_channels) {
      bias_sums.fill_zero();
    }
    Scratch<float> x, dy;  // windows
    /// Of y, then of dy for dx ([member of a group][phase of the columns][factor along
    /// them][tile][channel of y]), then of both for the weight gradient.
    Scratch<float> factors;
    Scratch<float> products;  // of y, then of dx: [factor][tile][channel of x]
    Outputs::Buffers outputs;
    Scratch<float> rows;  // of dx, those of a few tiles: [row][column][channel of x]
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
    const std::int64_t tap = sums.size() / plan_.taps();
    parallel_for(0, plan_.taps(), 1, [&](std::int64_t begin, std::int64_t end) {
      std::copy_n(gradients_.weight + begin * tap, (end - begin) * tap, sums.data() + begin * tap);
    });
    weight_gradient_.store(sums.data(), gradients_.weight);
  }

  /// Rows of tiles of x, and tiles, whose products are computed together.
  std::int64_t gradient_rows() const {
    return std::max<std::int64_t>(
        1, Outputs::tiles_at_once(plan_.input_factors()) / plan_.columns.input_tiles);
  }
  std::int64_t gradient_tiles() const { return gradient_rows() * plan_.columns.input_tiles; }
  std::int64_t tiles_of_item() const { return images_ * plan_.rows.tiles * plan_.columns.tiles; }
  /// Elements of the products, and of the factors of a member of a group.
  std::int64_t products_size() const {
    return std::max(outputs_.products_size(),
                    plan_.input_factors() * spread(gradient_tiles() * plan_.in_channels));
  }
  std::int64_t member_size(std::int64_t tiles) const {
    return plan_.stride.w * plan_.columns.input_form.factors() * spread(tiles * plan_.out_channels);
  }
  std::int64_t factors_size() const {
    return std::max(
        {outputs_.factors_size(), 2 * member_size(gradient_tiles()),
         gradients_.weight != nullptr ? weight_gradient_.factors_size(tiles_of_item()) : 0});
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
    outputs_.compute({0, images, 0, plan_.rows.tiles}, buffers.x.data(), 0,
                     outputs_.filters().strips().count, buffers.outputs,
                     [&](const Outputs::Run& run, const float* y) {
                       float* dy = dy_of(buffers, run);
                       kernels_.gradient(chain_, y, dy, run.columns * plan_.out_channels);
                       if (gradients_.bias != nullptr) sum_bias(dy, run.columns, buffers);
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

  float* dy_of(const Buffers& buffers, const Outputs::Run& run) const {
    return buffers.dy.data() + run.image * dy_window_.image_size() +
           dy_window_.offset(top() + run.row, left() + run.column);
  }

  /// Adds a run of dy, whose sum is taken first: long sums lose digits.
  void sum_bias(const float* dy, std::int64_t columns, const Buffers& buffers) const {
    buffers.row_sums.fill_zero();
    simd::WeightedRows rows{.rows = {dy},
                            .weights = {1},
                            .count = 1,
                            .width = plan_.out_channels,
                            .repeats = columns,
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
      announce_rows(first, last, grad_x, buffers);
      for (std::int64_t row_phase = 0; row_phase < plan_.stride.h; ++row_phase) {
        for (const Group& group : plan_.rows.input_form.data) {
          compute_factors(first, last, group, row_phase, buffers);
          for (int member = 0; member < group.members; ++member) {
            multiply(last - first, group.first + member, member, row_phase, buffers);
          }
        }
      }
      for (std::int64_t row = first; row < last; ++row) {
        store_rows(row, row - first, last - first, grad_x, buffers);
      }
    }
  }

  /// Adds a row phase's products of one factor along the rows, the `member` of its group.
  void multiply(std::int64_t tile_rows, int vertical, int member, std::int64_t row_phase,
                const Buffers& buffers) const {
    const std::int64_t tiles = tile_rows * plan_.columns.input_tiles;
    const int along = plan_.columns.input_form.factors();
    const float* factors = buffers.factors.data() + member * member_size(tiles);
    for (std::int64_t phase = 0; phase < plan_.stride.w; ++phase) {
      for (int horizontal = 0; horizontal < along; ++horizontal) {
        const int factor = vertical * along + horizontal;
        filters_.multiply(
            factors + (phase * along + horizontal) * spread(tiles * plan_.out_channels), tiles,
            row_phase * plan_.stride.w + phase, factor, 0, filters_.strips().count,
            row_phase + phase > 0,
            buffers.products.data() + factor * spread(tiles * plan_.in_channels), plan_.in_channels,
            &buffers.ahead);
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
      const std::int64_t y = first_row(row);
      const std::int64_t image = row / plan_.rows.input_tiles;
      buffers.ahead.add(grad_x + (image * plan_.in_channels * height + y) * width,
                        plan_.in_channels, height * width,
                        std::min<std::int64_t>(plan_.rows.input_form.tile, height - y) * width);
    }
    buffers.ahead.start(
        plan_.input_factors() * plan_.phases() *
        filters_.calls((last - first) * plan_.columns.input_tiles, 0, filters_.strips().count));
  }

  /// Where a row of tiles, counted through images, begins in x.
  std::int64_t first_row(std::int64_t tile_row) const {
    return plan_.rows.input_form.tile * (tile_row % plan_.rows.input_tiles);
  }

  /// A row phase's factors of dy along the columns, of a group along the rows, for rows of tiles of
  /// x counted through the item's images.
  void compute_factors(std::int64_t first, std::int64_t last, const Group& group,
                       std::int64_t row_phase, const Buffers& buffers) const {
    const std::int64_t row_size = plan_.columns.input_tiles * plan_.out_channels;
    const Form& form = plan_.columns.input_form;
    const std::int64_t size = spread((last - first) * row_size);
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t q = first_row(i) - plan_.rows.first - plan_.rows.later(row_phase) - 1;
      const float* image = buffers.dy.data() + i / plan_.rows.input_tiles * dy_window_.image_size();
      for (std::int64_t phase = 0; phase < plan_.stride.w; ++phase) {
        const std::int64_t q_column = -plan_.columns.first - plan_.columns.later(phase) - 1;
        const float* corner = image + dy_window_.offset(top() + q * plan_.stride.h + row_phase,
                                                        left() + q_column * plan_.stride.w + phase);
        simd::FactorRows rows{.element_step = plan_.stride.w * plan_.out_channels,
                              .width = plan_.out_channels,
                              .repeats = plan_.columns.input_tiles,
                              .row_step = form.tile * plan_.stride.w * plan_.out_channels,
                              .target = buffers.factors.data() + phase * form.factors() * size +
                                        (i - first) * row_size,
                              .target_member = plan_.stride.w * form.factors() * size,
                              .target_factor = size,
                              .target_step = plan_.out_channels,
                              .target_vector = kernels_.lanes};
        set_rows(rows, group,
                 [&](int r) { return corner + dy_window_.offset(r * plan_.stride.h, 0); });
        kernels_.data_factors(rows, form.tile, 1);
      }
    }
  }

  /// Tiles of x of a row that are stored together: whole lines of memory where rows are as long.
  std::int64_t tiles_of_run() const {
    constexpr std::int64_t kLine = 16;  // floats
    return std::min(kLine / plan_.columns.input_form.tile, plan_.columns.input_tiles);
  }

  /// The rows of dx of a row of tiles that is number `index` of `count` in the products.
  void store_rows(std::int64_t tile_row, std::int64_t index, std::int64_t count, float* grad_x,
                  const Buffers& buffers) const {
    const std::int64_t tile_columns = plan_.columns.input_tiles;
    const std::int64_t channels = plan_.in_channels;
    const Form& form = plan_.columns.input_form;
    const std::int64_t factor = spread(count * tile_columns * channels);
    for (std::int64_t tile = 0; tile < tile_columns; tile += tiles_of_run()) {
      const std::int64_t tiles = std::min(tiles_of_run(), tile_columns - tile);
      kernels_.outputs(
          {.products = buffers.products.data() + (index * tile_columns + tile) * channels,
           .row_factor = form.factors() * factor,
           .column_factor = factor,
           .width = channels,
           .repeats = tiles,
           .start = nullptr,
           .target = buffers.rows.data(),
           .target_row = tiles * form.tile * channels,
           .target_column = channels,
           .target_step = form.tile * channels},
          plan_.rows.input_form.tile, form.tile);
      store_tiles(tile_row, tile, tiles, grad_x, buffers);
    }
  }

  /// What `store_rows` has of the tiles [tile, tile + tiles) of a row.
  void store_tiles(std::int64_t tile_row, std::int64_t tile, std::int64_t tiles, float* grad_x,
                   const Buffers& buffers) const {
    const std::int64_t height = plan_.rows.phase_axis.input;
    const std::int64_t width = plan_.columns.phase_axis.input;
    const std::int64_t channels = plan_.in_channels;
    const std::int64_t computed = tiles * plan_.columns.input_form.tile;
    const std::int64_t column = tile * plan_.columns.input_form.tile;
    const std::int64_t first = first_row(tile_row);
    const std::int64_t rows = std::min<std::int64_t>(plan_.rows.input_form.tile, height - first);
    float* target =
        grad_x + (tile_row / plan_.rows.input_tiles * channels * height + first) * width + column;
    // Whole rows follow each other here as there.
    const std::int64_t together = width == computed ? rows : 1;
    for (std::int64_t r = 0; r < rows; r += together) {
      kernels_.transpose(buffers.rows.data() + r * computed * channels, channels,
                         together * std::min(computed, width - column), channels,
                         target + r * width, height * width);
    }
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
