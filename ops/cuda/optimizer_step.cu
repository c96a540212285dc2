#include <algorithm>
#include <array>
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

// An `Update` changes an element of each of its `kOperands` operands; those whose bit is set in its
// `kWritten` are written back. Its `Own` is what it needs to know besides of one parameter.

/// Updates `kCount` neighbours of each operand, the first of which lies `offsets[k]` elements
/// behind `base[k]`.
template <class T, int kCount, class Update, int kOperands>
__device__ void update_at(std::byte* const (&base)[kOperands],
                          const std::uint32_t (&offsets)[kOperands],
                          const std::uint32_t (&strides)[kOperands], const Update& update,
                          const typename Update::Own& own) {
  using C = compute_type<T>;
  Pack<T, kCount> operands[kOperands];
#pragma unroll
  for (int k = 0; k < kOperands; ++k) {
    operands[k] = tenon::cuda::load_pack<T, kCount>(base[k], offsets[k], strides[k]);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    C values[kOperands];
#pragma unroll
    for (int k = 0; k < kOperands; ++k) values[k] = convert<C>(operands[k].values[i]);
    update(values, own);
#pragma unroll
    for (int k = 0; k < kOperands; ++k) operands[k].values[i] = convert<T>(values[k]);
  }
#pragma unroll
  for (int k = 0; k < kOperands; ++k) {
    if ((Update::kWritten >> k & 1) == 0) continue;
    T* target = reinterpret_cast<T*>(base[k]) + offsets[k];
    *reinterpret_cast<Pack<T, kCount>*>(target) = operands[k];
  }
}

// ---- one parameter, however it lies -------------------------------------------------------------

template <class T, int kCount, class Update>
__global__ void __launch_bounds__(kElementwiseThreads)
    update_kernel(PreviousKernel previous,
                  const __grid_constant__ DeviceNest<Update::kOperands> nest, std::uint32_t packs,
                  const Update update, const typename Update::Own own) {
  previous.wait();
  constexpr int kOperands = Update::kOperands;
  const std::uint32_t step = gridDim.x * kElementwiseThreads;
  std::uint32_t strides[kOperands];
#pragma unroll
  for (int k = 0; k < kOperands; ++k) strides[k] = nest.strides[k][nest.dims - 1];
  for (std::uint32_t p = blockIdx.x * kElementwiseThreads + threadIdx.x; p < packs; p += step) {
    std::uint32_t offsets[kOperands];
    nest.offsets_at(p * kCount, offsets);
    update_at<T, kCount>(nest.base, offsets, strides, update, own);
  }
}

template <class T, int kCount, class Update>
void launch_update(const LoopNest<Update::kOperands>& nest, const Update& update,
                   const typename Update::Own& own, Device device) {
  const std::int64_t packs = nest.shape.numel() / kCount;
  tenon::cuda::launch<update_kernel<T, kCount, Update>>(
      {tenon::cuda::elementwise_blocks(packs, device), kElementwiseThreads}, device,
      DeviceNest<Update::kOperands>(nest), static_cast<std::uint32_t>(packs), update, own);
}

template <class T, class Update>
void update_one(const LoopNest<Update::kOperands>& nest, const Update& update,
                const typename Update::Own& own, Device device) {
  constexpr int kCount = static_cast<int>(16 / sizeof(T));
  tenon::cuda::for_each_piece(nest, [&](const LoopNest<Update::kOperands>& piece) {
    if (tenon::cuda::packs_fit(piece, kCount)) {
      launch_update<T, kCount>(piece, update, own, device);
    } else {
      launch_update<T, 1>(piece, update, own, device);
    }
  });
}

// ---- many dense parameters ----------------------------------------------------------------------

/// A parameter whose operands all lie alike, without gaps.
template <class Update>
struct DenseOperands {
  std::byte* base[Update::kOperands];
  typename Update::Own own;
  std::uint32_t elements;
  std::uint32_t blocks_end;  // its blocks are those from the end of the entry before up to here
};

/// What a launch changes, as a kernel argument.
template <class Update>
struct DenseTable {
  // All arguments of a kernel; newer toolkits and devices allow more.
  static constexpr std::size_t kArgumentBytes = 4096;
  // Of the other arguments and members, with what alignment may add.
  static constexpr std::size_t kOtherBytes = sizeof(Update) + 64;
  static constexpr int kMost =
      static_cast<int>((kArgumentBytes - kOtherBytes) / sizeof(DenseOperands<Update>));

  std::uint32_t chunk;  // elements that a block works on; packs of 16 bytes do not straddle them
  int count = 0;
  DenseOperands<Update> entries[kMost];

  /// The entry that block `block` works on.
  __device__ int find(std::uint32_t block) const {
    int low = 0;
    int high = count - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (block < entries[middle].blocks_end) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }
};

/// `update_at` where element `i` of every operand is the `i`th behind its base.
template <class T, int kCount, class Update, int kOperands>
__device__ void update_neighbours(std::byte* const (&base)[kOperands], std::uint32_t i,
                                  const Update& update, const typename Update::Own& own) {
  std::uint32_t offsets[kOperands];
  std::uint32_t strides[kOperands];
#pragma unroll
  for (int k = 0; k < kOperands; ++k) {
    offsets[k] = i;
    strides[k] = 1;
  }
  update_at<T, kCount>(base, offsets, strides, update, own);
}

/// Each block changes one chunk of one entry.
template <class T, class Update>
__global__ void __launch_bounds__(kElementwiseThreads)
    dense_update_kernel(PreviousKernel previous, const __grid_constant__ DenseTable<Update> table,
                        const Update update) {
  previous.wait();
  constexpr int kOperands = Update::kOperands;
  constexpr std::uint32_t kCount = 16 / sizeof(T);
  const int at = table.find(blockIdx.x);
  const std::uint32_t first_block = at == 0 ? 0 : table.entries[at - 1].blocks_end;
  const std::uint32_t begin = (blockIdx.x - first_block) * table.chunk;
  const std::uint32_t end = ::min(begin + table.chunk, table.entries[at].elements);
  const typename Update::Own own = table.entries[at].own;
  std::byte* base[kOperands];
  std::uintptr_t places = 0;
#pragma unroll
  for (int k = 0; k < kOperands; ++k) {
    base[k] = table.entries[at].base[k];
    places |= reinterpret_cast<std::uintptr_t>(base[k]);
  }
  // Packs as far as they go, then single elements.
  const bool aligned = places % 16 == 0;
  const std::uint32_t packed_end = aligned ? end - (end - begin) % kCount : begin;
  for (std::uint32_t i = begin + threadIdx.x * kCount; i < packed_end;
       i += kElementwiseThreads * kCount) {
    update_neighbours<T, kCount>(base, i, update, own);
  }
  for (std::uint32_t i = packed_end + threadIdx.x; i < end; i += kElementwiseThreads) {
    update_neighbours<T, 1>(base, i, update, own);
  }
}

/// Collects dense parameters and changes as many in one launch as fit its arguments.
template <class T, class Update>
class DenseUpdates {
 public:
  using Nest = LoopNest<Update::kOperands>;

  DenseUpdates(const Update& update, Device device) : update_(update), device_(device) {}

  static bool takes(const Nest& nest) {
    const auto one_after_another = [](const Strides& strides) { return strides[0] == 1; };
    return nest.shape.size() == 1 && tenon::cuda::fits_32_bits(nest) &&
           (nest.shape[0] == 1 ||
            std::all_of(nest.strides.begin(), nest.strides.end(), one_after_another));
  }

  /// `nest` is one that it takes.
  void add(const Nest& nest, const typename Update::Own& own) {
    if (table_.count == DenseTable<Update>::kMost || meets(nest)) launch();
    DenseOperands<Update>& entry = table_.entries[table_.count++];
    std::copy(nest.base.begin(), nest.base.end(), entry.base);
    entry.own = own;
    entry.elements = static_cast<std::uint32_t>(nest.shape[0]);
  }

  /// Changes what was added since the last time.
  void launch() {
    static_assert(sizeof(PreviousKernel) + sizeof(table_) + sizeof(Update) + 2 * alignof(double) <=
                  DenseTable<Update>::kArgumentBytes);
    if (table_.count == 0) return;
    constexpr std::int64_t kPass = kElementwiseThreads * 16 / sizeof(T);  // elements
    std::int64_t passes = 0;
    for (int i = 0; i < table_.count; ++i) passes += quotient_up(table_.entries[i].elements, kPass);
    const auto blocks_at_most =
        tenon::cuda::elementwise_blocks(passes * kElementwiseThreads, device_);
    table_.chunk = static_cast<std::uint32_t>(quotient_up(passes, blocks_at_most) * kPass);
    std::uint32_t blocks = 0;
    for (int i = 0; i < table_.count; ++i) {
      DenseOperands<Update>& entry = table_.entries[i];
      blocks += static_cast<std::uint32_t>(quotient_up(entry.elements, table_.chunk));
      entry.blocks_end = blocks;
    }
    tenon::cuda::launch<dense_update_kernel<T, Update>>({blocks, kElementwiseThreads}, device_,
                                                        table_, update_);
    table_.count = 0;
  }

 private:
  static std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

  /// Whether its parameter shares memory with one that waits: views of one tensor may, and are
  /// changed one after the other.
  bool meets(const Nest& nest) const {
    const std::byte* begin = nest.base[0];
    const std::byte* end = begin + nest.shape[0] * static_cast<std::int64_t>(sizeof(T));
    return std::any_of(
        table_.entries, table_.entries + table_.count, [&](const DenseOperands<Update>& entry) {
          return begin < entry.base[0] + entry.elements * sizeof(T) && entry.base[0] < end;
        });
  }

  Update update_;
  Device device_;
  DenseTable<Update> table_;
};

/// Runs `update` over all `operands`, whose elements are of type `T`. `tensors_of` gives pointers
/// to the tensors of one of them, `own_of` what `update` needs to know of it besides.
template <class T, class Operands, class Update, class TensorsOf, class OwnOf>
void update_all(std::span<const Operands> operands, const Update& update,
                const TensorsOf& tensors_of, const OwnOf& own_of) {
  const Device device = operands[0].parameter.device();
  const tenon::cuda::DeviceGuard guard(device);
  DenseUpdates<T, Update> dense(update, device);
  for (const Operands& one : operands) {
    if (one.parameter.numel() == 0) continue;
    const LoopNest<Update::kOperands> nest(one.parameter.shape(), tensors_of(one));
    if (dense.takes(nest)) {
      dense.add(nest, own_of(one));
    } else {
      update_one<T>(nest, update, own_of(one), device);
    }
  }
  dense.launch();
}

// ---- the arithmetic -----------------------------------------------------------------------------

/// Operands: parameter, gradient.
template <class C>
struct Sgd {
  static constexpr int kOperands = 2;
  static constexpr unsigned kWritten = 0b01;
  struct Own {};
  C rate;
  C decay;
  __device__ void operator()(C (&values)[2], const Own&) const {
    auto& [parameter, grad] = values;
    parameter -= rate * (grad + decay * parameter);
  }
};

/// Operands: parameter, gradient, momentum buffer.
template <class C>
struct SgdMomentum {
  static constexpr int kOperands = 3;
  static constexpr unsigned kWritten = 0b101;
  struct Own {
    bool first;
  };
  C rate;
  C decay;
  C momentum;
  C fresh;
  C sign;
  bool nesterov;
  __device__ void operator()(C (&values)[3], const Own& own) const {
    auto& [parameter, grad, buffer] = values;
    const C g = sign * grad + decay * parameter;
    buffer = own.first ? g : momentum * buffer + fresh * g;
    parameter -= rate * (nesterov ? g + momentum * buffer : buffer);
  }
};

/// Operands: parameter, gradient, first and second moment.
template <class C>
struct Adam {
  static constexpr int kOperands = 4;
  static constexpr unsigned kWritten = 0b1101;
  /// What depends on how many steps the parameter made.
  struct Own {
    C size;
    C root;
  };
  C epsilon;
  C mean_share;
  C beta2;
  C square_share;
  C sign;
  C added;
  C kept;
  __device__ void operator()(C (&values)[4], const Own& own) const {
    auto& [parameter, grad, mean, square] = values;
    const C g = sign * grad + added * parameter;
    mean += (g - mean) * mean_share;
    square = square * beta2 + square_share * (g * g);
    parameter = parameter * kept - own.size * mean / (::sqrt(square) / own.root + epsilon);
  }
};

}  // namespace

void sgd_step(std::span<const SgdOperands> operands, const SgdStep& step) {
  tenon::cuda::visit_device_floating(operands[0].parameter.dtype(), "sgd_step", [&]<class T>() {
    using C = compute_type<T>;
    if (step.momentum == 0) {
      const double sign = step.maximize ? -1 : 1;
      update_all<T>(
          operands,
          Sgd<C>{.rate = static_cast<C>(sign * step.learning_rate),
                 .decay = static_cast<C>(sign * step.weight_decay)},
          [](const SgdOperands& one) {
            return std::array{&one.parameter, &one.grad};
          },
          [](const SgdOperands&) { return typename Sgd<C>::Own{}; });
    } else {
      update_all<T>(
          operands,
          SgdMomentum<C>{.rate = static_cast<C>(step.learning_rate),
                         .decay = static_cast<C>(step.weight_decay),
                         .momentum = static_cast<C>(step.momentum),
                         .fresh = static_cast<C>(1 - step.dampening),
                         .sign = step.maximize ? C(-1) : C(1),
                         .nesterov = step.nesterov},
          [](const SgdOperands& one) {
            return std::array{&one.parameter, &one.grad, &one.momentum_buffer};
          },
          [](const SgdOperands& one) { return typename SgdMomentum<C>::Own{one.first}; });
    }
  });
}

void adam_step(std::span<const AdamOperands> operands, const AdamStep& step) {
  tenon::cuda::visit_device_floating(operands[0].parameter.dtype(), "adam_step", [&]<class T>() {
    using C = compute_type<T>;
    update_all<T>(
        operands,
        Adam<C>{.epsilon = static_cast<C>(step.epsilon),
                .mean_share = static_cast<C>(1 - step.beta1),
                .beta2 = static_cast<C>(step.beta2),
                .square_share = static_cast<C>(1 - step.beta2),
                .sign = step.maximize ? C(-1) : C(1),
                .added = static_cast<C>(step.decoupled ? 0 : step.weight_decay),
                .kept = static_cast<C>(step.decoupled ? 1 - step.learning_rate * step.weight_decay
                                                      : 1)},
        [](const AdamOperands& one) {
          return std::array{&one.parameter, &one.grad, &one.m, &one.v};
        },
        [&step](const AdamOperands& one) {
          const double count = static_cast<double>(one.count);
          return typename Adam<C>::Own{
              .size = static_cast<C>(step.learning_rate / (1 - std::pow(step.beta1, count))),
              .root = static_cast<C>(std::sqrt(1 - std::pow(step.beta2, count)))};
        });
  });
}

}  // namespace tenon::ops::cuda
