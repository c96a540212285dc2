// How exactly GPUs multiply float32 numbers.
#pragma once

#include <cstdint>
#include <iosfwd>

namespace tenon {

/// What convolutions and matrix products of float32 tensors may do on a GPU. Accumulation is in
/// float32 either way; the CPU always computes in float32.
enum class Float32Precision : std::uint8_t {
  Tf32,    ///< operands rounded to TF32's 10 bits for the tensor cores; relative error near 3e-4
  Float32  ///< full float32
};

std::ostream& operator<<(std::ostream& out, Float32Precision precision);

/// The setting of this thread; at first `Tf32`, as PyTorch's for convolutions.
Float32Precision float32_precision();

/// Sets the precision on this thread for the guard's lifetime.
class Float32PrecisionGuard {
 public:
  explicit Float32PrecisionGuard(Float32Precision precision);
  ~Float32PrecisionGuard();
  Float32PrecisionGuard(const Float32PrecisionGuard&) = delete;
  Float32PrecisionGuard& operator=(const Float32PrecisionGuard&) = delete;

 private:
  Float32Precision previous_;
};

}  // namespace tenon
