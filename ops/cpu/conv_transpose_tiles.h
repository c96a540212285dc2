// The transposed convolution tile by tile, shared by the plain op and the fused block.
//
// A tile is a rectangle of q positions (ops/fused/phases.h) of one image and group. For each phase
// the part of x that its taps read is packed into columns [(tap, channel), position], and one
// matrix product with the phase's weights gives its outputs [channel, position]; what becomes of
// them is the caller's business, while they are in the cache.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tenon/core/half.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/columns.h"
#include "tenon/ops/cpu/gemm.h"
#include "tenon/ops/cpu/scratch.h"
#include "tenon/ops/fused/phases.h"

namespace tenon::ops::cpu {

/// One of the stride.h·stride.w phases, with at least one output.
struct Phase {
  std::int64_t row, column;        // outputs are at row + stride.h·q
  std::int64_t row_tap, row_taps;  // first tap and number of taps along the rows
  std::int64_t column_tap, column_taps;
  std::int64_t rows, columns;  // q positions
  std::int64_t depth;          // row_taps·column_taps·channels of x
  std::int64_t weights;        // where its weights begin in a group's
};

/// Positions of one phase: rows [row, row + rows) and columns likewise.
struct Tile {
  std::int64_t row, rows, column, columns;
  std::int64_t count() const { return rows * columns; }
};

/// The sizes of one transposed convolution and how it is cut up. Channels are those of one group.
struct TransposedPlan {
  std::int64_t batch, groups, in_channels, out_channels;
  Pair kernel, stride;
  PhaseAxis rows, columns;
  std::int64_t row_step, column_step;  // between the taps of a phase
  std::vector<Phase> phases;
  std::int64_t max_depth = 0;
  std::int64_t tile_rows, tile_columns;  // largest size of a tile
  std::int64_t row_tiles, column_tiles;  // tiles of one image

  TransposedPlan(const Shape& x, const Shape& weight, const Shape& y,
                 const ConvTranspose2dOptions& options);

  std::int64_t tiles() const { return row_tiles * column_tiles; }
  std::int64_t max_positions() const { return tile_rows * tile_columns; }
  std::int64_t group_weights() const { return in_channels * out_channels * kernel.h * kernel.w; }
  std::int64_t input_size() const { return in_channels * rows.input * columns.input; }
  std::int64_t output_size() const { return out_channels * rows.output * columns.output; }
  /// The part of tile number `index` that lies in `phase`; may be empty.
  Tile tile(std::int64_t index, const Phase& phase) const;
};

/// Calls `visit(k, i)` for every weight: k numbers it in PyTorch's [Cin, Cout/groups, kH, kW]; i in
/// the packed order [group][phase][output channel][(tap, input channel)].
template <class Visitor>
void for_each_weight(const TransposedPlan& plan, Visitor&& visit) {
  for (std::int64_t group = 0; group < plan.groups; ++group) {
    for (const Phase& phase : plan.phases) {
      std::int64_t packed = group * plan.group_weights() + phase.weights;
      for (std::int64_t co = 0; co < plan.out_channels; ++co) {
        for (std::int64_t ty = 0; ty < phase.row_taps; ++ty) {
          const std::int64_t ky = phase.row_tap + ty * plan.row_step;
          for (std::int64_t tx = 0; tx < phase.column_taps; ++tx) {
            const std::int64_t kx = phase.column_tap + tx * plan.column_step;
            for (std::int64_t ci = 0; ci < plan.in_channels; ++ci) {
              const std::int64_t channel = group * plan.in_channels + ci;
              visit(((channel * plan.out_channels + co) * plan.kernel.h + ky) * plan.kernel.w + kx,
                    packed++);
            }
          }
        }
      }
    }
  }
}

/// Calls `visit(row, iy, ix)` for each (tap, channel, row) of a tile's columns: where in the
/// columns its run of tile.columns elements begins, and the channel, the row and the first column
/// of x that it reads; row and columns may lie outside of x.
template <class Visitor>
void for_each_run(const TransposedPlan& plan, const Phase& phase, const Tile& tile,
                  Visitor&& visit) {
  std::int64_t run = 0;
  for (std::int64_t ty = 0; ty < phase.row_taps; ++ty) {
    const std::int64_t iy =
        tile.row + plan.rows.tap_shift(phase.row, phase.row_tap + ty * plan.row_step);
    for (std::int64_t tx = 0; tx < phase.column_taps; ++tx) {
      const std::int64_t ix =
          tile.column +
          plan.columns.tap_shift(phase.column, phase.column_tap + tx * plan.column_step);
      for (std::int64_t c = 0; c < plan.in_channels; ++c) {
        for (std::int64_t r = 0; r < tile.rows; ++r) {
          visit(run, c, iy + r, ix);
          run += tile.columns;
        }
      }
    }
  }
}

/// Fills columns [depth, positions] from `image`, one image and group of x.
template <class T, class Compute>
void pack_columns(const TransposedPlan& plan, const Phase& phase, const Tile& tile, const T* image,
                  Compute* columns) {
  const std::int64_t height = plan.rows.input;
  const std::int64_t width = plan.columns.input;
  for_each_run(
      plan, phase, tile, [&](std::int64_t run, std::int64_t c, std::int64_t iy, std::int64_t ix) {
        if (iy >= 0 && iy < height) {
          gather_row(image + (c * height + iy) * width, width, ix, 1, tile.columns, columns + run);
        } else {
          std::fill_n(columns + run, tile.columns, Compute{});
        }
      });
}

/// Calls `visit(j, oy, ox)` for each row of a tile: elements j … j + tile.columns − 1 of a
/// channel's positions belong to elements ox, ox + stride.w, … of row oy of the channel's output
/// plane.
template <class Visitor>
void for_each_output_row(const TransposedPlan& plan, const Phase& phase, const Tile& tile,
                         Visitor&& visit) {
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    visit(r * tile.columns, phase.row + (tile.row + r) * plan.stride.h,
          phase.column + tile.column * plan.stride.w);
  }
}

/// The weights in packed order and the bias, in the compute type.
template <class T>
class PackedOperands {
 public:
  using Compute = compute_type<T>;

  PackedOperands(const TransposedPlan& plan, const T* weight, const T* bias)
      : weights_(plan.groups * plan.group_weights()), bias_(plan.groups * plan.out_channels) {
    for_each_weight(plan, [&](std::int64_t k, std::int64_t i) {
      weights_.data()[i] = static_cast<Compute>(weight[k]);
    });
    for (std::int64_t c = 0; c < bias_.size(); ++c) {
      bias_.data()[c] = bias == nullptr ? Compute{} : static_cast<Compute>(bias[c]);
    }
  }

  const Compute* weights(const TransposedPlan& plan, std::int64_t group, const Phase& phase) const {
    return weights_.data() + group * plan.group_weights() + phase.weights;
  }
  const Compute* bias(const TransposedPlan& plan, std::int64_t group) const {
    return bias_.data() + group * plan.out_channels;
  }

 private:
  Scratch<Compute> weights_;
  Scratch<Compute> bias_;
};

/// y [out_channels, count] = weights·columns + bias of one phase.
template <class T>
void convolve_tile(const TransposedPlan& plan, const PackedOperands<T>& operands,
                   std::int64_t group, const Phase& phase, std::int64_t count,
                   const compute_type<T>* columns, compute_type<T>* y) {
  using Compute = compute_type<T>;
  gemm<Compute>(plan.out_channels, count, phase.depth,
                {operands.weights(plan, group, phase), phase.depth, 1}, {columns, count, 1}, y,
                count, false);
  const Compute* bias = operands.bias(plan, group);
  for (std::int64_t c = 0; c < plan.out_channels; ++c) {
    for (std::int64_t j = 0; j < count; ++j) y[c * count + j] += bias[c];
  }
}

/// z = epilogue(conv_transpose2d(x, weight, bias)): `epilogue(values, count)` changes `count`
/// values in place.
template <class T, class Epilogue>
void run_tiles(const TransposedPlan& plan, const T* x, const T* weight, const T* bias,
               const Epilogue& epilogue, T* z) {
  using Compute = compute_type<T>;
  const PackedOperands<T> operands(plan, weight, bias);
  const std::int64_t tiles = plan.tiles();
  const std::int64_t items = plan.batch * plan.groups * tiles;
  parallel_for(0, items, (items + 63) / 64, [&](std::int64_t begin, std::int64_t end) {
    const Scratch<Compute> columns(plan.max_depth * plan.max_positions());
    const Scratch<Compute> y(plan.out_channels * plan.max_positions());
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t slice = item / tiles;  // image and group
      const std::int64_t group = slice % plan.groups;
      T* output = z + slice * plan.output_size();
      for (const Phase& phase : plan.phases) {
        const Tile tile = plan.tile(item % tiles, phase);
        const std::int64_t count = tile.count();
        if (count == 0) continue;
        pack_columns(plan, phase, tile, x + slice * plan.input_size(), columns.data());
        convolve_tile<T>(plan, operands, group, phase, count, columns.data(), y.data());
        epilogue(y.data(), plan.out_channels * count);
        for (std::int64_t c = 0; c < plan.out_channels; ++c) {
          T* plane = output + c * plan.rows.output * plan.columns.output;
          for_each_output_row(plan, phase, tile,
                              [&](std::int64_t j, std::int64_t oy, std::int64_t ox) {
                                const Compute* values = y.data() + c * count + j;
                                T* target = plane + oy * plan.columns.output + ox;
                                for (std::int64_t i = 0; i < tile.columns; ++i) {
                                  target[i * plan.stride.w] = static_cast<T>(values[i]);
                                }
                              });
        }
      }
    }
  });
}

}  // namespace tenon::ops::cpu
