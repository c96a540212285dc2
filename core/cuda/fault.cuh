// How a kernel leaves a fault for the host.
#pragma once

#include "tenon/core/cuda/fault.h"

namespace tenon::cuda {

/// Where a kernel's faults go and what they are called: "gather: index". `what` must live as long
/// as the program.
struct IndexCheck {
  IndexFault* slot;
  const char* what;

  /// True when `index` lies in [0, size); otherwise leaves a fault, unless there is one already.
  __device__ bool passes(std::int64_t index, std::int64_t size) const {
    if (index >= 0 && index < size) return true;
    if (atomicCAS(&slot->claimed, 0u, 1u) == 0u) {
      slot->what = what;
      slot->index = index;
      slot->size = size;
      __threadfence_system();
      *const_cast<volatile unsigned*>(&slot->complete) = 1u;
    }
    return false;
  }
};

}  // namespace tenon::cuda
