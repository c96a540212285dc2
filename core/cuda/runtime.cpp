#include "tenon/core/cuda/runtime.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <mutex>

#include "tenon/core/cuda/capture.h"
#include "tenon/core/cuda/small_blocks.h"
#include "tenon/core/error.h"
#include "tenon/core/memory_counters.h"
#include "tenon/core/recording.h"
#include "tenon/core/stream.h"

namespace tenon::cuda {
namespace {

constexpr int kMaxDevices = 16;

/// Per device: its properties, and the counters of its memory and of the waits for it.
struct DeviceState {
  std::once_flag once;
  std::atomic<bool> ready{false};  // asked several times an op: a load, where `once` is a call
  DeviceProperties properties{};
  cudaMemPool_t pool = nullptr;
  cudaStream_t default_stream = nullptr;
  detail::MemoryCounters counters;
  std::atomic<std::int64_t> waits{0};
  std::mutex blocks_mutex;
  SmallBlocks blocks;  // freed on the default stream, whose later work may use them at once
};

/// False where TENON_CUDA_KEEP_BLOCKS=0: every buffer then has its exact size and ends when it is
/// freed, as compute-sanitizer needs it to find accesses beyond the end.
bool keeps_blocks() {
  static const bool keeps = [] {
    const char* text = std::getenv("TENON_CUDA_KEEP_BLOCKS");
    return text == nullptr || std::string_view(text) != "0";
  }();
  return keeps;
}

DeviceState& state(Device device) {
  static std::array<DeviceState, kMaxDevices> states;
  TENON_CHECK(device.is_cuda() && device.index() < kMaxDevices, "cuda: no device ", device);
  DeviceState& s = states[static_cast<std::size_t>(device.index())];
  if (s.ready.load(std::memory_order_acquire)) [[likely]]
    return s;
  std::call_once(s.once, [&] {
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
    const DeviceGuard guard(device);
    TENON_CUDA_CHECK(cudaStreamCreate(&s.default_stream));
    TENON_CUDA_CHECK(cudaDeviceGetDefaultMemPool(&s.pool, device.index()));
    // Keep freed memory: giving it back to the driver at every synchronisation costs a cudaMalloc
    // in the next step.
    std::uint64_t threshold = UINT64_MAX;
    TENON_CUDA_CHECK(cudaMemPoolSetAttribute(s.pool, cudaMemPoolAttrReleaseThreshold, &threshold));
    s.ready.store(true, std::memory_order_release);
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
  changed_ = previous_ != device.index();
  if (changed_) TENON_CUDA_CHECK(cudaSetDevice(device.index()));
}

DeviceGuard::~DeviceGuard() {
  // Setting the device that is set already is not free, and there are two guards in every op.
  if (changed_) cudaSetDevice(previous_);
}

cudaStream_t default_stream(Device device) { return state(device).default_stream; }

cudaStream_t current_stream(Device device) {
  return static_cast<cudaStream_t>(Stream::current(device).handle());
}

namespace {

/// Called before each wait.
void begin_wait(Device device) {
  tenon::detail::refuse_while_recording(
      device, "waiting for the device (item, to_vector, a copy to the CPU, synchronize)",
      "do it after the step");
  state(device).waits.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

void wait_for(cudaStream_t stream, Device device) {
  begin_wait(device);
  TENON_CUDA_CHECK(cudaStreamSynchronize(stream));
}

void wait_for(cudaEvent_t event, Device device) {
  begin_wait(device);
  TENON_CUDA_CHECK(cudaEventSynchronize(event));
}

void wait_for_all(Device device) {
  begin_wait(device);
  const DeviceGuard guard(device);
  TENON_CUDA_CHECK(cudaDeviceSynchronize());
}

std::int64_t wait_count(Device device) {
  return state(device).waits.load(std::memory_order_relaxed);
}

const DeviceProperties& properties(Device device) { return state(device).properties; }

void order_after(cudaStream_t stream, cudaStream_t other) noexcept {
  cudaEvent_t event = nullptr;
  if (stream == other || cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) {
    return;
  }
  cudaEventRecord(event, other);
  cudaStreamWaitEvent(stream, event);
  cudaEventDestroy(event);
}

namespace {

cudaStream_t stream_of(const Stream& stream) { return static_cast<cudaStream_t>(stream.handle()); }

/// A small block that was kept, or null. Only the default stream's are: it is one for all threads,
/// it is never destroyed, and what it sends next runs after what used the block before.
void* take_block(DeviceState& s, std::size_t bytes, cudaStream_t stream) {
  if (stream != s.default_stream || !SmallBlocks::is_small(bytes) || !keeps_blocks())
    return nullptr;
  const std::lock_guard lock(s.blocks_mutex);
  return s.blocks.take(bytes);
}

bool keep_block(DeviceState& s, void* data, std::size_t bytes, cudaStream_t stream) {
  if (stream != s.default_stream || !SmallBlocks::is_small(bytes) || !keeps_blocks()) return false;
  const std::lock_guard lock(s.blocks_mutex);
  return s.blocks.give(data, bytes);
}

/// Memory of the driver's pool; null where there is none.
void* allocate_from_pool(std::size_t bytes, cudaStream_t stream) {
  void* data = nullptr;
  const cudaError_t status = cudaMallocAsync(&data, bytes, stream);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check(status, "cudaMallocAsync");
  return data;
}

/// Gives everything that is free back to the driver.
void release_unused(DeviceState& s, Device device) {
  {
    const std::lock_guard lock(s.blocks_mutex);
    s.blocks.clear([&](void* block) { TENON_CUDA_CHECK(cudaFreeAsync(block, s.default_stream)); });
  }
  // Of every stream: what others have freed comes back when their work is done.
  wait_for_all(device);
  TENON_CUDA_CHECK(cudaMemPoolTrimTo(s.pool, 0));
}

[[noreturn]] void fail_without_memory(DeviceState& s, std::size_t bytes, Device device) {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  TENON_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  tenon::detail::fail(tenon::detail::concat(
      "allocate: no memory for ", bytes, " bytes on ", device, ": ", s.counters.stats().in_use,
      " bytes in use by Tenon, ", free_bytes, " of ", total_bytes, " free"));
}

}  // namespace

void* allocate(std::size_t bytes, Device device) {
  DeviceState& s = state(device);
  const Stream current = Stream::current(device);
  if (CapturePool* pool = capture_pool(current)) return pool->take(bytes);
  const cudaStream_t stream = stream_of(current);
  void* data = take_block(s, bytes, stream);
  if (data == nullptr) {
    const DeviceGuard guard(device);
    const bool rounds = SmallBlocks::is_small(bytes) && keeps_blocks();
    const std::size_t request = rounds ? SmallBlocks::rounded(bytes) : bytes > 0 ? bytes : 1;
    data = allocate_from_pool(request, stream);
    if (data == nullptr) {
      release_unused(s, device);
      data = allocate_from_pool(request, stream);
    }
    if (data == nullptr) fail_without_memory(s, bytes, device);
  }
  s.counters.add(static_cast<std::int64_t>(bytes));
  return data;
}

void* allocate_while_capturing(std::size_t bytes, Device device) {
  DeviceState& s = state(device);
  const DeviceGuard guard(device);
  void* const data = allocate_from_pool(bytes, s.default_stream);
  if (data == nullptr) fail_without_memory(s, bytes, device);
  s.counters.add(static_cast<std::int64_t>(bytes));
  return data;
}

void free_default(void* data, std::size_t bytes, Device device,
                  std::span<const Stream> users) noexcept {
  DeviceState& s = state(device);
  s.counters.remove(static_cast<std::int64_t>(bytes));
  for (const Stream& user : users) order_after(s.default_stream, stream_of(user));
  cudaFreeAsync(data, s.default_stream);
}

void deallocate(void* data, std::size_t bytes, const Stream& home,
                std::span<const Stream> users) noexcept {
  if (CapturePool* pool = capture_pool(home)) {
    pool->give(data);
    return;
  }
  if (defer_free(data, bytes, home, users)) return;
  const Device device = home.device();
  const cudaStream_t stream = stream_of(home);
  DeviceState& s = state(device);
  s.counters.remove(static_cast<std::int64_t>(bytes));
  const bool ordered = users.empty() && stream == current_stream(device);
  if (ordered && keep_block(s, data, bytes, stream)) return;  // without a call of CUDA
  // Statuses are not checked: this runs in destructors, at the program's end perhaps after the
  // runtime itself was torn down.
  int previous = 0;
  cudaGetDevice(&previous);
  if (previous != device.index()) cudaSetDevice(device.index());
  order_after(stream, current_stream(device));
  for (const Stream& user : users) order_after(stream, stream_of(user));
  if (ordered || !keep_block(s, data, bytes, stream)) cudaFreeAsync(data, stream);
  if (previous != device.index()) cudaSetDevice(previous);
}

MemoryStats memory_stats(Device device) {
  DeviceState& s = state(device);
  MemoryStats stats = s.counters.stats();
  std::uint64_t reserved = 0;
  TENON_CUDA_CHECK(cudaMemPoolGetAttribute(s.pool, cudaMemPoolAttrReservedMemCurrent, &reserved));
  stats.reserved = static_cast<std::int64_t>(reserved);
  return stats;
}

void reset_peak_memory(Device device) { state(device).counters.reset_peak(); }

}  // namespace tenon::cuda
