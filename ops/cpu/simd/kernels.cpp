#include "tenon/ops/cpu/simd/kernels.h"

#include <algorithm>
#include <cstdlib>

#include "tenon/core/error.h"

namespace tenon::ops::cpu::simd {

namespace portable {
const Kernels& table();
}
#ifdef TENON_SIMD_X86
namespace avx2 {
const Kernels& table();
}
namespace avx512 {
const Kernels& table();
}
#endif

const Kernels* find_kernels(std::string_view name) {
#ifdef TENON_SIMD_X86
  if (name == "avx512") {
    const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return has ? &avx512::table() : nullptr;
  }
  if (name == "avx2") {
    const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return has ? &avx2::table() : nullptr;
  }
#endif
  return name == "portable" ? &portable::table() : nullptr;
}

const Kernels& choose_kernels(std::string_view wanted) {
  if (!wanted.empty()) {
    TENON_CHECK(wanted == "portable" || wanted == "avx2" || wanted == "avx512", "TENON_CPU_ISA: \"",
                wanted, "\" is not one of portable, avx2, avx512");
    const Kernels* found = find_kernels(wanted);
    TENON_CHECK(found != nullptr, "TENON_CPU_ISA: this processor or this build has no ", wanted,
                "; unset the variable to use the best that it has");
    return *found;
  }
  for (const char* name : {"avx512", "avx2"}) {
    if (const Kernels* found = find_kernels(name)) return *found;
  }
  return portable::table();
}

const Kernels& kernels() {
  static const Kernels& chosen = [&]() -> const Kernels& {
    const char* wanted = std::getenv("TENON_CPU_ISA");
    return choose_kernels(wanted == nullptr ? "" : wanted);
  }();
  return chosen;
}

void sum_products(const Kernels& kernels, const Product& product) {
  constexpr std::int64_t kMostDepth = 1024;
  if (product.depth <= kMostDepth) {  // without a copy, which would wait for what was just stored
    kernels.multiply(product);
    return;
  }
  Product part = product;
  for (std::int64_t first = 0; first < product.depth; first += kMostDepth) {
    part.depth = std::min(kMostDepth, product.depth - first);
    kernels.multiply(part);
    part.offsets += part.depth;
    part.weights += part.depth * part.channels;
    part.start = nullptr;
  }
}

}  // namespace tenon::ops::cpu::simd
