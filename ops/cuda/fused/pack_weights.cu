#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/fused/pack_weights.h"
#include "tenon/ops/cuda/fused/tensor_core.cuh"

namespace tenon::ops::cuda {
namespace {

constexpr int kThreads = 256;

/// Which numbers a packed row holds; in and out as the tiling's shape has them.
struct PackedRow {
  int group;
  int first_channel;  // of the group's input channels
  int out_channel;    // of the group's output channels
  int kernel;
  int half;

  __device__ PackedRow(std::int64_t row, const Tiling& t, const KernelConfig& config,
                       int row_channels) {
    const std::int64_t tap_rows = static_cast<std::int64_t>(t.stages) * config.tap_rows();
    const std::int64_t unit = row / (t.first_tap(t.sets) * tap_rows);
    row %= t.first_tap(t.sets) * tap_rows;
    int set = 0;
    while (row >= t.first_tap(set + 1) * tap_rows) ++set;
    row -= t.first_tap(set) * tap_rows;
    out_channel = static_cast<int>(unit % t.channel_tiles) * config.channels +
                  static_cast<int>(row % config.channels);
    group = static_cast<int>(unit / t.channel_tiles);
    row /= config.channels;
    const int chunk = static_cast<int>(row % config.chunks);
    row /= config.chunks;
    half = static_cast<int>(row % config.weight_halves());
    row /= config.weight_halves();
    kernel = t.taps.kernel[t.first_tap(set) + row % t.taps_of_set(set)];
    const int stage = static_cast<int>(row / t.taps_of_set(set));
    first_channel = (stage * config.chunks + chunk) * row_channels;
  }
};

__device__ std::uint32_t packed_single(float value, int half) {
  const std::uint32_t head = round_to_tf32(value);
  // The tail of an infinity would be no number.
  if (half == 0 || isinf(value)) return half == 0 ? head : 0;
  return round_to_tf32(value - __uint_as_float(head));
}

template <class Operand>
__global__ void pack_kernel(const typename OperandTraits<Operand>::Element* weight, uint4* packed,
                            const __grid_constant__ Tiling t, const KernelConfig config,
                            std::int64_t rows) {
  constexpr int kRow = OperandTraits<Operand>::kRow;
  const std::int64_t taps = t.shape.rows.kernel * t.shape.columns.kernel;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(kThreads) + threadIdx.x; i < rows;
       i += step) {
    const PackedRow row(i, t, config, kRow);
    const auto value = [&](int c) {
      const std::int64_t channel = row.first_channel + c;
      if (channel >= t.shape.in_channels || row.out_channel >= t.shape.out_channels) return 0.0f;
      // A data gradient sums over the channels of y: what comes in there goes out here.
      const bool adjoint = config.work == Work::DataGradient;
      const int across = adjoint ? t.shape.in_channels : t.shape.out_channels;
      const std::int64_t first = adjoint ? row.group * t.shape.out_channels + row.out_channel
                                         : row.group * t.shape.in_channels + channel;
      const std::int64_t second = adjoint ? channel : row.out_channel;
      return static_cast<float>(weight[(first * across + second) * taps + row.kernel]);
    };
    std::uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (kRow == 4) {
        words[w] = packed_single(value(w), row.half);
      } else {
        words[w] = round_pair<Operand>(value(2 * w), value(2 * w + 1));
      }
    }
    packed[i] = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

template <class Operand>
void pack_typed(const Tensor& weight, const Tensor& packed, const KernelConfig& config,
                const Tiling& tiling) {
  using Element = typename OperandTraits<Operand>::Element;
  const std::int64_t rows = packed.numel() / 16;
  const auto blocks = static_cast<unsigned>(
      std::min<std::int64_t>((rows + kThreads - 1) / kThreads,
                             8 * tenon::cuda::properties(weight.device()).multiprocessors));
  tenon::cuda::launch<pack_kernel<Operand>>(
      {blocks, kThreads}, weight.device(), static_cast<const Element*>(weight.raw_data()),
      static_cast<uint4*>(packed.raw_data()), tiling, config, rows);
}

}  // namespace

Tensor pack_weights(const Tensor& weight, OperandKind operand, const KernelConfig& config,
                    const Tiling& tiling) {
  const tenon::cuda::DeviceGuard guard(weight.device());
  const std::int64_t rows = static_cast<std::int64_t>(tiling.shape.groups) * tiling.channel_tiles *
                            tiling.first_tap(tiling.sets) * tiling.stages * config.tap_rows();
  const Tensor packed = tenon::detail::make_empty({{16 * rows}, DType::UInt8, weight.device()});
  switch (operand) {
    case OperandKind::Tf32:
      pack_typed<Tf32>(weight, packed, config, tiling);
      break;
    case OperandKind::BFloat16:
      pack_typed<__nv_bfloat16>(weight, packed, config, tiling);
      break;
    case OperandKind::Float16:
      pack_typed<__half>(weight, packed, config, tiling);
      break;
  }
  return packed;
}

}  // namespace tenon::ops::cuda
