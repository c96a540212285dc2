// Transposed convolutions whose phases have two taps along each axis (kernel = 2·stride, as in most
// decoders), by minimal filtering: along each axis, tiles of 2 or 4 neighbouring outputs of two
// taps cost 3 or 5 products (form.h), so that a square of 4 x 4 outputs costs 25 instead of 64.
// With tiles of 2, results differ from the plain sum's by a few roundings and whole numbers stay
// exact; with tiles of 4 they do not. Both gradients are of the same form (backward.cpp).
#pragma once

#include <algorithm>
#include <cstdint>

#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/cpu/winograd/form.h"
#include "tenon/ops/fused/phases.h"

namespace tenon::ops::cpu::winograd {

/// Floats from one matrix of `size` to the next: not a multiple of a page, so that those of all
/// factors do not compete for the same part of a cache.
constexpr std::int64_t spread(std::int64_t size) { return size + 16; }

/// One axis. Output phase + stride·q reads x at q + first + later(phase) and at the next place.
struct Axis {
  explicit Axis(const PhaseAxis& axis)
      : phase_axis(axis),
        form(best_form(axis.output_count(0))),
        input_form(best_form(axis.input)),
        first(window(0)) {
    tiles = (axis.output_count(0) + form.tile - 1) / form.tile;
    input_tiles = (axis.input + input_form.tile - 1) / input_form.tile;
    low = std::min<std::int64_t>(0, -first - 2);
    high = std::max(form.tile * tiles, input_form.tile * input_tiles - first);
  }

  std::int64_t window(std::int64_t phase) const {
    return phase_axis.tap_shift(phase, phase_axis.first_tap(phase)) - 1;
  }
  int later(std::int64_t phase) const { return static_cast<int>(window(phase) - first); }
  /// The kernel's tap that is g`i` of `phase`.
  std::int64_t tap(std::int64_t phase, int i) const {
    return phase_axis.first_tap(phase) + (1 - i) * phase_axis.stride;
  }
  /// Windows of x of which phases read, each beginning one later, and their factors: all of them,
  /// and where those of a phase begin.
  int windows() const { return 1 + later(phase_axis.stride - 1); }
  int data_factors() const {
    return form.factors() + (windows() - 1) * (form.tile == 2 ? 2 : form.factors());
  }
  int first_factor(std::int64_t phase) const {
    return later(phase) * (data_factors() - form.factors());
  }

  PhaseAxis phase_axis;
  const Form& form;        ///< of tiles of q
  const Form& input_form;  ///< of tiles of positions of x
  std::int64_t first;
  std::int64_t tiles, input_tiles;
  std::int64_t low, high;  ///< q that tiles of x or of q reach: [low, high)
};

/// The sizes of one transposed convolution.
struct Plan {
  Plan(const Shape& x, const Shape& weight, const Shape& y, const ConvTranspose2dOptions& options)
      : batch(x[0]),
        in_channels(x[1]),
        out_channels(weight[1]),
        stride(options.stride),
        rows({x[2], y[2], weight[2], stride.h, options.padding.h, 1}),
        columns({x[3], y[3], weight[3], stride.w, options.padding.w, 1}) {}

  std::int64_t phases() const { return stride.h * stride.w; }
  std::int64_t taps() const { return 4 * phases(); }
  /// Products of a tile of outputs, and of one of x: number (along the rows)·(factors along the
  /// columns) + (along the columns).
  int factors() const { return rows.form.factors() * columns.form.factors(); }
  int input_factors() const { return rows.input_form.factors() * columns.input_form.factors(); }
  std::int64_t output_rows() const { return rows.phase_axis.output; }
  std::int64_t output_columns() const { return columns.phase_axis.output; }

  std::int64_t batch, in_channels, out_channels;
  Pair stride;
  Axis rows, columns;
};

/// Whether a block of x, weight and result y, float32, takes this way, forward and backward: the
/// backward must find every y where the forward found it.
bool suits(const Shape& x, const Shape& weight, const Shape& y,
           const ConvTranspose2dOptions& options);

}  // namespace tenon::ops::cpu::winograd
