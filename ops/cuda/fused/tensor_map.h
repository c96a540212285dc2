// Descriptions of tensors for the tensor memory accelerator of sm_90.
#pragma once

#include <optional>

#include "tenon/core/tensor.h"
#include "tenon/ops/cuda/fused/kernel_config.h"
#include "tenon/ops/fused/tiling.h"

namespace tenon::ops::cuda {

/// The windows of `tiling`'s stages as boxes of x [N, C, H, W], of whose elements `in_16_bytes`
/// take 16 bytes; no slots yet. None where x has no such boxes: its rows must begin at multiples of
/// 16 bytes, a box may have 256 of everything, and no stage may reach into another group's
/// channels.
std::optional<RawWindows> raw_windows(const Tiling& tiling, int in_16_bytes);

/// x as boxes of columns x rows x images x channels (of a stage), in that order in shared memory;
/// x begins at a multiple of 16 bytes.
TensorMap window_map(const Tensor& x, const Tiling& tiling, const RawWindows& windows);

/// A box of rows of channels.
struct RowsBox {
  int columns;
  int rows;
  int phases;
  int images;
  int chunks;
};
/// `rows` as such boxes.
TensorMap rows_map(const ChannelRows& rows, const RowsBox& box);
/// `rows` as boxes of `chunks` chunks that are the windows of `t`'s tiles.
TensorMap rows_map(const ChannelRows& rows, const Tiling& t, int chunks);

/// x [N, C, H, W] as boxes of `columns` columns x channels x rows, in that order in shared memory,
/// in whose lines of up to 128 bytes parts of 16 bytes lie exchanged; x begins at a multiple of 16
/// bytes, and so do its rows.
TensorMap lines_map(const Tensor& x, int columns, int channels, int rows);

/// Whether the gradient of z [N, C, H, W], contiguous, can be a tensor map: its rows must begin at
/// multiples of 16 bytes.
bool has_gradient_map(const Tensor& grad_out);
/// It as boxes of columns x channels x rows, in that order in shared memory, of the shape and with
/// the exchanged parts that GradientBox says.
TensorMap gradient_map(const Tensor& grad_out, KernelConfig config);

}  // namespace tenon::ops::cuda
