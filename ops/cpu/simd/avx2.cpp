#define TENON_SIMD_NAMESPACE avx2
#define TENON_SIMD_NAME "avx2"
#define TENON_SIMD_BYTES 32
#define TENON_SIMD_CHANNELS 4
#include "tenon/ops/cpu/simd/kernel_source.h"
