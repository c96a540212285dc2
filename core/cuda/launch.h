// How kernels get to the device: the driver's launch, which costs the host less than `<<<>>>` does.
// launch.cuh has the function that kernels are launched with.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "tenon/core/device.h"

namespace tenon::cuda {

/// How many threads a kernel gets, and how much dynamic shared memory a block of them.
struct LaunchShape {
  dim3 blocks;
  unsigned threads;  // a block
  std::size_t shared_bytes = 0;
};

/// A kernel as the driver knows it, on every device. Made once for each kernel, when it is first
/// launched.
class Kernel {
 public:
  /// The kernel whose host function is at `entry`. `waits`: it begins with `PreviousKernel::wait`.
  /// `device`, the current one, is the one that it is first launched on.
  Kernel(const void* entry, bool waits, Device device);

  /// Launches it in the current stream of `device`, which must be the runtime's current device.
  /// `arguments` are the addresses of the values of its parameters. Throws `Error` with the
  /// kernel's name and the shape where it cannot be launched.
  void launch(const LaunchShape& shape, Device device, void** arguments) const;

 private:
  static constexpr int kDevices = 8;  // of which each has its function remembered

  /// What the driver launches on `device`, the current one: its function there, or beyond the first
  /// devices the kernel of all, for which it looks the function up at every launch (0.1 µs).
  CUfunction function_on(Device device) const;
  /// Lets blocks of it have as much shared memory as the device has for one.
  void allow_all_shared_memory(Device device) const;

  const void* entry_;
  cudaKernel_t handle_ = nullptr;
  mutable std::atomic<CUfunction> functions_[kDevices]{};
  // Devices of this compute capability run code of it that waits for the kernel ahead; 0: none do.
  int waits_on_ = 0;
  mutable std::atomic<std::uint64_t> allowed_{0};  // a bit for each of the first 64 devices
};

}  // namespace tenon::cuda
