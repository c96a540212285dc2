#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/fused/epilogue.cuh"
#include "tenon/ops/cuda/fused/exact_sums.h"
#include "tenon/ops/fused/tiling.h"

namespace tenon::ops::cuda {
namespace {

struct Operands {
  const float* x;
  const float* weight;
  const float* bias;  // may be null
  TransposedShape shape;
};

/// y[image, out_channel, row, column] by the definition.
__device__ float exact_sum(const Operands& o, int image, int out_channel, std::int64_t row,
                           std::int64_t column) {
  const TransposedShape& s = o.shape;
  const int group = out_channel / s.out_channels;
  const std::int64_t taps = s.rows.kernel * s.columns.kernel;
  float sum = o.bias == nullptr ? 0.0f : o.bias[out_channel];
  for (int c = group * s.in_channels; c < (group + 1) * s.in_channels; ++c) {
    const float* weight =
        o.weight +
        (static_cast<std::int64_t>(c) * s.out_channels + out_channel % s.out_channels) * taps;
    const float* x = o.x + (static_cast<std::int64_t>(image) * s.groups * s.in_channels + c) *
                               s.rows.input * s.columns.input;
    for (std::int64_t k = 0; k < taps; ++k) {
      const std::int64_t i = row + s.rows.padding - k / s.columns.kernel * s.rows.dilation;
      const std::int64_t j = column + s.columns.padding - k % s.columns.kernel * s.columns.dilation;
      if (i < 0 || j < 0 || i % s.rows.stride != 0 || j % s.columns.stride != 0) continue;
      if (i / s.rows.stride >= s.rows.input || j / s.columns.stride >= s.columns.input) continue;
      sum += x[i / s.rows.stride * s.columns.input + j / s.columns.stride] * weight[k];
    }
  }
  return sum;
}

template <class Chain>
__global__ void replace_kernel(Operands operands, float* z, std::int64_t count, Chain chain,
                               const int* found_nan) {
  if (*found_nan == 0) return;
  const TransposedShape& s = operands.shape;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x; i < count;
       i += step) {
    if (!isnan(z[i])) continue;
    const std::int64_t column = i % s.columns.output;
    const std::int64_t row = i / s.columns.output % s.rows.output;
    const std::int64_t plane = i / s.columns.output / s.rows.output;
    const int channels = s.groups * s.out_channels;
    z[i] = chain(exact_sum(operands, static_cast<int>(plane / channels),
                           static_cast<int>(plane % channels), row, column));
  }
}

const float* pointer(const Tensor& tensor) {
  return tensor.defined() ? static_cast<const float*>(tensor.raw_data()) : nullptr;
}

}  // namespace

void replace_nan_by_exact_sums(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const ConvTranspose2dOptions& options, const Epilogue& epilogue,
                               const Tensor& z, const int* found_nan) {
  constexpr int kThreads = 256;
  const Operands operands{pointer(x), pointer(weight), pointer(bias),
                          TransposedShape::of(x.shape(), weight.shape(), z.shape(), options)};
  using Chain = MishClampScale<float, true>;
  const auto blocks =
      static_cast<unsigned>(2 * tenon::cuda::properties(z.device()).multiprocessors);
  tenon::cuda::launch<replace_kernel<Chain>>({blocks, kThreads}, z.device(), operands,
                                             static_cast<float*>(z.raw_data()), z.numel(),
                                             Chain(epilogue), found_nan);
}

}  // namespace tenon::ops::cuda
