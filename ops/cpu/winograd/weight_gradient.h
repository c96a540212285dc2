// The weight gradient of a transposed convolution by minimal filtering.
#pragma once

#include <cstdint>

#include "tenon/ops/cpu/scratch.h"
#include "tenon/ops/cpu/winograd/filters.h"
#include "tenon/ops/cpu/winograd/outputs.h"
#include "tenon/ops/cpu/winograd/plan.h"

namespace tenon::ops::cpu::winograd {

/// Of the tap g0: Σ d0·y0 + d1·y1 = m0 + m1, of g1: Σ d1·y0 + d2·y1 = m1 - m2, where y is the
/// gradient of two outputs and m0 = Σ (d0 - d1)·y0, m1 = Σ d1·(y0 + y1), m2 = Σ (d1 - d2)·y1: the
/// factors of the forward's data, those of its taps taken of y, and its outputs.
class WeightGradient {
 public:
  WeightGradient(const Plan& plan, const simd::Kernels& kernels)
      : plan_(plan),
        kernels_(kernels),
        out_strips_(plan.out_channels / kernels.lanes, kernels.vectors) {}

  /// Elements of the sums [tap of the kernel][channel of x][channel of y].
  std::int64_t size() const { return plan_.taps() * plan_.in_channels * plan_.out_channels; }

  /// Elements of the products, for which a caller may have memory that serves others too.
  std::int64_t products_size() const { return kFactors * plan_.in_channels * plan_.out_channels; }
  /// A thread's memory, for `tiles` and rows of a window of `row_size` at most; nothing where the
  /// gradient is not wanted.
  struct Buffers {
    Buffers(const WeightGradient& gradient, std::int64_t tiles, std::int64_t row_size, bool wanted,
            float* products_memory);
    Scratch<float> combined;  // rows of a window
    Scratch<float> data;      // [factor along the columns][vector of x's channels][tile][lane]
    Scratch<float> gradient;  // [factor along the columns][vector of y's channels][tile][lane]
    float* products;          // [factor][channel of x][channel of y]
  };

  /// Images in a window, of which the one that counts as (0, 0) here is at (row, column).
  struct Operand {
    const Window& window;
    const float* data;
    std::int64_t row, column;
  };
  /// The part of `images` whole images, x as the forward's window has it, and dy; with `adds`,
  /// added to what `sums` holds.
  void compute(std::int64_t images, const Operand& x, const Operand& dy, const Buffers& buffers,
               bool adds, float* sums) const;
  /// The sums in PyTorch's order.
  void store(const float* sums, float* gradient) const;

 private:
  void compute_data(std::int64_t images, const Operand& x, std::int64_t phase, int vertical,
                    const Buffers& buffers) const;
  void compute_gradient(std::int64_t images, const Operand& dy, std::int64_t phase, int vertical,
                        const Buffers& buffers) const;
  simd::FactorRows factor_rows(std::int64_t tile_rows, std::int64_t index, std::int64_t channels,
                               float* factors) const;
  void multiply(const Buffers& buffers, std::int64_t tiles, int vertical, int horizontal) const;
  void add_taps(const Buffers& buffers, std::int64_t phase, bool adds, float* sums) const;

  const Plan& plan_;
  const simd::Kernels& kernels_;
  simd::ChannelBlocks out_strips_;
};

}  // namespace tenon::ops::cpu::winograd
