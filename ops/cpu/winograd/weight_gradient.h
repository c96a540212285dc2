// The weight gradient of a transposed convolution by minimal filtering.
#pragma once

#include <cstdint>

#include "tenon/ops/cpu/scratch.h"
#include "tenon/ops/cpu/winograd/filters.h"
#include "tenon/ops/cpu/winograd/outputs.h"
#include "tenon/ops/cpu/winograd/plan.h"

namespace tenon::ops::cpu::winograd {

/// Sums over tiles of outputs, of the forward's factors of x and those of dy that the form makes of
/// outputs (form.h).
class WeightGradient {
 public:
  WeightGradient(const Plan& plan, const simd::Kernels& kernels)
      : plan_(plan),
        kernels_(kernels),
        out_strips_(plan.out_channels / kernels.lanes, kernels.vectors) {}

  /// Elements of the sums [tap of the kernel][channel of x][channel of y].
  std::int64_t size() const { return plan_.taps() * plan_.in_channels * plan_.out_channels; }

  /// Elements of the factors of so many tiles, for which a caller may have memory that serves
  /// others too.
  std::int64_t factors_size(std::int64_t tiles) const;
  /// A thread's memory.
  struct Buffers {
    Buffers(const WeightGradient& gradient, std::int64_t tiles, float* factors_memory);
    /// [member of a group][factor along the columns][vector of x's channels][tile][lane]
    float* data;
    /// [member][phase of the columns][factor along them][vector of y's channels][tile][lane]
    float* gradient;
    /// [factor along the columns][channel of x][channel of y], a few of both
    Scratch<float> products;
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
  std::int64_t data_size(std::int64_t tiles) const;
  std::int64_t gradient_size(std::int64_t tiles) const;
  void compute_data(std::int64_t images, const Operand& x, std::int64_t row_phase,
                    const Group& group, const Buffers& buffers) const;
  void compute_gradient(std::int64_t images, const Operand& dy, std::int64_t row_phase,
                        const Group& group, const Buffers& buffers) const;
  simd::FactorRows factor_rows(std::int64_t tile_rows, std::int64_t index, std::int64_t channels,
                               float* factors) const;
  void multiply(const Buffers& buffers, std::int64_t tiles, std::int64_t phase, int vertical,
                int member, bool adds, float* sums) const;
  simd::TapProducts tap_products(const Buffers& buffers, std::int64_t phase, int vertical,
                                 bool adds, float* sums) const;

  const Plan& plan_;
  const simd::Kernels& kernels_;
  simd::ChannelBlocks out_strips_;
};

}  // namespace tenon::ops::cpu::winograd
