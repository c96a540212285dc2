#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/fused/epilogue.cuh"
#include "tenon/ops/cuda/fused/partial_sums.h"
#include "tenon/ops/fused/divisor.h"

namespace tenon::ops::cuda {
namespace {

constexpr int kThreads = 256;

/// Numbers are those of elements, but for the last two.
struct PartGrid {
  int all;    // of z
  int group;  // of one image's and group's channels
  Divisor by_group;
  Divisor by_plane;
  Divisor by_channels;  // of z
  int parts;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(const tenon::cuda::PreviousKernel previous, const float* sums, const T* bias,
                     T* z, const PartGrid grid, const CoarseMishClampScale chain) {
  previous.wait();
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i >= grid.all) return;
  const float* part = sums + std::int64_t{grid.by_group.quotient(i)} * grid.parts * grid.group +
                      grid.by_group.rest(i);
  float sum = *part;
  for (int p = 1; p < grid.parts; ++p) sum += part[std::int64_t{p} * grid.group];
  if (bias != nullptr) {
    sum += tenon::cuda::convert<float>(bias[grid.by_channels.rest(grid.by_plane.quotient(i))]);
  }
  z[i] = tenon::cuda::convert<T>(chain(sum));
}

}  // namespace

void add_partial_sums(const Tensor& sums, int parts, int groups, const Tensor& bias,
                      const Epilogue& epilogue, const Tensor& z) {
  const Device device = z.device();
  const tenon::cuda::DeviceGuard guard(device);
  const int plane = static_cast<int>(z.shape()[2] * z.shape()[3]);
  const int channels = static_cast<int>(z.shape()[1]);
  const int group = channels / groups * plane;
  const PartGrid grid{static_cast<int>(z.numel()), group, Divisor(group), Divisor(plane),
                      Divisor(channels),           parts};
  const Tensor shifts = bias.defined() ? bias.contiguous() : bias;
  const auto blocks = static_cast<unsigned>((grid.all + kThreads - 1) / kThreads);
  tenon::cuda::visit_device_floating(z.dtype(), "conv_transpose2d_epilogue", [&]<class T>() {
    tenon::cuda::launch<add_parts_kernel<T>>(
        {blocks, kThreads}, device, static_cast<const float*>(sums.raw_data()),
        shifts.defined() ? static_cast<const T*>(shifts.raw_data()) : nullptr,
        static_cast<T*>(z.raw_data()), grid, CoarseMishClampScale(epilogue));
  });
}

}  // namespace tenon::ops::cuda
