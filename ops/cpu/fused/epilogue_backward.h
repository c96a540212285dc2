// The backward of a transposed convolution with an epilogue, tile by tile.
//
// A tile is a rectangle of positions of x, of one image and group, or several whole images. The
// outputs that these positions reach, a rectangle with a border that neighbouring tiles compute
// too, get y again and from it dy, the gradient of y; for whole images without packing x into
// columns. dy's columns [(output channel, tap), position] then serve both products: dx =
// weight·columns, which no other tile touches, and dw += x·columnsᵀ. In y and dy the columns of one
// phase of the stride lie side by side, so that neighbours of x reach neighbours there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "tenon/core/cpu/sum.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/conv_transpose_tiles.h"
#include "tenon/ops/cpu/fused/backward_tiles.h"
#include "tenon/ops/cpu/ordered_commit.h"

namespace tenon::ops::cpu {

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
    const std::int64_t items = tiles_.items(plan_.batch);  // of one group
    const std::int64_t grain = images_per_chunk(items, tiles_.positions());
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
        : columns(std::max(tiles.whole() ? 0 : plan.max_depth * tiles.max_phase_outputs,
                           tiles.depth * tiles.positions())),
          y(plan.out_channels *
            (tiles.whole() ? tiles.images * tiles.max_outputs : tiles.max_phase_outputs)),
          grad(tiles.whole() ? 0 : plan.out_channels * tiles.max_phase_outputs),
          dy(plan.out_channels * tiles.images * tiles.max_outputs),
          x(plan.in_channels * tiles.positions()) {}
    Scratch<Compute> columns;
    Scratch<Compute> y;     // of one phase, or of the images where they are the tile
    Scratch<Compute> grad;  // of one phase
    Scratch<Compute> dy;    // [image, output channel, outputs of the tile]
    Scratch<Compute> x;     // [channel, image, position] of the tile, then of its gradient
  };

  /// What a tile covers.
  struct Item {
    std::int64_t group;
    std::int64_t image, images;
    BackwardSpan rows, columns;

    std::int64_t image_positions() const { return rows.size() * columns.size(); }
    std::int64_t positions() const { return images * image_positions(); }
  };

  std::int64_t weight_count() const { return plan_.groups * plan_.group_weights(); }
  std::int64_t bias_count() const { return plan_.groups * plan_.out_channels; }

  static void add(const Scratch<Compute>& part, Compute* sum) {
    for (std::int64_t i = 0; i < part.size(); ++i) sum[i] += part.data()[i];
  }

  static void store(const Scratch<Compute>& sum, T* target) {
    for (std::int64_t i = 0; i < sum.size(); ++i) target[i] = static_cast<T>(sum.data()[i]);
  }

  Item item(std::int64_t group, std::int64_t index) const {
    const std::int64_t image = index / tiles_.count() * tiles_.images;
    return {group, image, std::min(tiles_.images, plan_.batch - image),
            tiles_.row_span(plan_, index % tiles_.count()),
            tiles_.column_span(plan_, index % tiles_.count())};
  }

  /// Number i of the tile's images, counted over batch and groups.
  std::int64_t slice(const Item& item, std::int64_t i) const {
    return (item.image + i) * plan_.groups + item.group;
  }

  /// True where x and its gradient are used where they lie, not in a buffer.
  bool reads_x(const Item& item) const {
    return std::is_same_v<T, Compute> && tiles_.whole() && item.images == 1;
  }

  void run_items(std::int64_t group, std::int64_t first, std::int64_t last,
                 const Sums& sums) const {
    const Buffers buffers(plan_, tiles_);
    for (std::int64_t index = first; index < last; ++index) {
      const Item tile = item(group, index);
      const bool wants_x = tiles_.whole() || data_.grad_weight != nullptr;
      if (wants_x && !reads_x(tile)) pack_x(tile, buffers.x.data());
      if (tiles_.whole()) {
        compute_dy_of_images(tile, buffers);
      } else {
        for (const Phase& phase : plan_.phases) compute_dy(tile, phase, buffers);
      }
      if (data_.grad_bias != nullptr) sum_bias(tile, buffers, sums.bias.data());
      if (data_.grad_x == nullptr && data_.grad_weight == nullptr) continue;
      for (std::int64_t i = 0; i < tile.images; ++i) pack_dy(tile, i, buffers);
      if (data_.grad_weight != nullptr) {
        gemm<Compute>(plan_.in_channels, tiles_.depth, tile.positions(), x_of(tile, buffers),
                      {buffers.columns.data(), 1, tile.positions()}, sums.weights.data(),
                      tiles_.depth, true);
      }
      if (data_.grad_x != nullptr) store_grad_x(tile, buffers);
    }
  }

  /// x [channel, position] of a tile.
  MatrixView<const Compute> x_of(const Item& item, const Buffers& buffers) const {
    if constexpr (std::is_same_v<T, Compute>) {
      if (reads_x(item)) {
        return {data_.x + slice(item, 0) * plan_.input_size(), item.positions(), 1};
      }
    }
    return {buffers.x.data(), item.positions(), 1};
  }

  /// Calls `visit(offset, count, target)` for every run of the tile's positions: `count` elements
  /// of x from `offset`, and their place in [channel, image, position].
  template <class Visitor>
  void for_each_run_of_x(const Item& item, Visitor&& visit) const {
    const std::int64_t width = plan_.columns.input;
    // Rows of whole images are one run.
    const std::int64_t runs = tiles_.whole() ? 1 : item.rows.size();
    const std::int64_t count = item.image_positions() / runs;
    std::int64_t target = 0;
    for (std::int64_t c = 0; c < plan_.in_channels; ++c) {
      for (std::int64_t i = 0; i < item.images; ++i) {
        const std::int64_t plane =
            slice(item, i) * plan_.input_size() + c * plan_.rows.input * width;
        for (std::int64_t r = 0; r < runs; ++r, target += count) {
          visit(plane + (item.rows.begin + r) * width + item.columns.begin, count, target);
        }
      }
    }
  }

  void pack_x(const Item& item, Compute* target) const {
    for_each_run_of_x(item, [&](std::int64_t offset, std::int64_t count, std::int64_t place) {
      std::transform(data_.x + offset, data_.x + offset + count, target + place,
                     [](T value) { return static_cast<Compute>(value); });
    });
  }

  /// dy of whole images, which needs no columns of x: weightᵀ·x gives the products of each tap, and
  /// these are added to the outputs that they belong to.
  void compute_dy_of_images(const Item& item, const Buffers& buffers) const {
    gemm<Compute>(tiles_.depth, item.positions(), plan_.in_channels,
                  {weights_ + item.group * plan_.group_weights(), 1, tiles_.depth},
                  x_of(item, buffers), buffers.columns.data(), item.positions(), false);
    const std::int64_t outputs = plan_.rows.output * plan_.columns.output;
    const Compute* bias = operands_.bias(plan_, item.group);
    for (std::int64_t i = 0; i < item.images; ++i) {
      const Compute* products = buffers.columns.data() + i * item.image_positions();
      for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
        Compute* y = buffers.y.data() + (i * plan_.out_channels + c) * outputs;
        std::fill_n(y, outputs, bias[c]);
        for (std::int64_t ky = 0; ky < plan_.kernel.h; ++ky) {
          for (std::int64_t kx = 0; kx < plan_.kernel.w; ++kx) {
            add_products(products, ky, kx, y);
            products += item.positions();
          }
        }
      }
      split_rows(data_.grad_out + slice(item, i) * plan_.output_size(),
                 buffers.dy.data() + i * plan_.output_size());
    }
    epilogue_.gradient(buffers.y.data(), buffers.dy.data(), item.images * plan_.output_size());
  }

  /// The rows of one image and group of the gradient.
  void split_rows(const T* source, Compute* target) const {
    const std::int64_t step = plan_.stride.w;
    const SplitRow row{plan_.columns.output, step};
    for (std::int64_t r = 0; r < plan_.out_channels * plan_.rows.output; ++r) {
      for (std::int64_t phase = 0; phase < step; ++phase) {
        const std::int64_t count = row.count(phase);
        for (std::int64_t i = 0; i < count; ++i) {
          target[i] = static_cast<Compute>(source[phase + i * step]);
        }
        target += count;
      }
      source += row.outputs;
    }
  }

  /// Adds the products [H, W] of tap (ky, kx) to the plane y.
  void add_products(const Compute* products, std::int64_t ky, std::int64_t kx, Compute* y) const {
    const PhaseAxis& columns = plan_.columns;
    const SplitRow row{columns.output, columns.stride};
    const std::int64_t column = kx * columns.dilation - columns.padding;
    const std::int64_t phase = row.phase(column);
    const std::int64_t place = row.place(column);
    const InsideRange inside(row.count(phase), place, 1, columns.input);
    const std::int64_t first = row.begin(phase) + place + inside.begin;
    const std::int64_t count = inside.end - inside.begin;
    for (std::int64_t iy = 0; iy < plan_.rows.input; ++iy) {
      const std::int64_t oy =
          iy * plan_.rows.stride + ky * plan_.rows.dilation - plan_.rows.padding;
      if (oy < 0 || oy >= plan_.rows.output) continue;
      const Compute* source = products + iy * columns.input + inside.begin;
      Compute* target = y + oy * columns.output + first;
      for (std::int64_t i = 0; i < count; ++i) target[i] += source[i];
    }
  }

  /// The part of dy that belongs to one phase.
  void compute_dy(const Item& item, const Phase& phase, const Buffers& buffers) const {
    const BackwardSpan& rows = item.rows;
    const BackwardSpan& columns = item.columns;
    const Tile tile{rows.first_position(phase.row, plan_.stride.h),
                    rows.position_count(phase.row, plan_.stride.h),
                    columns.first_position(phase.column, plan_.stride.w),
                    columns.position_count(phase.column, plan_.stride.w)};
    const std::int64_t count = tile.count();
    if (count == 0) return;
    const std::int64_t step = plan_.stride.w;
    pack_columns(plan_, phase, tile, data_.x + slice(item, 0) * plan_.input_size(),
                 buffers.columns.data());
    convolve_tile<T>(plan_, operands_, item.group, phase, count, buffers.columns.data(),
                     buffers.y.data());
    const T* grad_out = data_.grad_out + slice(item, 0) * plan_.output_size();
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
    const SplitRow row{columns.outputs(), step};
    for_each_row(
        phase, tile,
        [&](const Compute* values, std::int64_t c, std::int64_t oy, std::int64_t ox) {
          const std::int64_t column = ox - columns.low;
          std::copy_n(values, tile.columns,
                      buffers.dy.data() + (c * rows.outputs() + oy - rows.low) * columns.outputs() +
                          row.begin(row.phase(column)) + row.place(column));
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

  void sum_bias(const Item& item, const Buffers& buffers, Compute* sums) const {
    const BackwardSpan& rows = item.rows;
    const std::int64_t outputs = rows.outputs() * item.columns.outputs();
    for (std::int64_t i = 0; i < item.images; ++i) {
      for (std::int64_t c = 0; c < plan_.out_channels; ++c) {
        const Compute* plane = buffers.dy.data() + (i * plan_.out_channels + c) * outputs;
        sums[c] +=
            tiles_.whole() ? tenon::cpu::sum_neighbours(plane, outputs) : sum_owned(item, plane);
      }
    }
  }

  /// The sum of those outputs of a tile that are its own.
  Compute sum_owned(const Item& item, const Compute* plane) const {
    const BackwardSpan& columns = item.columns;
    const SplitRow row{columns.outputs(), plan_.stride.w};
    const SplitRow before{columns.own_low - columns.low, row.stride};
    const SplitRow owned{columns.own_high - columns.low, row.stride};
    Compute sum{};
    for (std::int64_t oy = item.rows.own_low; oy < item.rows.own_high; ++oy) {
      const Compute* values = plane + (oy - item.rows.low) * row.outputs;
      for (std::int64_t phase = 0; phase < row.stride; ++phase) {
        const std::int64_t first = before.count(phase);
        sum += tenon::cpu::sum_neighbours(values + row.begin(phase) + first,
                                          owned.count(phase) - first);
      }
    }
    return sum;
  }

  /// Of number i of the tile's images: columns[(c, ky, kx), position] = the element of dy that x's
  /// position reaches by that tap.
  void pack_dy(const Item& item, std::int64_t i, const Buffers& buffers) const {
    const BackwardSpan& rows = item.rows;
    const BackwardSpan& columns = item.columns;
    const SplitRow row{columns.outputs(), plan_.stride.w};
    const std::int64_t outputs = rows.outputs() * row.outputs;
    const Compute* plane = buffers.dy.data() + i * plan_.out_channels * outputs;
    Compute* tap = buffers.columns.data() + i * item.image_positions();
    for (std::int64_t c = 0; c < plan_.out_channels; ++c, plane += outputs) {
      for (std::int64_t ky = 0; ky < plan_.kernel.h; ++ky) {
        for (std::int64_t kx = 0; kx < plan_.kernel.w; ++kx, tap += item.positions()) {
          const std::int64_t ox = columns.begin * plan_.stride.w - plan_.columns.padding +
                                  kx * plan_.columns.dilation - columns.low;
          const std::int64_t phase = row.phase(ox);
          Compute* target = tap;
          for (std::int64_t iy = rows.begin; iy < rows.end; ++iy, target += columns.size()) {
            const std::int64_t oy =
                iy * plan_.stride.h - plan_.rows.padding + ky * plan_.rows.dilation - rows.low;
            if (oy >= 0 && oy < rows.outputs()) {
              gather_row(plane + oy * row.outputs + row.begin(phase), row.count(phase),
                         row.place(ox), 1, columns.size(), target);
            } else {
              std::fill_n(target, columns.size(), Compute{});
            }
          }
        }
      }
    }
  }

  void store_grad_x(const Item& item, const Buffers& buffers) const {
    const std::int64_t count = item.positions();
    Compute* result = buffers.x.data();
    if constexpr (std::is_same_v<T, Compute>) {
      if (reads_x(item)) result = data_.grad_x + slice(item, 0) * plan_.input_size();
    }
    gemm<Compute>(plan_.in_channels, count, tiles_.depth,
                  {weights_ + item.group * plan_.group_weights(), tiles_.depth, 1},
                  {buffers.columns.data(), count, 1}, result, count, false);
    if (reads_x(item)) return;
    for_each_run_of_x(item, [&](std::int64_t offset, std::int64_t run, std::int64_t place) {
      std::transform(result + place, result + place + run, data_.grad_x + offset,
                     [](Compute value) { return static_cast<T>(value); });
    });
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
