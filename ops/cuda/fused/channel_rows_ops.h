// Making ChannelRows: their sizes, and the pass that turns planes into them.
#pragma once

#include "tenon/core/tensor.h"
#include "tenon/ops/cuda/fused/channel_rows.h"
#include "tenon/ops/cuda/fused/pack_weights.h"
#include "tenon/ops/fused/tiling.h"

namespace tenon::ops::cuda {

/// Channels in a row of 16 bytes.
constexpr int row_channels(OperandKind operand) { return operand == OperandKind::Tf32 ? 4 : 8; }

/// The sizes, without data, of x [images, groups·in_channels, H, W] of `shape` as rows; `split`:
/// not rounded.
ChannelRows input_rows(const TransposedShape& shape, OperandKind operand, bool split);

/// The sizes, without data, of y [images, groups·out_channels, Hout, Wout] of `shape`, or of its
/// gradient, as rows: a phase for each of stride.h·stride.w.
ChannelRows output_rows(const TransposedShape& shape, OperandKind operand, bool split);

/// Memory for `rows`, uninitialised, as bytes [rows.bytes()] on `device`; sets `rows.data`.
Tensor allocate_rows(ChannelRows& rows, Device device);

/// Writes x [N, groups·C, H, W], contiguous on a GPU, of `operand`'s type (float32 for Tf32), to
/// `rows`, which has x's sizes, one phase and memory: all of it, with zeros for the channels beyond
/// C. TF32 is rounded to nearest, unless the rows are exact. `beside`: the kernels ahead in the
/// stream, down to the last that waited for all before it, touch neither x nor the rows' memory, so
/// that it may begin where they leave room.
void pack_channel_rows(const Tensor& x, OperandKind operand, const ChannelRows& rows,
                       bool beside = false);

}  // namespace tenon::ops::cuda
