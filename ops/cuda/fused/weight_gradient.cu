#include <array>

#include "tenon/ops/cuda/fused/weight_gradient.cuh"
#include "tenon/ops/cuda/fused/weight_gradient.h"

namespace tenon::ops::cuda {
namespace {

template <int kMTiles, int kNTiles, int kConsumers, int kProducers, bool kSplit = false>
using Config = StaticWeightGradientConfig<kMTiles, kNTiles, kConsumers, kProducers, kSplit>;

// ---- the sum over splits ---------------------------------------------------------------------

constexpr int kLanes = 32;  // output channels of a block
constexpr int kWarps = 8;

/// Adds the splits up in a fixed order. A block has 32 co of one ci and a range of the taps; with
/// kWarps `parts` each warp adds every kWarps-th split of one tap, with one part all of them, of
/// every kWarps-th tap. Blocks: ci of all groups, tiles of co, ranges of taps.
__global__ void __launch_bounds__(kLanes* kWarps)
    sum_splits_kernel(const tenon::cuda::PreviousKernel previous, const float* workspace,
                      float* gradient, const __grid_constant__ WeightGradientTiling t, int parts,
                      bool add) {
  __shared__ float partial[kWarps][kLanes];
  __shared__ float results[kLanes * kMostTaps];
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int warp = static_cast<int>(threadIdx.x) / kLanes;
  const int group = static_cast<int>(blockIdx.x) / t.shape.in_channels;
  const int ci = static_cast<int>(blockIdx.x) % t.shape.in_channels;
  const int co = static_cast<int>(blockIdx.y) * kLanes;
  const int unit = (group * t.in_tiles + ci / t.in_channels) * t.out_tiles + co / t.out_channels;
  const int first_tap = static_cast<int>(blockIdx.z * t.tap_count / gridDim.z);
  const int taps = static_cast<int>((blockIdx.z + 1) * t.tap_count / gridDim.z) - first_tap;
  const int at_once = kWarps / parts;
  previous.wait();
  for (int begin = 0; begin < taps; begin += at_once) {
    const int tap = begin + warp / parts;
    float sum = 0.0f;
    if (tap < taps) {
      const float* source =
          workspace +
          (static_cast<std::int64_t>(unit) * t.tap_count + first_tap + tap) * t.tap_floats() +
          ci % t.in_channels * t.out_channels + co % t.out_channels + lane;
#pragma unroll 8
      for (int split = warp % parts; split < t.splits; split += parts) {
        sum += source[split * t.split_floats()];
      }
    }
    if (parts > 1) {
      partial[warp][lane] = sum;
      __syncthreads();
      for (int part = 1; part < parts; ++part) sum += partial[(warp + part) % kWarps][lane];
      __syncthreads();
    }
    if (tap < taps && warp % parts == 0) results[lane * taps + tap] = sum;
  }
  __syncthreads();
  const int channels = min(kLanes, t.shape.out_channels - co);
  for (int i = static_cast<int>(threadIdx.x); i < channels * taps; i += kLanes * kWarps) {
    float* target = gradient +
                    (static_cast<std::int64_t>(blockIdx.x) * t.shape.out_channels + co + i / taps) *
                        t.tap_count +
                    t.taps[first_tap + i % taps].kernel;
    *target = add ? *target + results[i] : results[i];
  }
}

void sum_splits(const WeightGradientTiling& t, const float* workspace, float* gradient, bool add,
                Device device) {
  // Many splits come with few blocks: then all warps of a block share one tap.
  const int parts = t.splits >= kWarps ? kWarps : 1;
  const dim3 blocks(static_cast<unsigned>(t.shape.groups * t.shape.in_channels),
                    static_cast<unsigned>((t.shape.out_channels + kLanes - 1) / kLanes),
                    static_cast<unsigned>(parts == 1 ? 1 : t.tap_count));
  tenon::cuda::launch<sum_splits_kernel>({blocks, kLanes * kWarps}, device, workspace, gradient, t,
                                         parts, add);
}

}  // namespace

std::span<const WeightGradientRow> weight_gradient_rows() {
  static constexpr std::array kRows{
      weight_gradient_row<Tf32, Config<4, 4, 18, 2>>(OperandKind::Tf32),
      weight_gradient_row<Tf32, Config<4, 4, 16, 4>>(OperandKind::Tf32),
      weight_gradient_row<Tf32, Config<4, 8, 9, 3>>(OperandKind::Tf32),
      weight_gradient_row<Tf32, Config<4, 4, 9, 3, true>>(OperandKind::Tf32),
      weight_gradient_row<__nv_bfloat16, Config<4, 4, 18, 2>>(OperandKind::BFloat16),
      weight_gradient_row<__nv_bfloat16, Config<4, 4, 16, 4>>(OperandKind::BFloat16),
      weight_gradient_row<__nv_bfloat16, Config<4, 8, 9, 3>>(OperandKind::BFloat16),
      weight_gradient_row<__half, Config<4, 4, 18, 2>>(OperandKind::Float16),
  };
  return kRows;
}

void run_weight_gradient(const WeightGradientPlan& plan, const ChannelRows& x,
                         const ChannelRows& dy, const Tensor& workspace, const Tensor& gradient,
                         bool add) {
  const Device device = gradient.device();
  const tenon::cuda::DeviceGuard guard(device);
  auto* sums = static_cast<float*>(workspace.raw_data());
  const WeightGradientTiling& t = plan.tiling;
  plan.row->launch({.x = OperandSource(x), .dy = OperandSource(dy), .workspace = sums, .tiling = t},
                   plan.shared_bytes(), device);
  sum_splits(t, sums, static_cast<float*>(gradient.raw_data()), add, device);
}

}  // namespace tenon::ops::cuda
