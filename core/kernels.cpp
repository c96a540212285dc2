#include "tenon/core/kernels.h"

#include "tenon/core/cpu/kernels.h"
#include "tenon/core/cuda/kernels.h"
#include "tenon/core/dispatch.h"

namespace tenon::kernels {

void copy(const Tensor& source, const Tensor& target) {
  // A copy between devices is the GPU's business, whichever way it goes.
  const Device device = source.device().is_cpu() ? target.device() : source.device();
  TENON_DISPATCH(device, copy(source, target));
}

void fill(const Tensor& target, Scalar value) {
  TENON_DISPATCH(target.device(), fill(target, value));
}

void add(const Tensor& a, const Tensor& b, const Tensor& target) {
  TENON_DISPATCH(target.device(), add(a, b, target));
}

void sum_to(const Tensor& source, const Tensor& target) {
  TENON_DISPATCH(target.device(), sum_to(source, target));
}

}  // namespace tenon::kernels
