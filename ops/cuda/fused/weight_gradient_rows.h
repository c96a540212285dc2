// The table of the weight gradient's kernels.
#pragma once

#include <span>
#include <vector>

#include "tenon/core/device.h"
#include "tenon/ops/cuda/fused/channel_rows.h"
#include "tenon/ops/cuda/fused/kernel_config.h"
#include "tenon/ops/cuda/fused/pack_weights.h"
#include "tenon/ops/cuda/fused/weight_gradient_tiling.h"

namespace tenon::ops::cuda {

/// An operand's rows of channels in memory.
struct OperandSource {
  const char* data;
  std::int64_t group_bytes;  ///< from one group to the next
  std::int64_t chunk_bytes;
  std::int64_t image_bytes;
  int chunk_rows;  ///< chunk_bytes / 16; a group's rows of a half are fewer than 2^31
  int height;      ///< of a phase
  int width;

  explicit OperandSource(const ChannelRows& rows)
      : data(static_cast<const char*>(rows.data)),
        group_bytes(rows.bytes() / rows.groups),
        chunk_bytes(16 * rows.chunk_rows()),
        image_bytes(16 * rows.image_rows()),
        chunk_rows(static_cast<int>(rows.chunk_rows())),
        height(rows.rows),
        width(rows.columns) {}

  TENON_HOST_DEVICE const char* chunk(int group, int index) const {
    return data + group * group_bytes + index * chunk_bytes;
  }
};

/// How far the data gradient beside has come, whose tiles are read in the same order. Who follows
/// it closely finds dy in the L2 cache; left alone, one of the two runs ahead, and both read all of
/// dy from memory.
struct LeadingTiles {
  const int* begun;  ///< their number; null: nobody leads
  int ahead;  ///< tiles that may be read before they have begun; those under way are twice as
              ///< many, and read dy's channels one after the other
  int count;
  int units;  ///< that follow each other at one place
  // How it cuts images.
  int images;
  int rows;
  int columns;
  int row_tiles;
  int column_tiles;

  /// How many must have begun before what lies at this place is read.
  TENON_HOST_DEVICE int before(int image, int row, int column) const {
    const int row_tile = least(row / rows, row_tiles - 1);
    const int column_tile = least(column / columns, column_tiles - 1);
    const int place = (image / images * row_tiles + row_tile) * column_tiles + column_tile;
    return count - place * units - ahead;  // the last tile is the first
  }

 private:
  TENON_HOST_DEVICE static int least(int a, int b) { return a < b ? a : b; }
};

/// The kernels' one argument.
struct WeightGradientArguments {
  OperandSource x;
  OperandSource dy;
  float* workspace;
  bool continues;        ///< the sums begin with those in the workspace
  bool beside;           ///< the kernel ahead, which began when dy was there
  LeadingTiles leading;  ///< where a kernel with warpgroups runs beside
  // With warpgroups, which read x as planes.
  int dy_chunks;     ///< of a group in memory
  TensorMap x_map;   ///< lines of a window's rows
  TensorMap dy_map;  ///< windows of a unit's phases
  WeightGradientTiling tiling;
};

struct WeightGradientRow {
  OperandKind operand;
  WeightGradientConfig config;
  void (*launch)(const WeightGradientArguments& arguments, int shared_bytes, Device device);
};

/// All of them.
const std::vector<WeightGradientRow>& weight_gradient_rows();
/// Those of sm_90a; there only where the library was built with it.
std::span<const WeightGradientRow> weight_gradient_rows_sm90();

}  // namespace tenon::ops::cuda
