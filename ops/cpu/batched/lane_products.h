// Convolutions of images that lie side by side in vectors (lane_window.h): conv2d and the
// transposed convolution, which is conv2d of stride 1 for each phase of its outputs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tenon/ops/conv.h"
#include "tenon/ops/cpu/batched/lane_window.h"
#include "tenon/ops/cpu/simd/channel_blocks.h"

namespace tenon::ops::cpu {

/// The sizes of a convolution of one group, from x [N, in_channels, in.h, in.w] to
/// y [N, out_channels, out.h, out.w].
struct LaneProblem {
  std::int64_t batch, in_channels, out_channels;
  Pair in, out;
  Pair kernel, stride, padding, dilation;
};

/// A tap of the kernel: `index` in its plane; q = 0 reads (row, column) of the window.
struct LaneTap {
  std::int64_t row, column, index;
};

/// Outputs (row + step.h·q_row, column + step.w·q_column), which share their taps.
struct LanePhase {
  std::int64_t row, column;
  std::int64_t rows, columns;  ///< of q
  std::vector<LaneTap> taps;
};

/// How weights lie in memory: element (output channel, input channel, tap) of a kernel of `taps`
/// elements at out·out_stride + in·in_stride + tap.
struct WeightStrides {
  std::int64_t out, in;
};

/// Sums of products of a window and weights, row by row of one phase's outputs.
class LaneProducts {
 public:
  /// conv2d, or the transposed convolution, of the problem's sizes.
  static LaneProducts conv2d(const simd::Kernels& kernels, const LaneProblem& problem);
  static LaneProducts transposed(const simd::Kernels& kernels, const LaneProblem& problem);

  const LaneProblem& problem() const { return problem_; }
  const LaneWindow& window() const { return window_; }
  const std::vector<LanePhase>& phases() const { return phases_; }
  /// From output to output of a phase.
  Pair step() const { return step_; }
  /// Rows of the window that rows [first, first + count) of q read, of whichever phase: where they
  /// begin, and how many.
  std::int64_t window_row(std::int64_t first) const { return first * row_step_; }
  std::int64_t window_rows(std::int64_t count) const { return (count - 1) * row_step_ + reach_; }
  /// The most rows and columns of q that a phase has.
  std::int64_t q_rows() const { return q_rows_; }
  std::int64_t q_columns() const { return q_columns_; }

  // Sums of some rows of q: [column of the phase][output channel][row of the outputs][q column]
  // [lane], so that rows of outputs of one channel follow each other as they do in memory.

  /// The most rows of q, and the floats of their sums.
  std::int64_t sums_rows() const { return sums_rows_; }
  std::int64_t sums_size() const { return step_.w * part_stride(); }
  /// From output channel to output channel.
  std::int64_t sums_stride() const { return sums_rows_ * row_phases() * row_stride(); }
  /// Floats of `count` rows of q in one column phase and output channel, of which there are
  /// sums_size() / sums_stride().
  std::int64_t run_size(std::int64_t count) const { return count * row_phases() * row_stride(); }
  /// Whether phases differ in size, so that some places among the sums stay as they are.
  bool leaves_gaps() const;
  /// Where those of phase `index` at the `row`th row of q begin.
  std::int64_t sums_offset(std::size_t index, std::int64_t row) const {
    const LanePhase& phase = phases_[index];
    return phase.column * part_stride() + (row * row_phases() + phase.row) * row_stride();
  }

  /// The weights as [phase][block of output channels][tap, input channel][output channel of the
  /// block], kept with the tensor as long as it does not change.
  Tensor packed_weights(const Tensor& weight, const WeightStrides& strides) const;
  /// sums[output channel·sums_stride() + q column·lanes + lane] = start[output channel] + the
  /// products of a row of q of phase `index`, whose taps' window row 0 is at `rows`.
  void multiply_row(std::size_t index, const float* rows, const float* weights, const float* start,
                    float* sums) const;
  /// The same for all phases of `count` rows of q from `first`, whose window row is at `rows`.
  void multiply_rows(std::int64_t first, std::int64_t count, const float* rows,
                     const float* weights, const float* start, float* sums) const;
  /// Stores the results y [N, out_channels, out.h, out.w] of a group at all phases of `count` rows
  /// of q from `first`, given their sums.
  void unpack(const float* sums, const LaneGroup& group, std::int64_t first, std::int64_t count,
              const Images<float>& y) const;

 private:
  LaneProducts(const simd::Kernels& kernels, const LaneProblem& problem, const LaneWindow& window,
               Pair step, std::int64_t row_step, std::vector<LanePhase> phases);
  /// Puts the column phases of a run of `count` results together.
  void copy_run(const float* sums, std::int64_t count, float* target) const;
  void pack_weights(const float* weight, const WeightStrides& strides, float* packed) const;
  std::int64_t depth(const LanePhase& phase) const {
    return static_cast<std::int64_t>(phase.taps.size()) * problem_.in_channels;
  }

  std::int64_t row_phases() const { return std::min(step_.h, problem_.out.h); }
  std::int64_t row_stride() const { return q_columns_ * kernels_.lanes; }
  std::int64_t part_stride() const { return problem_.out_channels * sums_stride(); }

  const simd::Kernels& kernels_;
  LaneProblem problem_;
  LaneWindow window_;
  Pair step_;
  std::int64_t row_step_;  // of the window's rows, from row to row of q
  std::vector<LanePhase> phases_;
  std::int64_t reach_ = 1;  // rows of the window that a row of q reads
  std::int64_t q_rows_ = 0, q_columns_ = 0;
  std::int64_t sums_rows_ = 1;
  simd::ChannelBlocks blocks_;
  std::vector<std::vector<std::int32_t>> offsets_;  // of each phase's terms
  std::vector<std::int64_t> weight_offsets_;        // of each phase
  std::int64_t weight_count_ = 0;
};

/// The problem of conv2d of x with weight and result of these shapes, and of the transposed
/// convolution: with the same sizes and x and y exchanged it describes the gradient.
template <class Options>
LaneProblem problem_of(const Shape& x, const Shape& y, Pair kernel, const Options& options) {
  return {.batch = x[0],
          .in_channels = x[1],
          .out_channels = y[1],
          .in = {x[2], x[3]},
          .out = {y[2], y[3]},
          .kernel = kernel,
          .stride = options.stride,
          .padding = options.padding,
          .dilation = options.dilation};
}

}  // namespace tenon::ops::cpu
