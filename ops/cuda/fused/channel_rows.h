// Tensors as the tensor cores read them: the operands of the fused backward in global memory.
#pragma once

#include <cstdint>

#include "tenon/ops/fused/phases.h"

namespace tenon::ops::cuda {

/// A tensor [N, groups·C, H, W] as rows of 16 bytes, each four float32 or eight 16-bit numbers of
/// consecutive channels at one position:
///   [group][chunk of channels][image][phase][row q][column q][16 bytes].
/// An output o of an axis is phase + stride·q (ops/fused/phases.h); x has one phase, of stride 1.
/// All phases have as many q as phase 0; rows beyond an image's edge, and channels beyond C, hold
/// zeros.
struct ChannelRows {
  /// Chunks are padded to whole stages of the widest kernel.
  static constexpr int kChunkMultiple = 4;

  void* data;
  int groups;
  bool exact;  ///< float32 numbers are as they were, for products that split them; else TF32
  int chunks;  ///< of a group: a multiple of kChunkMultiple
  int images;
  int phases;  ///< row phases · column phases, row phase first
  int rows;    ///< of q
  int columns;
  int buffer_images;  ///< images that the memory has room for, of which these are neighbours

  /// Rows of 16 bytes from one image to the next, and from one chunk to the next.
  TENON_HOST_DEVICE std::int64_t image_rows() const {
    return static_cast<std::int64_t>(phases) * rows * columns;
  }
  TENON_HOST_DEVICE std::int64_t chunk_rows() const { return buffer_images * image_rows(); }
  TENON_HOST_DEVICE std::int64_t bytes() const { return 16 * chunk_rows() * chunks * groups; }

  /// `count` of the images, beginning with image `first`.
  ChannelRows part(int first, int count) const {
    ChannelRows rows = *this;
    rows.data = static_cast<char*>(data) + 16 * first * image_rows();
    rows.images = count;
    return rows;
  }
};

}  // namespace tenon::ops::cuda
