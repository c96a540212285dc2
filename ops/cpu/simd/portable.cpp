#define TENON_SIMD_NAMESPACE portable
#define TENON_SIMD_NAME "portable"
#define TENON_SIMD_BYTES 16
#define TENON_SIMD_CHANNELS 4
#include "tenon/ops/cpu/simd/kernel_source.h"
