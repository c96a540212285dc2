// The kernel's factors, packed for products of matrices.
#pragma once

#include <vector>

#include "tenon/core/tensor.h"
#include "tenon/ops/cpu/simd/channel_blocks.h"
#include "tenon/ops/cpu/winograd/plan.h"

namespace tenon::ops::cpu::winograd {

/// Rows of memory that are soon written, fetched a few lines at a time between products: a store
/// that waits for its line holds up all that follow.
class LinesAhead {
 public:
  /// `rows` rows of `floats` floats, `stride` apart.
  void add(const float* first, std::int64_t rows, std::int64_t stride, std::int64_t floats) {
    runs_.push_back({first, rows, stride, (floats + kLine - 1) / kLine});
    lines_ += rows * runs_.back().lines;
  }
  /// Divides what was added among `calls` calls of `fetch`.
  void start(std::int64_t calls) {
    share_ = (lines_ + calls - 1) / calls;
    run_ = 0;
    row_ = line_ = 0;
  }
  void clear() {
    runs_.clear();
    lines_ = 0;
  }
  void fetch() {
    for (std::int64_t i = 0; i < share_ && run_ < runs_.size(); ++i) {
      const Run& run = runs_[run_];
      __builtin_prefetch(run.first + row_ * run.stride + line_ * kLine, 1);
      if (++line_ < run.lines) continue;
      line_ = 0;
      if (++row_ < run.rows) continue;
      row_ = 0;
      ++run_;
    }
  }

 private:
  static constexpr std::int64_t kLine = 16;  // floats
  struct Run {
    const float* first;
    std::int64_t rows, stride, lines;
  };
  std::vector<Run> runs_{};
  std::int64_t lines_ = 0, share_ = 0;
  std::size_t run_ = 0;
  std::int64_t row_ = 0, line_ = 0;
};

/// A matrix [depth, width] for each phase and factor, of which strips of a few vectors of columns
/// lie one behind the other. Kept with the weight as long as that does not change.
class Filters {
 public:
  /// Of the forward: depth is x's channels, width y's.
  static Filters forward(const Plan& plan, const simd::Kernels& kernels, const Tensor& weight);
  /// Of the data gradient, the other way round, with the taps in reverse, for tiles of x.
  static Filters gradient(const Plan& plan, const simd::Kernels& kernels, const Tensor& weight);

  std::int64_t depth() const { return depth_; }
  std::int64_t width() const { return width_; }
  /// Strips of columns, counted in vectors.
  const simd::ChannelBlocks& strips() const { return strips_; }
  /// How often `multiply` fetches.
  std::int64_t calls(std::int64_t rows, std::int64_t first, std::int64_t last) const;
  /// sums[row·sums_row + column - the first strip's] = rows of `a` [rows, depth] times the matrix
  /// of `phase` and `factor`, for the strips [first, last), with `adds` added to what `sums` holds.
  /// Fetches some of `ahead`, which may be null.
  void multiply(const float* a, std::int64_t rows, std::int64_t phase, int factor,
                std::int64_t first, std::int64_t last, bool adds, float* sums,
                std::int64_t sums_row, LinesAhead* ahead) const;

 private:
  Filters(const simd::Kernels& kernels, const Form& rows, const Form& columns, std::int64_t depth,
          std::int64_t width)
      : kernels_(kernels),
        rows_(rows),
        columns_(columns),
        depth_(depth),
        width_(width),
        strips_(width / kernels.lanes, kernels.vectors) {}
  /// `turned`: those of the data gradient.
  static Filters packed(const Plan& plan, const simd::Kernels& kernels, const Tensor& weight,
                        bool turned);
  void pack(const Plan& plan, const Tensor& weight, bool turned, const Tensor& packed) const;

  int factors() const { return rows_.factors() * columns_.factors(); }

  const simd::Kernels& kernels_;
  const Form &rows_, &columns_;
  std::int64_t depth_, width_;
  simd::ChannelBlocks strips_;
  Tensor packed_{};
};

}  // namespace tenon::ops::cpu::winograd
