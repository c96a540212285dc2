// What kernels find wrong with the numbers they are given: an index outside its range. A kernel
// cannot throw, and the host does not wait for it; it leaves the first such fault where the host
// finds it at its next synchronisation, which throws.
#pragma once

#include <cstdint>

#include "tenon/core/device.h"

namespace tenon::cuda {

/// An index outside [0, size). Lies in host memory that the device can write.
struct IndexFault {
  unsigned claimed;   // set by the one kernel thread that may write the rest
  unsigned complete;  // set when the rest is written
  const char* what;   // never read on the device
  long long index;
  long long size;
};

/// The place for the faults of kernels on `device`.
IndexFault* fault_slot(Device device);

/// Throws `Error` "<what> <index> is outside [0, <size>)" when a kernel left a fault since the
/// last call. To be called when the host has waited for the device.
void throw_pending_fault(Device device);

}  // namespace tenon::cuda
