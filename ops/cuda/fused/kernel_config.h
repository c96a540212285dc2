// What the fused kernel is compiled for and called with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tenon/ops/cuda/fused/channel_rows.h"
#include "tenon/ops/fused/tiling.h"

namespace tenon::ops::cuda {

/// What a kernel computes.
enum class Work {
  Forward,      ///< z from x
  PartialSums,  ///< y over a part of the input channels, in float32, from x
  SumGradient,  ///< dy, the gradient of the convolution's result y: y is computed again from x, and
                ///< the gradient of z goes back through the chain
  DataGradient  ///< dx from dy
};

constexpr bool is_backward(Work work) {
  return work == Work::SumGradient || work == Work::DataGradient;
}

/// What a kernel is compiled for.
struct KernelConfig {
  int channels;       ///< output channels of a tile: 8, 16, 32, 48 or 64
  int row_phases;     ///< phases of a tile
  int column_phases;  ///< stride.w
  int blocks;         ///< blocks of 64 positions of a consumer group
  int groups;         ///< consumer groups
  int teams;          ///< of producers
  int chunks;         ///< rows of 16 bytes a position has in a stage: 2 or 4
  int vector;         ///< columns of x that a producer reads at once: 1, 2 or 4
  bool resident;      ///< the weights stay in shared memory for a block's life
  bool split;         ///< float32 accuracy by three products of TF32 heads and tails; those of x
                      ///< are found in registers, before the products
  // Of one geometry only, where the products are unrolled; otherwise 0.
  int kernel;
  int padding;
  int columns;  ///< of the tile
  bool flat;    ///< the tiles are (ops/fused/tiling.h)
  int stride;   ///< column_phases, but for a data gradient, which has one phase

  Work work;

  /// Halves of steps of 8 channels for which Work::SumGradient copies the gradient of z ahead,
  /// where it does not come by bulk copies.
  static constexpr int gradients_ahead = 3;

  /// Whether the gradient of z comes by bulk copies, where it allows them: on sm_90.
  constexpr bool boxes_gradients() const { return work == Work::SumGradient && kernel != 0; }
  /// Whether the second team of producers asks for them: those that load planes of x have no thread
  /// to spare for it.
  constexpr bool gradient_team() const { return boxes_gradients() && teams == 2; }
  /// Teams that load windows: one loads every stage, of two each loads every other.
  constexpr int loading_teams() const { return gradient_team() ? 1 : teams; }
  /// Whether the input are ChannelRows; else they are planes.
  constexpr bool takes_rows() const { return is_backward(work) && !gradient_team(); }
  /// Whether windows of planes come by bulk copies, where x allows them: rows of narrow tiles are
  /// too short, and those of flat ones no boxes.
  constexpr bool bulk() const {
    return columns >= 64 && !flat && (work == Work::Forward || gradient_team());
  }
  /// Whether there is no other way for them.
  constexpr bool bulk_only() const { return gradient_team(); }
  /// Whether warps put the results of ragged tiles in order in shared memory: on sm_90, which has
  /// enough of it, except where the code it takes costs the other tiles more (wide ones, 10 %), and
  /// where it would not fit the registers. A warp has two such places of staging_bytes().
  constexpr bool stages_results() const {
    return kernel != 0 && (columns == 8 || flat) && column_phases <= 2 && !split &&
           !is_backward(work);
  }
  constexpr int staging_bytes() const { return 4 * row_phases * (64 * column_phases + 32); }
  constexpr int phases() const { return row_phases * column_phases; }
  constexpr int positions() const { return 64 * blocks * groups; }
  constexpr int threads() const { return 128 * (groups + teams); }
  /// Heads and tails.
  constexpr int weight_halves() const { return split ? 2 : 1; }
  /// The gradient of z that a consumer group wants for a step of 64 positions and 8 channels.
  constexpr int gradient_step_bytes(int element_bytes) const {
    return 64 * phases() * 8 * element_bytes;
  }
  /// Shared memory that Work::SumGradient takes for the gradient of z: `slots` steps of each group,
  /// or what its threads copy ahead.
  constexpr int gradient_bytes(int slots, int element_bytes) const {
    if (work != Work::SumGradient) return 0;
    if (boxes_gradients()) return slots * groups * gradient_step_bytes(element_bytes);
    return gradients_ahead * 2 * phases() * element_bytes * 128 * groups;
  }
  /// Rows of 16 bytes that a tap's weights take in a stage.
  constexpr int tap_rows() const { return weight_halves() * chunks * channels; }
};

/// The same as a type: a kernel's template argument.
template <int kChannels, int kRowPhases, int kColumnPhases, int kBlocks, int kGroups, int kTeams,
          int kChunks, int kVector, bool kResident, bool kSplit, int kKernel = 0, int kPadding = 0,
          int kColumns = 0, bool kFlat = false, Work kWork = Work::Forward,
          int kStride = kColumnPhases>
struct StaticConfig {
  static constexpr KernelConfig value{
      kChannels, kRowPhases, kColumnPhases, kBlocks,  kGroups,  kTeams, kChunks, kVector,
      kResident, kSplit,     kKernel,       kPadding, kColumns, kFlat,  kStride, kWork};
};

/// Whether two lanes join their runs of z, so that a store writes longer ones: where a warp's 16
/// positions are neighbours, and a run is not as wide as a store already.
constexpr bool joins_runs(KernelConfig config) {
  return config.columns >= 64 && config.column_phases <= 2 && !config.flat;
}

/// Steps of the tensor cores that make a sum at float32 accuracy before it joins the total: they
/// cut digits off at every step, so that long sums drift. Each 8 channels of a tap (or, for dw, 8
/// positions) are three.
inline constexpr int kStepsOfSum = 48;

/// Warps of a team of producers.
inline constexpr int kProducerWarps = 4;

/// A tensor as the tensor memory accelerator sees it: the driver's CUtensorMap, whose header need
/// not be there for those who only choose kernels.
struct alignas(64) TensorMap {
  std::byte opaque[128];
};

/// Windows as bulk copies bring them from x: [channel][image][row][column], of `columns` columns
/// that begin, as the copies must, at a multiple of 16 bytes, `skip` columns before the window.
struct RawWindows {
  int slots;  ///< of the teams' rings together; 0: no bulk copies
  int columns;
  int skip;
};

/// What bulk copies bring of the gradient of z for a step of 64 positions and 8 channels: boxes of
/// `columns` columns x 8 channels x `rows` rows of z, in that order in shared memory, in whose
/// lines of up to 128 bytes parts of 16 bytes lie exchanged (CU_TENSOR_MAP_SWIZZLE_*B): so the
/// eight channels that a warp reads at once lie in different banks.
struct GradientBox {
  int line_bytes;  ///< of a row of a box
  int columns;
  int rows;
  int count;  ///< side by side

  TENON_HOST_DEVICE constexpr GradientBox(KernelConfig config, int element_bytes)
      : line_bytes(least(128, config.columns * config.column_phases * element_bytes)),
        columns(line_bytes / element_bytes),
        rows(64 / config.columns * config.row_phases),
        count(config.columns * config.column_phases / columns),
        positions_(config.columns),
        row_phases_(config.row_phases),
        position_bytes_(config.column_phases * element_bytes) {}

  TENON_HOST_DEVICE constexpr int bytes() const { return line_bytes * 8 * rows; }

  /// Where in a step the numbers of a position begin, of an even channel and the first row phase.
  TENON_HOST_DEVICE constexpr int offset(int position, int channel) const {
    const int row = position / positions_ * row_phases_;
    const int byte = position % positions_ * position_bytes_;
    const int line = (byte / line_bytes * rows + row) * 8 + channel;
    const int address = line * line_bytes + byte % line_bytes;
    // The parts of a line of 2^n times 16 bytes are exchanged by the n lowest bits of the line of
    // 128 bytes.
    return address ^ ((address >> 7 & (line_bytes / 16 - 1)) << 4);
  }
  /// The same of the next channel: its line lies in the same 128 bytes, or in the next, whose
  /// lowest bit differs.
  TENON_HOST_DEVICE constexpr int next_channel(int offset) const {
    return line_bytes == 128 ? (offset ^ 16) + 128 : offset + line_bytes;
  }
  /// From a row phase to the next.
  TENON_HOST_DEVICE constexpr int row_bytes() const { return 8 * line_bytes; }

 private:
  TENON_HOST_DEVICE static constexpr int least(int a, int b) { return a < b ? a : b; }

  int positions_;  // of a row of the tile
  int row_phases_;
  int position_bytes_;
};

/// What Work::SumGradient reads and writes besides.
struct GradientArguments {
  TensorMap map;         ///< of grad_out, with slots: see gradient_boxes.cuh
  int slots;             ///< of each consumer group's ring; 0: no bulk copies
  const void* grad_out;  ///< gradient of z, [N, groups·Cout, Hout, Wout]
  bool aligned;          ///< it and its rows begin where runs can be read at once
  ChannelRows grad_y;    ///< dy
  float* bias_sums;      ///< [bias_sum_rows, groups·Cout]: sums of dy over each warp's positions
};

/// How many sums of each channel the gradient of the bias is made of.
constexpr std::int64_t bias_sum_rows(KernelConfig config, const Tiling& t) {
  return static_cast<std::int64_t>(t.image_tiles) * t.row_tiles * t.column_tiles * t.sets *
         config.groups * config.blocks * 4;
}

/// The kernel's one argument beside the chain.
struct KernelArguments {
  TensorMap x_map;     ///< with bulk copies: x or rows as boxes that are a stage's windows
  const void* x;       ///< [N, groups·Cin, H, W], or null where the input are rows
  ChannelRows rows;    ///< x, or for the data gradient dy; none where the input are planes
  const void* packed;  ///< the same as pack_weights.h makes it
  const void* bias;    ///< [groups·Cout] or null
  void* z;             ///< [N, groups·Cout, Hout, Wout], or dx [N, groups·Cin, H, W]
  GradientArguments gradient;
  int* progress;   ///< tiles of dx whose loads have begun: SumGradient sets it to 0; or null
  int* found_nan;  ///< set where split sums were no number, see exact_sums.h; null without split
  Tiling tiling;
  int slots;  ///< of the ring
  RawWindows raw;
  int stages_of_sum;  ///< with split: stages that are summed before they join the total
  bool aligned;       ///< x and its rows begin where vectors can be read at once
  bool take_turns;    ///< consumer groups multiply one after the other, so that one's chain hides
                      ///< behind another's products; needs slots for a whole tile
};

/// Where the parts of the dynamic shared memory begin, in bytes; the same on host and device.
struct SharedLayout {
  int barriers;
  int places;  ///< without bulk copies: where each vector of the window lies, as
               ///< image << 20 | row << 10 | column
  int raw;     ///< slots of raw_bytes
  int raw_bytes;
  int x;  ///< slots of x_bytes
  int x_bytes;
  int weights;  ///< slots of weight_bytes, or all stages of the block's unit
  int weight_bytes;
  int staging;    ///< of the consumers' warps, for ragged tiles
  int gradients;  ///< the gradient of z, in boxes or copies
  int total;

  TENON_HOST_DEVICE SharedLayout(KernelConfig config, const Tiling& t, int slots,
                                 const RawWindows& windows, int gradient_slots)
      : barriers(0),
        places(16 * slots + 8 * windows.slots + 8 + 16 * config.groups * gradient_slots),
        raw((places + (windows.slots == 0 ? 4 * t.window_positions() / config.vector : 0) + 127) /
            128 * 128),
        raw_bytes((config.chunks * t.tile.images * t.window_rows * windows.columns * 16 + 127) /
                  128 * 128),
        x(raw + windows.slots * raw_bytes),
        x_bytes(whole_lines(config.chunks * t.chunk_rows() * 16, config.takes_rows())),
        weights(x + slots * x_bytes),
        weight_bytes(t.most_taps() * config.tap_rows() * 16),
        staging(weights + weight_bytes * (config.resident ? t.stages : slots)),
        gradients(multiple_of(staging + (config.stages_results() && t.ragged
                                             ? 4 * config.groups * 2 * config.staging_bytes()
                                             : 0),
                              gradient_slots == 0 ? 16 : 1024)),
        // A row of 16 bytes has in_channels / chunks numbers.
        total(gradients +
              config.gradient_bytes(gradient_slots, 16 * config.chunks / t.tile.in_channels)) {}

 private:
  /// Where slots are the target of bulk copies, they begin at multiples of 128 bytes.
  TENON_HOST_DEVICE static int whole_lines(int bytes, bool bulk) {
    return bulk ? multiple_of(bytes, 128) : bytes;
  }
  TENON_HOST_DEVICE static int multiple_of(int bytes, int of) { return (bytes + of - 1) / of * of; }
};

}  // namespace tenon::ops::cuda
