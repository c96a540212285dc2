// Choosing the kernel of a device. Kernels of one op have one name and signature in the namespaces
// `cpu` and `cuda` of the code that calls them: `tenon::cpu` and `tenon::cuda` for core's own ops,
// `tenon::ops::cpu` and `tenon::ops::cuda` for the rest.
#pragma once

#include "tenon/core/device.h"
#include "tenon/core/error.h"

namespace tenon::detail {

/// Throws for a tensor that is not on the CPU.
inline void require_cpu(Device device) {
  TENON_CHECK(device.is_cpu(), "there are no kernels for ", device.to_string(),
              " here (the op has none, or this build of Tenon); move the inputs to the CPU");
}

}  // namespace tenon::detail

/// The value of `cpu::call`; for ops that have kernels for the CPU alone.
#define TENON_DISPATCH_CPU(device, call) (::tenon::detail::require_cpu(device), cpu::call)

#ifdef TENON_WITH_CUDA

/// The value of `cuda::call` or `cpu::call`, by the type of `device`.
#define TENON_DISPATCH(device, call) ((device).is_cuda() ? cuda::call : cpu::call)

#else

/// The value of `cpu::call`; a build without CUDA has no tensor on another device than the CPU.
#define TENON_DISPATCH(device, call) TENON_DISPATCH_CPU(device, call)

#endif
