// Choosing the kernel of a device. Kernels of one op have one name and signature in the namespaces
// `cpu` and `cuda` of the code that calls them: `tenon::cpu` and `tenon::cuda` for core's own ops,
// `tenon::ops::cpu` and `tenon::ops::cuda` for the rest.
#pragma once

#include "tenon/core/device.h"
#include "tenon/core/error.h"

#ifdef TENON_WITH_CUDA

/// The value of `cuda::call` or `cpu::call`, by the type of `device`.
#define TENON_DISPATCH(device, call) ((device).is_cuda() ? cuda::call : cpu::call)

#else

namespace tenon::detail {

/// A build without CUDA has no tensor on another device than the CPU.
inline void require_cpu(Device device) {
  TENON_CHECK(device.is_cpu(), "this build of Tenon has no kernels for ", device.to_string());
}

}  // namespace tenon::detail

/// The value of `cpu::call`.
#define TENON_DISPATCH(device, call) (::tenon::detail::require_cpu(device), cpu::call)

#endif
