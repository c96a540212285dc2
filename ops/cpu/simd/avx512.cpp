#define TENON_SIMD_NAMESPACE avx512
#define TENON_SIMD_NAME "avx512"
#define TENON_SIMD_BYTES 64
#define TENON_SIMD_CHANNELS 8
#include "tenon/ops/cpu/simd/kernel_source.h"
