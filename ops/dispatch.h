// Choosing the kernel of a device. Kernels of one op have one name and signature in
// `tenon::ops::cpu` (ops/cpu/) and `tenon::ops::cuda` (ops/cuda/).
#pragma once

#include "tenon/core/error.h"

/// Calls `cpu::call` or `cuda::call` by the type of `device`; to be used inside `tenon::ops`.
/// A build without CUDA has no tensor on another device than the CPU.
#define TENON_DISPATCH(device, call)                                                   \
  do {                                                                                 \
    TENON_CHECK((device).is_cpu(), "this build of Tenon has no kernels for ", device); \
    cpu::call;                                                                         \
  } while (false)
