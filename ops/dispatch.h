// Kernels of ops/ live in `tenon::ops::cpu` (ops/cpu/) and `tenon::ops::cuda` (ops/cuda/), reached
// by `TENON_DISPATCH(device, kernel(arguments))`. An op includes the headers of both: they declare
// functions and need no CUDA, and a build without it calls none of the second.
#pragma once

#include "tenon/core/dispatch.h"
