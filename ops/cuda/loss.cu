#include <cmath>

#include "tenon/core/cuda/fault.cuh"
#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/runtime.h"
#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/loss.h"
#include "tenon/ops/split.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;
using tenon::cuda::IndexCheck;
using tenon::cuda::PreviousKernel;

constexpr int kThreads = 256;

/// The operands; `weights` may be null.
template <class T>
struct Nll {
  const T* x;
  const std::int64_t* targets;
  const T* weights;
  T* losses;
  T* used;
  std::int64_t samples, classes, inner, ignore_index;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    nll_loss_kernel(PreviousKernel previous, Nll<T> nll, IndexCheck check) {
  previous.wait();
  using C = compute_type<T>;
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= nll.samples) return;
  const std::int64_t target = nll.targets[i];
  C loss(0);
  C weight(0);
  if (target != nll.ignore_index) {
    if (check.passes(target, nll.classes)) {
      weight = nll.weights == nullptr ? C(1) : convert<C>(nll.weights[target]);
      const std::int64_t at = (i / nll.inner * nll.classes + target) * nll.inner + i % nll.inner;
      loss = -weight * convert<C>(nll.x[at]);
    } else {
      loss = static_cast<C>(NAN);
    }
  }
  nll.losses[i] = convert<T>(loss);
  nll.used[i] = convert<T>(weight);
}

}  // namespace

void nll_loss(const Tensor& x, const Tensor& target, const Tensor& weight,
              std::int64_t ignore_index, const Tensor& loss, const Tensor& used) {
  if (target.numel() == 0) return;
  const Device device = x.device();
  const tenon::cuda::DeviceGuard guard(device);
  const Split split(x.shape(), 1);
  const std::int64_t samples = split.outer * split.inner;
  tenon::cuda::visit_device_floating(x.dtype(), "nll_loss", [&]<class T>() {
    const Nll<T> nll{static_cast<const T*>(x.raw_data()),
                     target.data<std::int64_t>(),
                     weight.defined() ? static_cast<const T*>(weight.raw_data()) : nullptr,
                     static_cast<T*>(loss.raw_data()),
                     static_cast<T*>(used.raw_data()),
                     samples,
                     split.length,
                     split.inner,
                     ignore_index};
    tenon::cuda::launch<nll_loss_kernel<T>>(
        {static_cast<unsigned>((samples + kThreads - 1) / kThreads), kThreads}, device, nll,
        IndexCheck{tenon::cuda::fault_slot(device), "nll_loss: target"});
  });
}

}  // namespace tenon::ops::cuda
