// The weight gradient of a transposed convolution, tile by tile.
#pragma once

#include <cstdint>
#include <vector>

#include "tenon/ops/cpu/scratch.h"
#include "tenon/ops/cpu/simd/channel_blocks.h"
#include "tenon/ops/cpu/simd/kernels.h"
#include "tenon/ops/cpu/transposed/gradient_tiles.h"

namespace tenon::ops::cpu {

/// Sums over positions of products of x and dy. dy is turned so that output channels lie side by
/// side: a tap is then an offset, and a vector holds sums of several channels.
class WeightGradient {
 public:
  WeightGradient(const TransposedPlan& plan, const simd::Kernels& kernels,
                 const GradientTiles& tiles);

  /// A thread's memory, and the sums [tap][input channel][output channel, padded] of its tiles;
  /// nothing of it where the gradient is not wanted.
  struct Buffers {
    Buffers(const WeightGradient& gradient, bool wanted);
    Scratch<float> turned_dy;  // [image][phase][place in the plane][output channel]
    Scratch<float> turned_x;   // [block of input channels][position][channel of the block]
    Scratch<float> sums;
    std::vector<std::int32_t> positions{};
  };

  /// Elements of a group's sums.
  std::int64_t size() const {
    return static_cast<std::int64_t>(tiles_.taps().size()) * plan_.in_channels * padded_out_;
  }
  /// Adds a tile's part, given its dy.
  void add(const GradientItem& item, const float* x, const float* dy, Buffers& buffers) const;
  /// All groups' sums in PyTorch's order.
  void store(const float* sums, float* gradient) const;

 private:
  void turn_x(const GradientItem& item, const float* x, Buffers& buffers) const;
  void turn_dy(const GradientItem& item, const float* dy, Buffers& buffers) const;
  void list_positions(const GradientItem& item, Buffers& buffers) const;
  std::int64_t phases() const { return static_cast<std::int64_t>(plan_.phases.size()); }

  const TransposedPlan& plan_;
  const simd::Kernels& kernels_;
  const GradientTiles& tiles_;
  simd::ChannelBlocks in_blocks_;
  std::int64_t padded_out_;
};

}  // namespace tenon::ops::cpu
