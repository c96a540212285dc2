#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/fused/channel_rows_ops.h"
#include "tenon/ops/cuda/fused/tensor_core.cuh"

namespace tenon::ops::cuda {
namespace {

constexpr int kThreads = 256;

ChannelRows rows_of(const TransposedShape& shape, OperandKind operand, bool split, int channels) {
  const int row = row_channels(operand);
  constexpr int kMultiple = ChannelRows::kChunkMultiple;
  return {.data = nullptr,
          .groups = shape.groups,
          .exact = split,
          .chunks = ((channels + row - 1) / row + kMultiple - 1) / kMultiple * kMultiple,
          .images = shape.images,
          .phases = 1,
          .rows = 0,
          .columns = 0,
          .buffer_images = shape.images};
}

/// Neighbouring positions of one channel.
template <class Element, int kWidth>
struct alignas(sizeof(Element) * kWidth) Run {
  Element values[kWidth];
};

/// The row of these channels.
template <class Element>
__device__ uint4 row_of(const Element (&values)[8], bool /*exact*/) {
  return make_uint4(join(values[0], values[1]), join(values[2], values[3]),
                    join(values[4], values[5]), join(values[6], values[7]));
}
__device__ uint4 row_of(const float (&values)[4], bool exact) {
  const auto bits = [exact](float value) {
    return exact ? __float_as_uint(value) : round_to_tf32(value);
  };
  return make_uint4(bits(values[0]), bits(values[1]), bits(values[2]), bits(values[3]));
}

constexpr int kChunksOfThread = 2;
static_assert(ChannelRows::kChunkMultiple % kChunksOfThread == 0);

/// Reads kWidth neighbouring positions of a chunk's channels; zeros beyond the last.
template <class Element, int kWidth, int kRow>
__device__ void load_runs(const Element* source, int plane, int channels,
                          Run<Element, kWidth> (&runs)[kRow]) {
#pragma unroll
  for (int c = 0; c < kRow; ++c) {
    if (c < channels) {
      runs[c] = *reinterpret_cast<const Run<Element, kWidth>*>(
          source + static_cast<std::int64_t>(c) * plane);
    } else {
#pragma unroll
      for (int p = 0; p < kWidth; ++p) runs[c].values[p] = Element(0.0f);
    }
  }
}

/// A thread makes the rows of kChunksOfThread chunks at kWidth neighbouring positions of an image,
/// so that a warp reads and writes runs of memory. Blocks: `of_plane` for the positions of an
/// image, chunks of all groups, images. They begin with the last image: the kernel behind begins
/// with the first, whose rows are in the L2 cache then. `beside`: where the kernels ahead leave
/// room, while they still run.
template <class Operand, int kWidth>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(const tenon::cuda::PreviousKernel previous,
                const typename OperandTraits<Operand>::Element* x, const ChannelRows rows,
                int channels, unsigned of_plane, bool beside) {
  using Element = typename OperandTraits<Operand>::Element;
  constexpr int kRow = OperandTraits<Operand>::kRow;
  // Whoever waits for this kernel relies on those ahead of it, too: one block waits in any case.
  if (!beside || blockIdx.x == gridDim.x - 1) previous.wait();
  let_next_kernel_begin();
  const int plane = rows.rows * rows.columns;
  const int position = static_cast<int>((blockIdx.x % of_plane * kThreads + threadIdx.x) * kWidth);
  if (position >= plane) return;
  const unsigned rest = blockIdx.x / of_plane;
  const auto of_image = static_cast<unsigned>(rows.groups * rows.chunks / kChunksOfThread);
  const int image = rows.images - 1 - static_cast<int>(rest / of_image);
  const int first = static_cast<int>(rest % of_image) * kChunksOfThread;
  const int group = first / rows.chunks;
  const int chunk = first % rows.chunks;
  const Element* source =
      x + static_cast<std::int64_t>(image * rows.groups + group) * channels * plane + position;
  Run<Element, kWidth> runs[kChunksOfThread][kRow];
#pragma unroll
  for (int i = 0; i < kChunksOfThread; ++i) {
    const int channel = (chunk + i) * kRow;
    load_runs(source + static_cast<std::int64_t>(channel) * plane, plane, channels - channel,
              runs[i]);
  }
  uint4* target = static_cast<uint4*>(rows.data) +
                  static_cast<std::int64_t>(group * rows.chunks + chunk) * rows.chunk_rows() +
                  image * rows.image_rows() + position;
#pragma unroll
  for (int i = 0; i < kChunksOfThread; ++i, target += rows.chunk_rows()) {
#pragma unroll
    for (int p = 0; p < kWidth; ++p) {
      Element values[kRow];
#pragma unroll
      for (int c = 0; c < kRow; ++c) values[c] = runs[i][c].values[p];
      target[p] = row_of(values, rows.exact);
    }
  }
}

template <class Operand, int kWidth>
void launch_pack(const Tensor& x, const ChannelRows& rows, bool beside) {
  using Element = typename OperandTraits<Operand>::Element;
  const int plane = rows.rows * rows.columns;
  const auto of_plane =
      static_cast<unsigned>((plane + kWidth * kThreads - 1) / (kWidth * kThreads));
  const unsigned blocks = of_plane * static_cast<unsigned>(rows.images) *
                          static_cast<unsigned>(rows.groups * rows.chunks / kChunksOfThread);
  tenon::cuda::launch<pack_kernel<Operand, kWidth>>(
      {blocks, kThreads}, x.device(), static_cast<const Element*>(x.raw_data()), rows,
      static_cast<int>(x.shape()[1] / rows.groups), of_plane, beside);
}

template <class Operand>
void pack_pairs(const Tensor& x, const ChannelRows& rows, bool beside) {
  // Two 16-bit numbers at once, where all planes begin at an even position.
  const bool pairs =
      rows.rows * rows.columns % 2 == 0 && reinterpret_cast<std::uintptr_t>(x.raw_data()) % 4 == 0;
  if (pairs) {
    launch_pack<Operand, 2>(x, rows, beside);
  } else {
    launch_pack<Operand, 1>(x, rows, beside);
  }
}

}  // namespace

ChannelRows input_rows(const TransposedShape& shape, OperandKind operand, bool split) {
  ChannelRows rows = rows_of(shape, operand, split, shape.in_channels);
  rows.rows = static_cast<int>(shape.rows.input);
  rows.columns = static_cast<int>(shape.columns.input);
  return rows;
}

ChannelRows output_rows(const TransposedShape& shape, OperandKind operand, bool split) {
  ChannelRows rows = rows_of(shape, operand, split, shape.out_channels);
  rows.phases = static_cast<int>(shape.rows.stride * shape.columns.stride);
  // Phase 0 has the most outputs.
  rows.rows = static_cast<int>(shape.rows.output_count(0));
  rows.columns = static_cast<int>(shape.columns.output_count(0));
  return rows;
}

Tensor allocate_rows(ChannelRows& rows, Device device) {
  const Tensor buffer = tenon::detail::make_empty({{rows.bytes()}, DType::UInt8, device});
  rows.data = buffer.raw_data();
  return buffer;
}

void pack_channel_rows(const Tensor& x, OperandKind operand, const ChannelRows& rows, bool beside) {
  if (x.numel() == 0) return;
  const tenon::cuda::DeviceGuard guard(x.device());
  switch (operand) {
    case OperandKind::Tf32:
      launch_pack<Tf32, 1>(x, rows, beside);
      break;
    case OperandKind::BFloat16:
      pack_pairs<__nv_bfloat16>(x, rows, beside);
      break;
    case OperandKind::Float16:
      pack_pairs<__half>(x, rows, beside);
      break;
  }
}

}  // namespace tenon::ops::cuda
