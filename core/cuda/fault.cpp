#include "tenon/core/cuda/fault.h"

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <mutex>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/error.h"

namespace tenon::cuda {
namespace {

constexpr int kMaxDevices = 16;

/// The slots by device; null until a kernel of that device needed one. Never freed: kernels may
/// write there until the program ends.
std::atomic<IndexFault*>& slot_of(Device device) {
  static std::array<std::atomic<IndexFault*>, kMaxDevices> slots{};
  TENON_CHECK(device.is_cuda() && device.index() < kMaxDevices, "cuda: no device ", device);
  return slots[static_cast<std::size_t>(device.index())];
}

}  // namespace

IndexFault* fault_slot(Device device) {
  std::atomic<IndexFault*>& slot = slot_of(device);
  if (IndexFault* known = slot.load(std::memory_order_acquire)) return known;
  static std::mutex making;
  const std::lock_guard lock(making);
  if (IndexFault* known = slot.load(std::memory_order_acquire)) return known;
  const DeviceGuard guard(device);
  void* memory = nullptr;
  TENON_CUDA_CHECK(
      cudaHostAlloc(&memory, sizeof(IndexFault), cudaHostAllocPortable | cudaHostAllocMapped));
  auto* made = static_cast<IndexFault*>(memory);
  *made = {};
  slot.store(made, std::memory_order_release);
  return made;
}

void throw_pending_fault(Device device) {
  IndexFault* slot = slot_of(device).load(std::memory_order_acquire);
  if (slot == nullptr || std::atomic_ref(slot->complete).load(std::memory_order_acquire) == 0) {
    return;
  }
  const IndexFault fault = *slot;
  *slot = {};
  tenon::detail::fail(
      tenon::detail::concat(fault.what, " ", fault.index, " is outside [0, ", fault.size, ")"));
}

}  // namespace tenon::cuda
