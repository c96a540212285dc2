// Kernels of ops/ live in `tenon::ops::cpu` (ops/cpu/) and `tenon::ops::cuda` (ops/cuda/), reached
// by `TENON_DISPATCH(device, kernel(arguments))`.
#pragma once

#include "tenon/core/dispatch.h"
