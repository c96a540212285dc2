// The one way in which Tenon's kernels are launched.
#pragma once

#include <type_traits>

#include "tenon/core/cuda/launch.h"

namespace tenon::cuda {

/// The kernel ahead in the stream. A kernel whose first parameter this is begins with `wait()`, in
/// every thread that touches memory, or, where it is meant to run beside others, ends with it;
/// `launch` supplies the argument. In return the device may set such a kernel up while the one
/// ahead still runs ("programmatic dependent launch"), and its launch costs the host less.
///
/// The order of a stream is kept. The wait ends when the kernel ahead has completed and its writes
/// can be seen, and that kernel, if it waits too, completed only after the one ahead of it: so
/// everything earlier is done, whatever the kernels in between were. Memory that was freed and
/// handed out again in stream order is touched after the wait, like all memory; and kernels that do
/// not wait, such as a library's, start when all earlier ones are done, as ever.
///
/// Such a kernel has no `__restrict__` pointers to constant data: the compiler may read these
/// before the wait.
struct PreviousKernel {
  /// Nothing on devices before 9.0, where kernels only start when the one ahead is done.
  __device__ void wait() const {
#if __CUDA_ARCH__ >= 900
    cudaGridDependencySynchronize();
#endif
  }
};

template <class Function>
inline constexpr bool waits_for_previous = false;
template <class... Others>
inline constexpr bool waits_for_previous<void (*)(PreviousKernel, Others...)> = true;

/// `launch` with the addresses of arguments converted to the parameters' types.
template <class... Parameters>
void launch_converted(const Kernel& kernel, void (*)(Parameters...), const LaunchShape& shape,
                      Device device, const std::type_identity_t<Parameters>&... arguments) {
  // The driver only reads them. The null is there so that the array is never empty.
  void* addresses[] = {const_cast<void*>(static_cast<const void*>(&arguments))..., nullptr};
  kernel.launch(shape, device, addresses);
}

/// Launches `kKernel`, a `__global__` function, in the current stream of `device`, which must be
/// the runtime's current device: `launch<fill_kernel<float>>({blocks, threads}, device, data, 1)`.
/// Arguments convert to the types of its parameters as in a call; a `PreviousKernel` that comes
/// first among these is left out. Throws `Error` naming the kernel where it cannot be launched.
template <auto kKernel, class... Arguments>
void launch(const LaunchShape& shape, Device device, const Arguments&... arguments) {
  constexpr bool kWaits = waits_for_previous<decltype(kKernel)>;
  static const Kernel kernel(reinterpret_cast<const void*>(kKernel), kWaits, device);
  if constexpr (kWaits) {
    launch_converted(kernel, kKernel, shape, device, PreviousKernel(), arguments...);
  } else {
    launch_converted(kernel, kKernel, shape, device, arguments...);
  }
}

}  // namespace tenon::cuda
