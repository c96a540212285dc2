#include <cmath>

#include "tenon/core/cuda/elementwise.cuh"
#include "tenon/core/cuda/launch.cuh"
#include "tenon/core/cuda/types.cuh"
#include "tenon/ops/cuda/optimizer_step.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::compute_type;
using tenon::cuda::convert;
using tenon::cuda::DeviceNest;
using tenon::cuda::kElementwiseThreads;
using tenon::cuda::Pack;
using tenon::cuda::PreviousKernel;
using tenon::detail::LoopNest;

/// Changes operands in place: `update` gets an element of each, and those whose bit is set in
/// `Update::kWritten` are written back.
template <class T, int kCount, int kOperands, class Update>
__global__ void __launch_bounds__(kElementwiseThreads)
    update_kernel(PreviousKernel previous, const DeviceNest<kOperands> nest, std::uint32_t packs,
                  const Update update) {
  previous.wait();
  using C = compute_type<T>;
  const std::uint32_t step = gridDim.x * kElementwiseThreads;
  const int inner = nest.dims - 1;
  for (std::uint32_t p = blockIdx.x * kElementwiseThreads + threadIdx.x; p < packs; p += step) {
    std::uint32_t offsets[kOperands];
    nest.offsets_at(p * kCount, offsets);
    Pack<T, kCount> operands[kOperands];
#pragma unroll
    for (int k = 0; k < kOperands; ++k) {
      operands[k] =
          tenon::cuda::load_pack<T, kCount>(nest.base[k], offsets[k], nest.strides[k][inner]);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      C values[kOperands];
#pragma unroll
      for (int k = 0; k < kOperands; ++k) values[k] = convert<C>(operands[k].values[i]);
      update(values);
#pragma unroll
      for (int k = 0; k < kOperands; ++k) operands[k].values[i] = convert<T>(values[k]);
    }
#pragma unroll
    for (int k = 0; k < kOperands; ++k) {
      if ((Update::kWritten >> k & 1) == 0) continue;
      T* target = reinterpret_cast<T*>(nest.base[k]) + offsets[k];
      *reinterpret_cast<Pack<T, kCount>*>(target) = operands[k];
    }
  }
}

template <class T, int kCount, int kOperands, class Update>
void launch_update(const LoopNest<kOperands>& nest, const Update& update, Device device) {
  const std::int64_t packs = nest.shape.numel() / kCount;
  tenon::cuda::launch<update_kernel<T, kCount, kOperands, Update>>(
      {tenon::cuda::elementwise_blocks(packs, device), kElementwiseThreads}, device,
      DeviceNest<kOperands>(nest), static_cast<std::uint32_t>(packs), update);
}

/// Runs `update` over the elements of `operands`, which have one shape and element type `T`.
template <class T, std::size_t kOperands, class Update>
void update_all(const std::array<Tensor, kOperands>& operands, const Update& update) {
  if (operands[0].numel() == 0) return;
  const Device device = operands[0].device();
  const tenon::cuda::DeviceGuard guard(device);
  constexpr int kCount = static_cast<int>(16 / sizeof(T));
  tenon::cuda::for_each_piece(
      LoopNest<kOperands>(operands[0].shape(), tenon::detail::pointers_to(operands)),
      [&](const LoopNest<kOperands>& piece) {
        if (tenon::cuda::packs_fit(piece, kCount)) {
          launch_update<T, kCount, kOperands>(piece, update, device);
        } else {
          launch_update<T, 1, kOperands>(piece, update, device);
        }
      });
}

/// Operands: parameter, gradient.
template <class C>
struct Sgd {
  static constexpr unsigned kWritten = 0b01;
  C rate;
  C decay;
  __device__ void operator()(C (&values)[2]) const {
    auto& [parameter, grad] = values;
    parameter -= rate * (grad + decay * parameter);
  }
};

/// Operands: parameter, gradient, momentum buffer.
template <class C>
struct SgdMomentum {
  static constexpr unsigned kWritten = 0b101;
  C rate;
  C decay;
  C momentum;
  C fresh;
  C sign;
  bool first;
  bool nesterov;
  __device__ void operator()(C (&values)[3]) const {
    auto& [parameter, grad, buffer] = values;
    const C g = sign * grad + decay * parameter;
    buffer = first ? g : momentum * buffer + fresh * g;
    parameter -= rate * (nesterov ? g + momentum * buffer : buffer);
  }
};

/// Operands: parameter, gradient, first and second moment.
template <class C>
struct Adam {
  static constexpr unsigned kWritten = 0b1101;
  C size;
  C root;
  C epsilon;
  C mean_share;
  C beta2;
  C square_share;
  C sign;
  C added;
  C kept;
  __device__ void operator()(C (&values)[4]) const {
    auto& [parameter, grad, mean, square] = values;
    const C g = sign * grad + added * parameter;
    mean += (g - mean) * mean_share;
    square = square * beta2 + square_share * (g * g);
    parameter = parameter * kept - size * mean / (::sqrt(square) / root + epsilon);
  }
};

}  // namespace

void sgd_step(const Tensor& parameter, const Tensor& grad, const Tensor& momentum_buffer,
              const SgdStep& step) {
  tenon::cuda::visit_device_floating(parameter.dtype(), "sgd_step", [&]<class T>() {
    using C = compute_type<T>;
    if (step.momentum == 0) {
      const double sign = step.maximize ? -1 : 1;
      update_all<T>(std::array<Tensor, 2>{parameter, grad},
                    Sgd<C>{.rate = static_cast<C>(sign * step.learning_rate),
                           .decay = static_cast<C>(sign * step.weight_decay)});
    } else {
      update_all<T>(std::array<Tensor, 3>{parameter, grad, momentum_buffer},
                    SgdMomentum<C>{.rate = static_cast<C>(step.learning_rate),
                                   .decay = static_cast<C>(step.weight_decay),
                                   .momentum = static_cast<C>(step.momentum),
                                   .fresh = static_cast<C>(1 - step.dampening),
                                   .sign = step.maximize ? C(-1) : C(1),
                                   .first = step.first,
                                   .nesterov = step.nesterov});
    }
  });
}

void adam_step(const Tensor& parameter, const Tensor& grad, const Tensor& m, const Tensor& v,
               const AdamStep& step) {
  const double count = static_cast<double>(step.count);
  tenon::cuda::visit_device_floating(parameter.dtype(), "adam_step", [&]<class T>() {
    using C = compute_type<T>;
    update_all<T>(
        std::array<Tensor, 4>{parameter, grad, m, v},
        Adam<C>{.size = static_cast<C>(step.learning_rate / (1 - std::pow(step.beta1, count))),
                .root = static_cast<C>(std::sqrt(1 - std::pow(step.beta2, count))),
                .epsilon = static_cast<C>(step.epsilon),
                .mean_share = static_cast<C>(1 - step.beta1),
                .beta2 = static_cast<C>(step.beta2),
                .square_share = static_cast<C>(1 - step.beta2),
                .sign = step.maximize ? C(-1) : C(1),
                .added = static_cast<C>(step.decoupled ? 0 : step.weight_decay),
                .kept = static_cast<C>(step.decoupled ? 1 - step.learning_rate * step.weight_decay
                                                      : 1)});
  });
}

}  // namespace tenon::ops::cuda
