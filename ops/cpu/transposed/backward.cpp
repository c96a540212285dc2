#include "tenon/ops/cpu/transposed/backward.h"

#include <algorithm>

#include "tenon/core/cpu/sum.h"
#include "tenon/ops/cpu/batched/convolution.h"
#include "tenon/ops/cpu/fused/block_gradients.h"
#include "tenon/ops/cpu/ordered_commit.h"
#include "tenon/ops/cpu/transposed/gradient_tiles.h"
#include "tenon/ops/cpu/transposed/packed_weights.h"
#include "tenon/ops/cpu/transposed/tile_input.h"
#include "tenon/ops/cpu/transposed/weight_gradient.h"
#include "tenon/ops/cpu/winograd/block.h"

namespace tenon::ops::cpu {
namespace {

/// Elements of x that are laid out at once to compute y again, and of dy to compute dx.
constexpr std::int64_t kInputElements = 1 << 18;

/// Tiles that share one partial sum: at most 64 sums, and few beside the work of computing them.
/// The number of threads has no part in it.
std::int64_t tiles_per_chunk(std::int64_t tiles, std::int64_t positions) {
  constexpr std::int64_t kMostChunks = 64;
  constexpr std::int64_t kLeastPositions = 96;
  return std::max((tiles + kMostChunks - 1) / kMostChunks,
                  (kLeastPositions + positions - 1) / positions);
}

/// One call of the backward. For each tile: the gradient of z, split into phases, becomes dy in
/// place, row by row as y is computed again; dx is a correlation of dy's phases, and the weight
/// gradient a sum over positions of products of x and dy, of which dy is turned so that output
/// channels lie side by side.
class Backward {
 public:
  Backward(const TransposedPlan& plan, const simd::Kernels& kernels, const simd::Chain& chain,
           const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& grad_out,
           const BlockGradients& gradients)
      : plan_(plan),
        kernels_(kernels),
        chain_(chain),
        tiles_(plan, kernels),
        weight_gradient_(plan, kernels, tiles_),
        block_rows_(rows_at_once(tiles_.q_rows(), tiles_.q_columns(),
                                 plan.in_channels * plan.kernel.h * plan.kernel.w)),
        block_images_(images_at_once(block_rows_ * tiles_.q_columns(),
                                     plan.in_channels * plan.kernel.h * plan.kernel.w)),
        input_(plan, kernels, block_images_, block_rows_, tiles_.q_columns()),
        narrow_(is_narrow(tiles_.columns(), kernels.lanes)),
        gradient_rows_(rows_at_once(tiles_.rows(), tiles_.columns(), depth())),
        gradient_images_(images_at_once(gradient_rows_ * tiles_.columns(), depth())),
        out_blocks_(plan.out_channels, kernels.channels),
        in_blocks_(plan.in_channels, kernels.channels),
        weights_(packed_weights(plan, kernels, weight)),
        gradient_weights_(gradients.x == nullptr
                              ? Tensor()
                              : packed_gradient_weights(plan, kernels, tiles_.taps(), weight)),
        bias_(plan.groups * plan.out_channels),
        x_(x.data<float>()),
        grad_out_(grad_out.data<float>()),
        gradients_(gradients) {
    bias_.fill_zero();
    if (bias.defined()) std::copy_n(bias.data<float>(), bias_.size(), bias_.data());
    make_offsets();
  }

  void run() const {
    const Scratch<float> weight_sums(
        gradients_.weight != nullptr ? plan_.groups * weight_gradient_.size() : 0);
    const Scratch<float> bias_sums(plan_.groups * plan_.out_channels);
    weight_sums.fill_zero();
    bias_sums.fill_zero();
    const std::int64_t items = tiles_.count();
    const std::int64_t grain = tiles_per_chunk(items, tiles_.positions());
    const std::int64_t chunks = (items + grain - 1) / grain;
    OrderedCommit commit;
    parallel_for(0, plan_.groups * chunks, 1, [&](std::int64_t chunk, std::int64_t) {
      const std::int64_t group = chunk / chunks;
      const std::int64_t first = chunk % chunks * grain;
      Buffers buffers(*this);
      commit.run(
          chunk,
          [&] {
            for (std::int64_t tile = first; tile < std::min(first + grain, items); ++tile) {
              run_tile(tiles_.item(group, tile), buffers);
            }
          },
          [&] {
            add(buffers.weight.sums, weight_sums.data() + group * buffers.weight.sums.size());
            add(buffers.bias_sums, bias_sums.data() + group * plan_.out_channels);
          });
    });
    if (gradients_.weight != nullptr) weight_gradient_.store(weight_sums.data(), gradients_.weight);
    if (gradients_.bias != nullptr) {
      std::copy_n(bias_sums.data(), bias_sums.size(), gradients_.bias);
    }
  }

 private:
  /// A thread's memory for a tile, and what a chunk of tiles adds up.
  struct Buffers {
    explicit Buffers(const Backward& b)
        : input(b.input_.size()),
          window(b.input_.scratch_size()),
          dy(b.tiles_.images() * b.tiles_.image_size()),
          columns(b.gradients_.x != nullptr && b.narrow_
                      ? b.depth() * b.dense_plane() + b.kernels_.lanes
                      : 0),
          sums(b.kernels_.channels * b.kernels_.vectors * b.kernels_.lanes),
          joined(sums.size()),
          weight(b.weight_gradient_, b.gradients_.weight != nullptr),
          bias_sums(b.plan_.out_channels) {
      joined.fill_zero();
      bias_sums.fill_zero();
    }
    Scratch<float> input, window;
    Scratch<float> dy;       // as GradientTiles says
    Scratch<float> columns;  // [tap, output channel][position], for narrow images
    Scratch<float> sums;     // of one strip
    Scratch<float> joined;   // gradients of a strip's short runs
    WeightGradient::Buffers weight;
    Scratch<float> bias_sums;
    Strips strips{};
  };

  static void add(const Scratch<float>& part, float* sum) {
    for (std::int64_t i = 0; i < part.size(); ++i) sum[i] += part.data()[i];
  }
  static std::int64_t rows_at_once(std::int64_t rows, std::int64_t columns, std::int64_t depth) {
    return std::clamp<std::int64_t>(kInputElements / std::max<std::int64_t>(1, depth * columns), 1,
                                    rows);
  }

  /// Images of a tile whose `positions` each are laid out together: several where their rows are
  /// joined to vectors.
  std::int64_t images_at_once(std::int64_t positions, std::int64_t depth) const {
    if (!tiles_.whole() || !is_narrow(plan_.columns.input, kernels_.lanes) ||
        !is_narrow(tiles_.q_columns(), kernels_.lanes)) {
      return 1;
    }
    return std::clamp<std::int64_t>(kInputElements / std::max<std::int64_t>(1, depth * positions),
                                    1, tiles_.images());
  }

  std::int64_t tap_count() const { return static_cast<std::int64_t>(tiles_.taps().size()); }
  std::int64_t depth() const { return tap_count() * plan_.out_channels; }
  std::int64_t dense_plane() const {
    return spread(gradient_images_ * gradient_rows_ * tiles_.columns(), kernels_.lanes);
  }
  std::int64_t slice(const GradientItem& item, std::int64_t i) const {
    return (item.image + i) * plan_.groups + item.group;
  }

  /// Where the data gradient's operands lie: [tap, output channel].
  void make_offsets() {
    for (const GradientTap& tap : tiles_.taps()) {
      for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
        const std::int64_t offset =
            narrow_ ? static_cast<std::int64_t>(offsets_.size()) * dense_plane()
                    : static_cast<std::int64_t>(tap.phase) * tiles_.phase_size() +
                          c * tiles_.plane() + tap.place;
        offsets_.push_back(static_cast<std::int32_t>(offset));
      }
    }
  }

  void run_tile(const GradientItem& item, Buffers& buffers) const {
    const std::int64_t end = item.image + item.images;
    for (std::int64_t image = item.image; image < end; image += block_images_) {
      const std::int64_t count = std::min(block_images_, end - image);
      for (std::int64_t i = 0; i < count; ++i) {
        split_grad_out(item, image + i - item.image, buffers);
      }
      for (std::int64_t row = item.rows.low; row < item.rows.high; row += block_rows_) {
        const PositionBlock block{image,
                                  count,
                                  row,
                                  std::min(block_rows_, item.rows.high - row),
                                  item.columns.low,
                                  item.columns.high - item.columns.low};
        if (block.count() > 0) compute_dy(item, block, buffers);
      }
    }
    if (gradients_.bias != nullptr) sum_bias(item, buffers);
    for (std::int64_t image = item.image; gradients_.x != nullptr && image < end;
         image += gradient_images_) {
      for (std::int64_t row = item.rows.begin; row < item.rows.end; row += gradient_rows_) {
        compute_grad_x(item,
                       {image, std::min(gradient_images_, end - image), row,
                        std::min(gradient_rows_, item.rows.end - row), item.columns.begin,
                        item.columns.size()},
                       buffers);
      }
    }
    if (gradients_.weight != nullptr) {
      weight_gradient_.add(item, x_, buffers.dy.data(), buffers.weight);
    }
  }

  /// Where element (q row, q column) of a channel of a phase lies in dy.
  float* place(const GradientItem& item, std::int64_t i, std::int64_t phase, std::int64_t channel,
               std::int64_t row, std::int64_t column, Buffers& buffers) const {
    return buffers.dy.data() + i * tiles_.image_size() + phase * tiles_.phase_size() +
           channel * tiles_.plane() + (row - item.rows.origin) * tiles_.pitch() + column -
           item.columns.origin;
  }

  /// The gradient of z where dy will be, zeros where there is no output.
  void split_grad_out(const GradientItem& item, std::int64_t i, Buffers& buffers) const {
    std::fill_n(buffers.dy.data() + i * tiles_.image_size(), tiles_.image_size(), 0.0f);
    const std::int64_t step = plan_.stride.w;
    const std::int64_t width = plan_.columns.output;
    const std::int64_t first = item.columns.low * step;
    const std::int64_t count = std::min(item.columns.high * step, width) - first;
    const std::int64_t column_phases = std::min(step, width);
    const float* image = grad_out_ + slice(item, i) * plan_.output_size();
    for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
      for (std::int64_t row = item.rows.low; row < item.rows.high; ++row) {
        for (std::int64_t phase = 0; phase < std::min(plan_.stride.h, plan_.rows.output); ++phase) {
          const std::int64_t y = phase + row * plan_.stride.h;
          if (y >= plan_.rows.output) continue;
          kernels_.split(image + (c * plan_.rows.output + y) * width + first, step, count,
                         place(item, i, phase * column_phases, c, row, item.columns.low, buffers),
                         tiles_.phase_size());
        }
      }
    }
  }

  /// Computes y of a block again and with it turns the gradient of z into dy.
  void compute_dy(const GradientItem& item, const PositionBlock& block, Buffers& buffers) const {
    input_.pack(block, item.group, x_, buffers.input.data(), buffers.window.data());
    buffers.strips.cut(block, kernels_, input_.pitch());
    for (const Strip& strip : buffers.strips.strips) {
      for (std::size_t p = 0; p < plan_.phases.size(); ++p) {
        const Phase& phase = plan_.phases[p];
        for (std::int64_t b = 0; b < out_blocks_.count; ++b) {
          const std::int64_t first = out_blocks_.first(b);
          const float* weights = weights_.data<float>() + item.group * plan_.group_weights() +
                                 phase.weights + first * phase.depth;
          multiply(strip, buffers.input.data(), input_.offsets(p), phase.depth, weights,
                   out_blocks_.size(b), bias_.data() + item.group * plan_.out_channels + first,
                   buffers);
          pass_gradient(item, strip, p, b, buffers);
        }
      }
    }
  }

  /// Turns the gradient of z at the positions of a strip into dy, given y in `buffers.sums`.
  void pass_gradient(const GradientItem& item, const Strip& strip, std::size_t phase,
                     std::int64_t block, Buffers& buffers) const {
    const std::int64_t rows = plan_.phases[phase].rows;
    const std::int64_t columns = plan_.phases[phase].columns;
    const int channels = out_blocks_.size(block);
    // Short runs are joined to whole vectors; what has no output keeps the last strip's values.
    const bool joins = strip.last_run - strip.first_run > static_cast<std::size_t>(strip.vectors);
    const auto for_each_run = [&](const auto& visit) {
      for (std::size_t r = strip.first_run; r < strip.last_run; ++r) {
        const PositionRun& run = buffers.strips.runs[r];
        const std::int64_t count = std::min(run.count, columns - run.column);
        if (run.row >= rows || count <= 0) continue;
        float* dy = place(item, run.image - item.image, static_cast<std::int64_t>(phase),
                          out_blocks_.first(block), run.row, run.column, buffers);
        for (int c = 0; c < channels; ++c) {
          visit(c * width(strip) + run.place, count, dy + c * tiles_.plane());
        }
      }
    };
    const float* y = buffers.sums.data();
    float* joined = buffers.joined.data();
    if (!joins) {
      for_each_run([&](std::int64_t at, std::int64_t count, float* dy) {
        kernels_.gradient(chain_, y + at, dy, count);
      });
      return;
    }
    for_each_run([&](std::int64_t at, std::int64_t count, const float* dy) {
      kernels_.split(dy, 1, count, joined + at, 0);
    });
    kernels_.gradient(chain_, y, joined, channels * width(strip));
    for_each_run([&](std::int64_t at, std::int64_t count, float* dy) {
      kernels_.split(joined + at, 1, count, dy, 0);
    });
  }

  std::int64_t width(const Strip& strip) const { return strip.vectors * kernels_.lanes; }

  /// Sums of a strip of `input`, in `buffers.sums`; `start` may be null for zeros.
  void multiply(const Strip& strip, const float* input, const std::int32_t* offsets,
                std::int64_t depth, const float* weights, int channels, const float* start,
                Buffers& buffers) const {
    simd::Product product{.vectors = {},
                          .vector_count = strip.vectors,
                          .channels = channels,
                          .depth = depth,
                          .offsets = offsets,
                          .weights = weights,
                          .start = start,
                          .sums = buffers.sums.data(),
                          .sums_stride = width(strip)};
    for (int v = 0; v < strip.vectors; ++v) product.vectors[v] = input + strip.starts[v];
    simd::sum_products(kernels_, product);
  }

  /// The sums of those outputs that are the tile's own.
  void sum_bias(const GradientItem& item, Buffers& buffers) const {
    const std::int64_t count = item.columns.own_high - item.columns.own_low;
    for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
      float sum = 0;
      for (std::int64_t i = 0; i < item.images; ++i) {
        for (std::int64_t p = 0; p < static_cast<std::int64_t>(plan_.phases.size()); ++p) {
          if (tiles_.whole()) {  // all that is not zero is the tile's own
            const float* plane = buffers.dy.data() + i * tiles_.image_size() +
                                 p * tiles_.phase_size() + c * tiles_.plane();
            sum += tenon::cpu::sum_neighbours(plane, tiles_.plane());
            continue;
          }
          for (std::int64_t row = item.rows.own_low; row < item.rows.own_high; ++row) {
            sum += tenon::cpu::sum_neighbours(
                place(item, i, p, c, row, item.columns.own_low, buffers), count);
          }
        }
      }
      buffers.bias_sums.data()[c] += sum;
    }
  }

  /// dx of a block of x's positions.
  void compute_grad_x(const GradientItem& item, const PositionBlock& block,
                      Buffers& buffers) const {
    const float* dy = buffers.dy.data() + (block.image - item.image) * tiles_.image_size() +
                      (block.row - item.rows.begin) * tiles_.pitch();
    if (narrow_) {
      float* target = buffers.columns.data();
      for (const GradientTap& tap : tiles_.taps()) {
        const float* source =
            dy + static_cast<std::int64_t>(tap.phase) * tiles_.phase_size() + tap.place;
        for (std::int64_t c = 0; c < plan_.out_channels; ++c, target += dense_plane()) {
          for (std::int64_t i = 0; i < block.images; ++i) {
            kernels_.join(source + i * tiles_.image_size() + c * tiles_.plane(), tiles_.pitch(),
                          block.rows, block.columns, target + i * block.rows * block.columns);
          }
        }
      }
      dy = buffers.columns.data();
    }
    static constexpr float kZeros[16] = {};
    const std::int64_t plane = plan_.rows.input * plan_.columns.input;
    buffers.strips.cut(block, kernels_, narrow_ ? 0 : tiles_.pitch());
    for (const Strip& strip : buffers.strips.strips) {
      for (std::int64_t b = 0; b < in_blocks_.count; ++b) {
        const std::int64_t first = in_blocks_.first(b);
        const float* weights =
            gradient_weights_.data<float>() + item.group * plan_.group_weights() + first * depth();
        multiply(strip, dy, offsets_.data(), depth(), weights, in_blocks_.size(b), kZeros, buffers);
        for (std::size_t r = strip.first_run; r < strip.last_run; ++r) {
          const PositionRun& run = buffers.strips.runs[r];
          float* target = gradients_.x + slice(item, run.image - item.image) * plan_.input_size() +
                          first * plane + run.row * plan_.columns.input + run.column;
          for (int c = 0; c < in_blocks_.size(b); ++c) {
            kernels_.interleave(buffers.sums.data() + c * width(strip) + run.place, 0, 1, run.count,
                                target + c * plane);
          }
        }
      }
    }
  }

  const TransposedPlan& plan_;
  const simd::Kernels& kernels_;
  const simd::Chain& chain_;
  GradientTiles tiles_;
  WeightGradient weight_gradient_;
  std::int64_t block_rows_, block_images_;  // of which y is computed at once
  TileInput input_;
  bool narrow_;
  std::int64_t gradient_rows_, gradient_images_;  // of which dx is
  simd::ChannelBlocks out_blocks_, in_blocks_;
  Tensor weights_, gradient_weights_;
  Scratch<float> bias_;
  const float* x_;
  const float* grad_out_;
  BlockGradients gradients_;
  std::vector<std::int32_t> offsets_{};
};

}  // namespace

bool transposed_backward_pays(const Shape& weight) {
  return weight[1] * 2 >= simd::kernels().lanes;
}

void transposed_backward(const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& grad_out, const ConvTranspose2dOptions& options,
                         const simd::Chain& chain, const Tensor& grad_x, const Tensor& grad_weight,
                         const Tensor& grad_bias) {
  if (winograd_backward(x, weight, bias, grad_out, options, chain, grad_x, grad_weight,
                        grad_bias)) {
    return;
  }
  if (batched_backward(x, weight, bias, grad_out, options, chain, grad_x, grad_weight, grad_bias)) {
    return;
  }
  const TransposedPlan plan(x.shape(), weight.shape(), grad_out.shape(), options);
  Backward(plan, simd::kernels(), chain, x, weight, bias, grad_out,
           BlockGradients::of(grad_x, grad_weight, grad_bias))
      .run();
}

}  // namespace tenon::ops::cpu
