#include <array>
#include <cstdint>
#include <limits>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/error.h"
#include "tenon/ops/cuda/fused/tensor_map.h"
#include "tenon/ops/cuda/fused/weight_gradient.cuh"
#include "tenon/ops/cuda/fused/weight_gradient.h"

namespace tenon::ops::cuda {
namespace {

template <int kMTiles, int kNTiles, int kConsumers, int kProducers, bool kSplit = false>
using Config = StaticWeightGradientConfig<kMTiles, kNTiles, kConsumers, kProducers, kSplit>;

// ---- the sum over splits ---------------------------------------------------------------------

constexpr int kThreads = 256;
constexpr int kChannels = 32;          // output channels of a block
constexpr int kFours = kChannels / 4;  // of neighbouring output channels
constexpr int kMostInputs = 4;         // input channels of a block
constexpr int kTogether = 4;           // sums that a thread forms at once

__device__ inline void add_to(float4& sum, const float4& value) {
  sum.x += value.x;
  sum.y += value.y;
  sum.z += value.z;
  sum.w += value.w;
}

/// How sum_splits_kernel is launched: a block has `inputs` neighbouring ci, kChannels co and a
/// range of the taps, and `parts` threads share the splits of a sum.
struct SplitSums {
  int inputs;
  int parts;
  int tap_ranges;
};

/// Adds the splits up in a fixed order. Blocks: ci of all groups, tiles of co, ranges of taps.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_splits_kernel(const tenon::cuda::PreviousKernel previous, const float* workspace,
                      T* gradient, const __grid_constant__ WeightGradientTiling t,
                      const SplitSums shape) {
  __shared__ float4 partial[kThreads];
  __shared__ float results[kMostInputs * kChannels * kMostTaps];
  const int inputs = t.shape.groups * t.shape.in_channels;
  const int first_input = static_cast<int>(blockIdx.x) * shape.inputs;
  const int co = static_cast<int>(blockIdx.y) * kChannels;
  const int first_tap = static_cast<int>(blockIdx.z) * t.tap_count / shape.tap_ranges;
  const int taps = static_cast<int>(blockIdx.z + 1) * t.tap_count / shape.tap_ranges - first_tap;
  const int items = min(shape.inputs, inputs - first_input) * taps * kFours;
  const int at_once = kThreads / shape.parts;
  const int part = static_cast<int>(threadIdx.x) / at_once;
  const int thread = static_cast<int>(threadIdx.x) % at_once;
  const std::int64_t split_floats = t.split_floats();
  previous.wait();
  for (int begin = 0; begin < items; begin += kTogether * at_once) {
    const float4* sources[kTogether];
    float4 sums[kTogether] = {};
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      // What lies beyond the last reads the last.
      const int item = min(begin + i * at_once + thread, items - 1);
      const int input = first_input + item / kFours / taps;
      const int ci = input % t.shape.in_channels;
      const int unit =
          (input / t.shape.in_channels * t.in_tiles + ci / t.in_channels) * t.out_tiles +
          co / t.out_channels;
      const int tap = first_tap + item / kFours % taps;
      sources[i] = reinterpret_cast<const float4*>(
          workspace + (static_cast<std::int64_t>(unit) * t.tap_count + tap) * t.tap_floats() +
          ci % t.in_channels * t.out_channels + co % t.out_channels + item % kFours * 4);
    }
#pragma unroll 4
    for (int split = part; split < t.splits; split += shape.parts) {
#pragma unroll
      for (int i = 0; i < kTogether; ++i) add_to(sums[i], sources[i][split * split_floats / 4]);
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (begin + i * at_once >= items) break;
      if (shape.parts > 1) {
        partial[threadIdx.x] = sums[i];
        __syncthreads();
        if (part == 0) {
          for (int p = 1; p < shape.parts; ++p) add_to(sums[i], partial[p * at_once + thread]);
        }
        __syncthreads();
      }
      const int item = begin + i * at_once + thread;
      if (part != 0 || item >= items) continue;
      float* result = results + (item / kFours / taps * kChannels + item % kFours * 4) * taps +
                      item / kFours % taps;
      result[0] = sums[i].x;
      result[taps] = sums[i].y;
      result[2 * taps] = sums[i].z;
      result[3 * taps] = sums[i].w;
    }
  }
  __syncthreads();
  const int channels = min(kChannels, t.shape.out_channels - co);
  const int count = items / kFours * channels;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const int tap = i % taps;
    const int channel = i / taps % channels;
    const int input = i / taps / channels;
    const std::int64_t pair =
        static_cast<std::int64_t>(first_input + input) * t.shape.out_channels + co + channel;
    gradient[pair * t.tap_count + t.taps[first_tap + tap].kernel] =
        tenon::cuda::convert<T>(results[(input * kChannels + channel) * taps + tap]);
  }
}

template <class T>
void sum_splits(const WeightGradientTiling& t, const float* workspace, T* gradient, Device device) {
  // Many splits come with few sums.
  SplitSums shape{1, kThreads / kFours, t.tap_count};
  if (t.splits < 8) {
    shape = {kMostInputs, 1, 1};
  } else if (t.splits < 64) {
    shape = {1, 8, (t.tap_count + 3) / 4};
  }
  const int inputs = t.shape.groups * t.shape.in_channels;
  const dim3 blocks(static_cast<unsigned>((inputs + shape.inputs - 1) / shape.inputs),
                    static_cast<unsigned>((t.shape.out_channels + kChannels - 1) / kChannels),
                    static_cast<unsigned>(shape.tap_ranges));
  tenon::cuda::launch<sum_splits_kernel<T>>({blocks, kThreads}, device, workspace, gradient, t,
                                            shape);
}

}  // namespace

const std::vector<WeightGradientRow>& weight_gradient_rows() {
  static constexpr std::array kPortable{
      weight_gradient_row<Tf32, Config<4, 4, 16, 4>>(),
      weight_gradient_row<Tf32, Config<4, 4, 18, 2>>(),
      weight_gradient_row<Tf32, Config<2, 4, 18, 2>>(),
      weight_gradient_row<Tf32, Config<2, 4, 9, 3, true>>(),
      weight_gradient_row<__nv_bfloat16, Config<4, 4, 16, 4>>(),
      weight_gradient_row<__nv_bfloat16, Config<4, 4, 18, 2>>(),
      weight_gradient_row<__nv_bfloat16, Config<2, 4, 18, 2>>(),
      weight_gradient_row<__half, Config<4, 4, 16, 4>>(),
      weight_gradient_row<__half, Config<4, 4, 18, 2>>(),
      weight_gradient_row<__half, Config<2, 4, 18, 2>>(),
  };
  static const std::vector<WeightGradientRow> rows = [] {
    std::vector<WeightGradientRow> all(kPortable.begin(), kPortable.end());
#ifdef TENON_WITH_SM90A
    const auto of_sm90 = weight_gradient_rows_sm90();
    all.insert(all.end(), of_sm90.begin(), of_sm90.end());
#endif
    return all;
  }();
  return rows;
}

namespace {

/// How the operands come to a kernel with warpgroups.
void make_maps(const Tensor& x, const ChannelRows& dy, const WeightGradientTiling& t,
               WeightGradientArguments& arguments) {
  arguments.x_map = lines_map(x, t.tile.columns, t.in_channels, t.window_rows);
  arguments.dy_map = rows_map(dy, {.columns = t.window_columns,
                                   .rows = t.tile.rows,
                                   .phases = t.most_slots,
                                   .images = 1,
                                   .chunks = t.dy_chunks});
}

}  // namespace

void accumulate_weight_gradient(const WeightGradientPlan& plan, const Tensor& x,
                                const ChannelRows& x_rows, const ChannelRows& dy,
                                const Tensor& workspace, bool continues, bool beside,
                                const LeadingTiles& leading) {
  const Device device = workspace.device();
  const tenon::cuda::DeviceGuard guard(device);
  for (const ChannelRows& rows : {x_rows, dy}) {
    TENON_CHECK(rows.chunk_rows() * rows.chunks <= std::numeric_limits<std::int32_t>::max(),
                "weight_gradient: a group of ", rows.chunk_rows() * rows.chunks,
                " rows of 16 bytes is too large");
  }
  WeightGradientArguments arguments{.x = OperandSource(x_rows),
                                    .dy = OperandSource(dy),
                                    .workspace = static_cast<float*>(workspace.raw_data()),
                                    .continues = continues,
                                    .beside = beside,
                                    .leading = leading,
                                    .dy_chunks = dy.chunks,
                                    .x_map = {},
                                    .dy_map = {},
                                    .tiling = plan.tiling};
  arguments.tiling.shape.images = dy.images;
  if (plan.reads_planes()) make_maps(x, dy, plan.tiling, arguments);
  plan.row->launch(arguments, plan.shared_bytes(), device);
}

void finish_weight_gradient(const WeightGradientPlan& plan, const Tensor& workspace,
                            const Tensor& gradient) {
  const tenon::cuda::DeviceGuard guard(gradient.device());
  const auto* sums = static_cast<const float*>(workspace.raw_data());
  tenon::cuda::visit_device_floating(gradient.dtype(), "weight_gradient", [&]<class T>() {
    sum_splits(plan.tiling, sums, static_cast<T*>(gradient.raw_data()), gradient.device());
  });
}

}  // namespace tenon::ops::cuda
