// The CUDA runtime as core uses it: checked calls, the current device and stream, memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tenon/core/device.h"
#include "tenon/core/memory.h"
#include "tenon/core/stream.h"

namespace tenon::cuda {

/// Throws `Error` with `call` and CUDA's name and sentence for `status` unless that is success.
void check(cudaError_t status, std::string_view call);

/// Makes `device` the runtime's current one for the guard's lifetime.
class DeviceGuard {
 public:
  explicit DeviceGuard(Device device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_;
  bool changed_;
};

/// The stream of `device` that threads use unless they choose another; it lives as long as the
/// program.
cudaStream_t default_stream(Device device);
/// This thread's current stream on `device`.
cudaStream_t current_stream(Device device);

/// Makes later work of `stream` wait for what `other` has been sent so far. Does not throw, and
/// does nothing where it cannot: memory is freed at the end of the program too.
void order_after(cudaStream_t stream, cudaStream_t other) noexcept;

// Wherever the host waits for a device it does so through one of these, which count: a step that
// waits is a step in which the device runs dry. All throw `Error` while a `CapturedStep` of the
// device is recorded on this thread.
void wait_for(cudaStream_t stream, Device device);
void wait_for(cudaEvent_t event, Device device);
/// For all work of all streams.
void wait_for_all(Device device);
/// How often one of them was called for `device`.
std::int64_t wait_count(Device device);

/// Facts about a device that launch code needs; read once.
struct DeviceProperties {
  int multiprocessors;
  int compute_capability;             // 90 for 9.0
  std::size_t shared_memory_a_block;  // the most that a kernel can opt in to, bytes
  std::size_t l2_bytes;
};
const DeviceProperties& properties(Device device);

/// `bytes` from the device's stream-ordered pool, on the current stream. When there are none, the
/// pool gives back what it holds unused and the allocation is tried once more; then `Error`. Small
/// blocks of the default stream are kept when they are freed: two calls of the driver would be a
/// good part of a small op's time.
void* allocate(std::size_t bytes, Device device);
/// Returns memory to the pool once the work is done that has been sent to `home`, on which it was
/// allocated, to the current stream and to `users`.
void deallocate(void* data, std::size_t bytes, const Stream& home,
                std::span<const Stream> users) noexcept;
/// `bytes` of the device's pool for the memory of a recording, to be used on the default stream or
/// behind it. Throws `Error` when there are none: waiting for what others free is not possible
/// then.
void* allocate_while_capturing(std::size_t bytes, Device device);
/// Returns them once the work is done that `users` and the default stream have been sent.
void free_default(void* data, std::size_t bytes, Device device,
                  std::span<const Stream> users) noexcept;
MemoryStats memory_stats(Device device);
void reset_peak_memory(Device device);

}  // namespace tenon::cuda

/// Runs a call of the CUDA runtime and throws `tenon::Error` naming it when it fails.
#define TENON_CUDA_CHECK(call) ::tenon::cuda::check((call), #call)
