#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/fused/bias_sums.h"
#include "tenon/ops/cuda/fused/tensor_core.cuh"

namespace tenon::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 32;                   // of a block
constexpr int kStrands = kThreads / kColumns;  // threads that share the rows of a sum

/// Blocks: sums, and tiles of columns. All of a thread's rows are under way at once.
template <class T>
__global__ void __launch_bounds__(kThreads)
    add_rows_kernel(const tenon::cuda::PreviousKernel previous, const float* rows,
                    std::int64_t count, int columns, T* sums, bool beside) {
  __shared__ float partial[kThreads];
  if (!beside) previous.wait();
  let_next_kernel_begin();
  const int lane = static_cast<int>(threadIdx.x) % kColumns;
  const int strand = static_cast<int>(threadIdx.x) / kColumns;
  const int column = static_cast<int>(blockIdx.y) * kColumns + lane;
  const std::int64_t first = std::int64_t{blockIdx.x} * kBiasRowsOfSum;
  float values[kBiasRowsOfSum / kStrands];
#pragma unroll
  for (int i = 0; i < kBiasRowsOfSum / kStrands; ++i) {
    const std::int64_t row = first + i * kStrands + strand;
    values[i] = column < columns && row < count ? rows[row * columns + column] : 0.0f;
  }
  float sum = 0.0f;
#pragma unroll
  for (const float value : values) sum += value;
  partial[threadIdx.x] = sum;
  __syncthreads();
  if (strand == 0 && column < columns) {
    for (int other = 1; other < kStrands; ++other) sum += partial[other * kColumns + lane];
    sums[std::int64_t{blockIdx.x} * columns + column] = tenon::cuda::convert<T>(sum);
  }
  // Whoever waits for this kernel relies on those ahead of it, too.
  if (beside) previous.wait();
}

}  // namespace

void add_bias_rows(const Tensor& rows, const Tensor& sums, std::int64_t first, bool beside) {
  const Device device = rows.device();
  const tenon::cuda::DeviceGuard guard(device);
  const std::int64_t count = rows.shape()[0];
  const int columns = static_cast<int>(rows.shape()[1]);
  const dim3 blocks(static_cast<unsigned>(bias_rows_of_sums(count)),
                    static_cast<unsigned>((columns + kColumns - 1) / kColumns));
  tenon::cuda::visit_device_floating(sums.dtype(), "bias_sums", [&]<class T>() {
    tenon::cuda::launch<add_rows_kernel<T>>(
        {blocks, kThreads}, device, static_cast<const float*>(rows.raw_data()), count, columns,
        static_cast<T*>(sums.raw_data()) + first * columns, beside);
  });
}

void finish_bias_gradient(const Tensor& rows, const Tensor& gradient) {
  Tensor left = rows;
  while (left.shape()[0] > kBiasRowsOfSum) {
    const Tensor sums = tenon::detail::make_empty(
        {{bias_rows_of_sums(left.shape()[0]), rows.shape()[1]}, DType::Float32, rows.device()});
    add_bias_rows(left, sums, 0);
    left = sums;
  }
  add_bias_rows(left, gradient, 0);
}

}  // namespace tenon::ops::cuda
