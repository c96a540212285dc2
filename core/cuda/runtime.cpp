#include "tenon/core/cuda/runtime.h"

#include <array>
#include <atomic>
#include <mutex>

#include "tenon/core/error.h"
#include "tenon/core/memory_counters.h"
#include "tenon/core/stream.h"

namespace tenon::cuda {
namespace {

constexpr int kMaxDevices = 16;

/// Per device: its properties, and the counters of its memory.
struct DeviceState {
  std::once_flag ready;
  DeviceProperties properties{};
  cudaMemPool_t pool = nullptr;
  detail::MemoryCounters counters;
};

DeviceState& state(Device device) {
  static std::array<DeviceState, kMaxDevices> states;
  TENON_CHECK(device.is_cuda() && device.index() < kMaxDevices, "cuda: no device ", device);
  DeviceState& s = states[static_cast<std::size_t>(device.index())];
  std::call_once(s.ready, [&] {
    int value = 0;
    const auto attribute = [&](cudaDeviceAttr which) {
      TENON_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device.index()));
      return value;
    };
    s.properties.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
    s.properties.compute_capability = attribute(cudaDevAttrComputeCapabilityMajor) * 10;
    s.properties.compute_capability += attribute(cudaDevAttrComputeCapabilityMinor);
    s.properties.shared_memory_a_block =
        static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
    s.properties.l2_bytes = static_cast<std::size_t>(attribute(cudaDevAttrL2CacheSize));
    TENON_CUDA_CHECK(cudaDeviceGetDefaultMemPool(&s.pool, device.index()));
    // Keep freed memory: giving it back to the driver at every synchronisation costs a cudaMalloc
    // in the next step.
    std::uint64_t threshold = UINT64_MAX;
    TENON_CUDA_CHECK(cudaMemPoolSetAttribute(s.pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  });
  return s;
}

}  // namespace

void check(cudaError_t status, std::string_view call) {
  if (status == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();  // a sticky error would otherwise be blamed on the next call
  tenon::detail::fail(tenon::detail::concat("cuda: ", call, " failed: ", cudaGetErrorName(status),
                                            ", ", cudaGetErrorString(status)));
}

DeviceGuard::DeviceGuard(Device device) {
  TENON_CUDA_CHECK(cudaGetDevice(&previous_));
  if (previous_ != device.index()) TENON_CUDA_CHECK(cudaSetDevice(device.index()));
}

DeviceGuard::~DeviceGuard() { cudaSetDevice(previous_); }

cudaStream_t current_stream(Device device) {
  return static_cast<cudaStream_t>(Stream::current(device).handle());
}

const DeviceProperties& properties(Device device) { return state(device).properties; }

void* allocate(std::size_t bytes, Device device) {
  DeviceState& s = state(device);
  const DeviceGuard guard(device);
  void* data = nullptr;
  const cudaStream_t stream = current_stream(device);
  const std::size_t request = bytes > 0 ? bytes : 1;
  cudaError_t status = cudaMallocAsync(&data, request, stream);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    // Of every stream: what others have freed comes back when their work is done.
    TENON_CUDA_CHECK(cudaDeviceSynchronize());
    TENON_CUDA_CHECK(cudaMemPoolTrimTo(s.pool, 0));
    status = cudaMallocAsync(&data, request, stream);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    TENON_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
    tenon::detail::fail(tenon::detail::concat(
        "allocate: no memory for ", bytes, " bytes on ", device, ": ", s.counters.stats().in_use,
        " bytes in use by Tenon, ", free_bytes, " of ", total_bytes, " free"));
  }
  check(status, "cudaMallocAsync");
  s.counters.add(static_cast<std::int64_t>(bytes));
  return data;
}

namespace {

cudaStream_t stream_of(const Stream& stream) { return static_cast<cudaStream_t>(stream.handle()); }

/// Makes later work of `stream` wait for what `other` has been sent so far.
void wait_for(cudaStream_t stream, cudaStream_t other) noexcept {
  cudaEvent_t event = nullptr;
  if (stream == other || cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) {
    return;
  }
  cudaEventRecord(event, other);
  cudaStreamWaitEvent(stream, event);
  cudaEventDestroy(event);
}

}  // namespace

void deallocate(void* data, std::size_t bytes, const Stream& home,
                std::span<const Stream> users) noexcept {
  // Statuses are not checked: this runs in destructors, at the program's end perhaps after the
  // runtime itself was torn down.
  const Device device = home.device();
  int previous = 0;
  cudaGetDevice(&previous);
  if (previous != device.index()) cudaSetDevice(device.index());
  const cudaStream_t stream = stream_of(home);
  wait_for(stream, current_stream(device));
  for (const Stream& user : users) wait_for(stream, stream_of(user));
  cudaFreeAsync(data, stream);
  if (previous != device.index()) cudaSetDevice(previous);
  state(device).counters.remove(static_cast<std::int64_t>(bytes));
}

MemoryStats memory_stats(Device device) { return state(device).counters.stats(); }

void reset_peak_memory(Device device) { state(device).counters.reset_peak(); }

}  // namespace tenon::cuda
