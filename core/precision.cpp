#include "tenon/core/precision.h"

#include <ostream>

namespace tenon {
namespace {

thread_local Float32Precision current = Float32Precision::Tf32;

}  // namespace

std::ostream& operator<<(std::ostream& out, Float32Precision precision) {
  return out << (precision == Float32Precision::Tf32 ? "tf32" : "float32");
}

Float32Precision float32_precision() { return current; }

Float32PrecisionGuard::Float32PrecisionGuard(Float32Precision precision) : previous_(current) {
  current = precision;
}

Float32PrecisionGuard::~Float32PrecisionGuard() { current = previous_; }

}  // namespace tenon
