// The backward of a transposed convolution with an epilogue, tile by tile.
//
// A tile is a rectangle of positions of x, of one image and group. The outputs that these positions
// reach, a rectangle with a border that neighbouring tiles compute too, get y again and from it dy,
// the gradient of y; where the tile is the whole image, without packing x. Its columns [(output
// channel, tap), position] then serve both products: dx = weight·columns, which no other tile
// touches, and dw += x·columnsᵀ.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "tenon/core/cpu/sum.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/conv_transpose_tiles.h"
#include "tenon/ops/cpu/ordered_commit.h"

namespace tenon::ops::cpu {

/// One axis of a tile of x: its positions, the outputs they reach, and the outputs that count as
/// this tile's, so that each output of the axis is one tile's own.
struct BackwardSpan {
  std::int64_t begin, end;         // positions of x
  std::int64_t low, high;          // outputs reached or owned
  std::int64_t own_low, own_high;  // outputs owned

  BackwardSpan(const PhaseAxis& axis, std::int64_t first, std::int64_t size)
      : begin(first),
        end(std::min(first + size, axis.input)),
        own_low(first == 0 ? 0 : inside(axis, begin * axis.stride - axis.padding)),
        own_high(end == axis.input ? axis.output : inside(axis, end * axis.stride - axis.padding)) {
    const std::int64_t last =
        (end - 1) * axis.stride - axis.padding + (axis.kernel - 1) * axis.dilation;
    low = std::min(own_low, inside(axis, begin * axis.stride - axis.padding));
    high = std::max(own_high, inside(axis, last + 1));
  }

  static std::int64_t inside(const PhaseAxis& axis, std::int64_t output) {
    return std::clamp<std::int64_t>(output, 0, axis.output);
  }
  std::int64_t size() const { return end - begin; }
  std::int64_t outputs() const { return high - low; }

  /// The positions q of `phase` whose outputs lie in [low, high): the first, and how many.
  std::int64_t first_position(std::int64_t phase, std::int64_t stride) const {
    return low > phase ? (low - phase + stride - 1) / stride : 0;
  }
  std::int64_t position_count(std::int64_t phase, std::int64_t stride) const {
    const std::int64_t end_position = high > phase ? (high - phase + stride - 1) / stride : 0;
    return std::max<std::int64_t>(0, end_position - first_position(phase, stride));
  }
};

/// How x is cut into tiles, and how large the buffers of a tile must be.
struct BackwardTiles {
  std::int64_t rows, columns;            // of x in a tile
  std::int64_t row_tiles, column_tiles;  // of an image
  std::int64_t depth;                    // output channels times taps
  std::int64_t max_outputs = 0;          // of a tile's rectangle
  std::int64_t max_phase_outputs = 0;    // of one phase

  explicit BackwardTiles(const TransposedPlan& plan)
      : depth(plan.out_channels * plan.kernel.h * plan.kernel.w) {
    // Elements for each position of x: the larger columns, y and dy with its copy, x.
    const std::int64_t outputs =
        plan.out_channels * std::max<std::int64_t>(plan.stride.h * plan.stride.w + 2,
                                                   2 * plan.stride.h * plan.stride.w);
    const std::int64_t each = std::max(depth, plan.max_depth) + outputs + plan.in_channels;
    const std::int64_t positions =
        std::clamp<std::int64_t>(kTileElements / each, kMinPositions, kMaxPositions);
    column_tiles = ceil_divide(plan.columns.input, positions);
    columns = ceil_divide(plan.columns.input, column_tiles);
    row_tiles = ceil_divide(plan.rows.input, std::max<std::int64_t>(1, positions / columns));
    rows = ceil_divide(plan.rows.input, row_tiles);
    row_tiles = ceil_divide(plan.rows.input, rows);
    column_tiles = ceil_divide(plan.columns.input, columns);
    for (std::int64_t index = 0; index < count(); ++index) {
      const BackwardSpan y = row_span(plan, index);
      const BackwardSpan x = column_span(plan, index);
      max_outputs = std::max(max_outputs, y.outputs() * x.outputs());
      max_phase_outputs = std::max(max_phase_outputs, ceil_divide(y.outputs(), plan.stride.h) *
                                                          ceil_divide(x.outputs(), plan.stride.w));
    }
  }

  std::int64_t count() const { return row_tiles * column_tiles; }
  BackwardSpan row_span(const TransposedPlan& plan, std::int64_t index) const {
    return {plan.rows, index / column_tiles * rows, rows};
  }
  BackwardSpan column_span(const TransposedPlan& plan, std::int64_t index) const {
    return {plan.columns, index % column_tiles * columns, columns};
  }

 private:
  static constexpr std::int64_t kTileElements = 1 << 18;
  static constexpr std::int64_t kMinPositions = 16;
  static constexpr std::int64_t kMaxPositions = 4096;

  static std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
};

/// What the backward reads and writes; `bias` and the gradients may be null.
template <class T>
struct BackwardData {
  const T* x;
  const T* weight;
  const T* bias;
  const T* grad_out;
  T* grad_x;
  T* grad_weight;
  T* grad_bias;
};

/// The backward of one dtype and epilogue; `epilogue.gradient(y, gradients, count)` turns gradients
/// of the result into those of y, in place.
template <class T, class Epilogue>
class EpilogueBackward {
 public:
  using Compute = compute_type<T>;

  EpilogueBackward(const TransposedPlan& plan, const Epilogue& epilogue,
                   const BackwardData<T>& data)
      : plan_(plan),
        tiles_(plan),
        epilogue_(epilogue),
        data_(data),
        operands_(plan, data.weight, data.bias),
        weight_copy_(copy_size<T>(weight_count())),
        weights_(as_compute<T>(data.weight, weight_count(), weight_copy_)) {}

  void run() const {
    const Scratch<Compute> weight_sum(data_.grad_weight != nullptr ? weight_count() : 0);
    const Scratch<Compute> bias_sum(data_.grad_bias != nullptr ? bias_count() : 0);
    weight_sum.fill_zero();
    bias_sum.fill_zero();
    const std::int64_t items = plan_.batch * tiles_.count();  // of one group
    const std::int64_t grain = images_per_chunk(items, tiles_.rows * tiles_.columns);
    const std::int64_t chunks = (items + grain - 1) / grain;
    OrderedCommit commit;
    parallel_for(0, plan_.groups * chunks, 1, [&](std::int64_t chunk, std::int64_t) {
      const std::int64_t group = chunk / chunks;
      const std::int64_t first = chunk % chunks * grain;
      const Sums sums(weight_sum.size() / plan_.groups, bias_sum.size() / plan_.groups);
      commit.run(
          chunk, [&] { run_items(group, first, std::min(first + grain, items), sums); },
          [&] {
            add(sums.weights, weight_sum.data() + group * sums.weights.size());
            add(sums.bias, bias_sum.data() + group * sums.bias.size());
          });
    });
    store(weight_sum, data_.grad_weight);
    store(bias_sum, data_.grad_bias);
  }

 private:
  /// What a chunk adds up.
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
    Buffers(const TransposedPlan& plan, const BackwardTiles& tiles)
        : columns(std::max(tiles.count() == 1 ? 0 : plan.max_depth * tiles.max_phase_outputs,
                           tiles.depth * tiles.rows * tiles.columns)),
          y(plan.out_channels * (tiles.count() == 1 ? tiles.max_outputs : tiles.max_phase_outputs)),
          grad(tiles.count() == 1 ? 0 : plan.out_channels * tiles.max_phase_outputs),
          dy(plan.out_channels * tiles.max_outputs),
          x(plan.in_channels * tiles.rows * tiles.columns) {}
    Scratch<Compute> columns;
    Scratch<Compute> y;     // of one phase, or of the image where that is the tile
    Scratch<Compute> grad;  // of one phase
    Scratch<Compute> dy;    // [output channel, outputs of the tile]
    Scratch<Compute> x;     // the tile of x, then of its gradient
  };

  std::int64_t weight_count() const { return plan_.groups * plan_.group_weights(); }
  std::int64_t bias_count() const { return plan_.groups * plan_.out_channels; }

  static void add(const Scratch<Compute>& part, Compute* sum) {
    for (std::int64_t i = 0; i < part.size(); ++i) sum[i] += part.data()[i];
  }

  static void store(const Scratch<Compute>& sum, T* target) {
    for (std::int64_t i = 0; i < sum.size(); ++i) target[i] = static_cast<T>(sum.data()[i]);
  }

  void run_items(std::int64_t group, std::int64_t first, std::int64_t last,
                 const Sums& sums) const {
    const Buffers buffers(plan_, tiles_);
    for (std::int64_t item = first; item < last; ++item) {
      const std::int64_t slice = item / tiles_.count() * plan_.groups + group;
      const BackwardSpan rows = tiles_.row_span(plan_, item % tiles_.count());
      const BackwardSpan columns = tiles_.column_span(plan_, item % tiles_.count());
      if (tiles_.count() == 1) {
        compute_dy_of_image(group, slice, rows.size() * columns.size(), buffers);
      } else {
        for (const Phase& phase : plan_.phases) {
          compute_dy(group, slice, phase, rows, columns, buffers);
        }
      }
      if (data_.grad_bias != nullptr) sum_bias(rows, columns, buffers, sums.bias.data());
      if (data_.grad_x == nullptr && data_.grad_weight == nullptr) continue;
      pack_dy(rows, columns, buffers);
      if (data_.grad_weight != nullptr) {
        add_grad_weight(slice, rows, columns, buffers, sums.weights.data());
      }
      if (data_.grad_x != nullptr) store_grad_x(group, slice, rows, columns, buffers);
    }
  }

  /// dy of a whole image, which needs no columns of x: weightᵀ·x gives the products of each tap,
  /// and these are added to the outputs that they belong to.
  void compute_dy_of_image(std::int64_t group, std::int64_t slice, std::int64_t count,
                           const Buffers& buffers) const {
    const T* image = data_.x + slice * plan_.input_size();
    MatrixView<const Compute> x{buffers.x.data(), count, 1};
    if constexpr (std::is_same_v<T, Compute>) {
      x.data = image;
    } else {
      gather_row(image, plan_.input_size(), 0, 1, plan_.input_size(), buffers.x.data());
    }
    gemm<Compute>(tiles_.depth, count, plan_.in_channels,
                  {weights_ + group * plan_.group_weights(), 1, tiles_.depth}, x,
                  buffers.columns.data(), count, false);
    const std::int64_t outputs = plan_.rows.output * plan_.columns.output;
    const Compute* bias = operands_.bias(plan_, group);
    const Compute* products = buffers.columns.data();
    for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
      Compute* y = buffers.y.data() + c * outputs;
      std::fill_n(y, outputs, bias[c]);
      for (std::int64_t ky = 0; ky < plan_.kernel.h; ++ky) {
        for (std::int64_t kx = 0; kx < plan_.kernel.w; ++kx) {
          add_products(products, ky, kx, y);
          products += count;
        }
      }
    }
    const T* grad_out = data_.grad_out + slice * plan_.output_size();
    std::transform(grad_out, grad_out + plan_.output_size(), buffers.dy.data(),
                   [](T value) { return static_cast<Compute>(value); });
    epilogue_.gradient(buffers.y.data(), buffers.dy.data(), plan_.output_size());
  }

  /// Adds the products [H, W] of tap (ky, kx) to the plane y.
  void add_products(const Compute* products, std::int64_t ky, std::int64_t kx, Compute* y) const {
    const PhaseAxis& columns = plan_.columns;
    const std::int64_t step = columns.stride;
    const std::int64_t first = kx * columns.dilation - columns.padding;
    const InsideRange inside(columns.output, first, step, columns.input);
    for (std::int64_t iy = 0; iy < plan_.rows.input; ++iy) {
      const std::int64_t oy =
          iy * plan_.rows.stride + ky * plan_.rows.dilation - plan_.rows.padding;
      if (oy < 0 || oy >= plan_.rows.output) continue;
      const Compute* source = products + iy * columns.input;
      Compute* target = y + oy * columns.output;
      for (std::int64_t i = inside.begin; i < inside.end; ++i) {
        target[first + i * step] += source[i];
      }
    }
  }

  /// The part of dy that belongs to one phase.
  void compute_dy(std::int64_t group, std::int64_t slice, const Phase& phase,
                  const BackwardSpan& rows, const BackwardSpan& columns,
                  const Buffers& buffers) const {
    const Tile tile{rows.first_position(phase.row, plan_.stride.h),
                    rows.position_count(phase.row, plan_.stride.h),
                    columns.first_position(phase.column, plan_.stride.w),
                    columns.position_count(phase.column, plan_.stride.w)};
    const std::int64_t count = tile.count();
    if (count == 0) return;
    const std::int64_t step = plan_.stride.w;
    pack_columns(plan_, phase, tile, data_.x + slice * plan_.input_size(), buffers.columns.data());
    convolve_tile<T>(plan_, operands_, group, phase, count, buffers.columns.data(),
                     buffers.y.data());
    const T* grad_out = data_.grad_out + slice * plan_.output_size();
    for_each_row(
        phase, tile,
        [&](Compute* values, std::int64_t c, std::int64_t oy, std::int64_t ox) {
          const T* source = grad_out + (c * plan_.rows.output + oy) * plan_.columns.output + ox;
          for (std::int64_t i = 0; i < tile.columns; ++i) {
            values[i] = static_cast<Compute>(source[i * step]);
          }
        },
        buffers);
    epilogue_.gradient(buffers.y.data(), buffers.grad.data(), plan_.out_channels * count);
    for_each_row(
        phase, tile,
        [&](const Compute* values, std::int64_t c, std::int64_t oy, std::int64_t ox) {
          Compute* target = buffers.dy.data() +
                            (c * rows.outputs() + oy - rows.low) * columns.outputs() + ox -
                            columns.low;
          for (std::int64_t i = 0; i < tile.columns; ++i) target[i * step] = values[i];
        },
        buffers);
  }

  /// Calls `visit(values, channel, oy, ox)` for each run of a phase's gradients.
  template <class Visitor>
  void for_each_row(const Phase& phase, const Tile& tile, Visitor&& visit,
                    const Buffers& buffers) const {
    for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
      Compute* values = buffers.grad.data() + c * tile.count();
      for_each_output_row(
          plan_, phase, tile,
          [&](std::int64_t j, std::int64_t oy, std::int64_t ox) { visit(values + j, c, oy, ox); });
    }
  }

  void sum_bias(const BackwardSpan& rows, const BackwardSpan& columns, const Buffers& buffers,
                Compute* sums) const {
    for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
      Compute sum{};
      for (std::int64_t oy = rows.own_low; oy < rows.own_high; ++oy) {
        const Compute* row = buffers.dy.data() +
                             (c * rows.outputs() + oy - rows.low) * columns.outputs() +
                             columns.own_low - columns.low;
        sum += tenon::cpu::sum_neighbours(row, columns.own_high - columns.own_low);
      }
      sums[c] += sum;
    }
  }

  /// columns[(c, ky, kx), position] = the element of dy that x's position reaches by that tap.
  void pack_dy(const BackwardSpan& rows, const BackwardSpan& columns,
               const Buffers& buffers) const {
    Compute* target = buffers.columns.data();
    for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
      const Compute* plane = buffers.dy.data() + c * rows.outputs() * columns.outputs();
      for (std::int64_t ky = 0; ky < plan_.kernel.h; ++ky) {
        for (std::int64_t kx = 0; kx < plan_.kernel.w; ++kx) {
          const std::int64_t ox = columns.begin * plan_.stride.w - plan_.columns.padding +
                                  kx * plan_.columns.dilation - columns.low;
          for (std::int64_t iy = rows.begin; iy < rows.end; ++iy) {
            const std::int64_t oy =
                iy * plan_.stride.h - plan_.rows.padding + ky * plan_.rows.dilation - rows.low;
            if (oy >= 0 && oy < rows.outputs()) {
              gather_row(plane + oy * columns.outputs(), columns.outputs(), ox, plan_.stride.w,
                         columns.size(), target);
            } else {
              std::fill_n(target, columns.size(), Compute{});
            }
            target += columns.size();
          }
        }
      }
    }
  }

  void add_grad_weight(std::int64_t slice, const BackwardSpan& rows, const BackwardSpan& columns,
                       const Buffers& buffers, Compute* sums) const {
    const std::int64_t count = rows.size() * columns.size();
    const std::int64_t width = plan_.columns.input;
    if constexpr (std::is_same_v<T, Compute>) {
      if (tiles_.count() == 1) {
        gemm<Compute>(plan_.in_channels, tiles_.depth, count,
                      {data_.x + slice * plan_.input_size(), count, 1},
                      {buffers.columns.data(), 1, count}, sums, tiles_.depth, true);
        return;
      }
    }
    Compute* target = buffers.x.data();
    for (std::int64_t c = 0; c < plan_.in_channels; ++c) {
      const T* plane = data_.x + slice * plan_.input_size() + c * plan_.rows.input * width;
      for (std::int64_t iy = rows.begin; iy < rows.end; ++iy) {
        gather_row(plane + iy * width, width, columns.begin, 1, columns.size(), target);
        target += columns.size();
      }
    }
    gemm<Compute>(plan_.in_channels, tiles_.depth, count, {buffers.x.data(), count, 1},
                  {buffers.columns.data(), 1, count}, sums, tiles_.depth, true);
  }

  void store_grad_x(std::int64_t group, std::int64_t slice, const BackwardSpan& rows,
                    const BackwardSpan& columns, const Buffers& buffers) const {
    const std::int64_t count = rows.size() * columns.size();
    const MatrixView<const Compute> weights{weights_ + group * plan_.group_weights(), tiles_.depth,
                                            1};
    const MatrixView<const Compute> right{buffers.columns.data(), count, 1};
    if constexpr (std::is_same_v<T, Compute>) {
      if (tiles_.count() == 1) {
        gemm<Compute>(plan_.in_channels, count, tiles_.depth, weights, right,
                      data_.grad_x + slice * plan_.input_size(), count, false);
        return;
      }
    }
    gemm<Compute>(plan_.in_channels, count, tiles_.depth, weights, right, buffers.x.data(), count,
                  false);
    const Compute* source = buffers.x.data();
    for (std::int64_t c = 0; c < plan_.in_channels; ++c) {
      T* plane =
          data_.grad_x + slice * plan_.input_size() + c * plan_.rows.input * plan_.columns.input;
      for (std::int64_t iy = rows.begin; iy < rows.end; ++iy) {
        std::transform(source, source + columns.size(),
                       plane + iy * plan_.columns.input + columns.begin,
                       [](Compute value) { return static_cast<T>(value); });
        source += columns.size();
      }
    }
  }

  const TransposedPlan& plan_;
  BackwardTiles tiles_;
  const Epilogue& epilogue_;
  BackwardData<T> data_;
  PackedOperands<T> operands_;
  Scratch<Compute> weight_copy_;
  const Compute* weights_;  // [input channel, output channel, tap] of each group
};

}  // namespace tenon::ops::cpu
