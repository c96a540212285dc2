// Memory formats around the kernels of ops on images [N, C, H, W]. Those of a GPU compute in either
// format; the CPU's in contiguous memory alone, so that there channels-last costs a conversion of
// operands and results.
#pragma once

#include <initializer_list>

#include "tenon/core/tensor_body.h"

namespace tenon::ops {

/// The format of a result: channels-last where one of the operands suggests it.
inline MemoryFormat result_format(std::initializer_list<Tensor> operands) {
  for (const Tensor& operand : operands) {
    if (operand.suggest_memory_format() == MemoryFormat::ChannelsLast) {
      return MemoryFormat::ChannelsLast;
    }
  }
  return MemoryFormat::Contiguous;
}

/// What kernels of that device work on when asked for `format`.
inline MemoryFormat kernel_format(Device device, MemoryFormat format) {
  return device.is_cpu() ? MemoryFormat::Contiguous : format;
}

/// `x` for a kernel, in the format that it suggests if the device's kernels know it.
inline Tensor kernel_operand(const Tensor& x) {
  return x.contiguous(kernel_format(x.device(), x.suggest_memory_format()));
}

/// Memory for a kernel's result that shall have `format` in the end.
inline Tensor kernel_result(const TensorSpec& spec, MemoryFormat format) {
  return tenon::detail::make_empty(spec, kernel_format(spec.device, format));
}

/// A kernel's result in `format`.
inline Tensor finished(const Tensor& result, MemoryFormat format) {
  return tenon::detail::with_strides_of(result.contiguous(format), format);
}

}  // namespace tenon::ops
