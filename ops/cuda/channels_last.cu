#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/channels_last.cuh"
#include "tenon/ops/cuda/channels_last.h"

namespace tenon::ops::cuda {
namespace {

struct SameValue {
  template <class T>
  __device__ T operator()(T value, std::int64_t /*row*/, std::int64_t /*column*/) const {
    return value;
  }
};

/// [N, rows, columns] -> [N, columns, rows]
void transpose(const Tensor& source, const Tensor& target, std::int64_t rows,
               std::int64_t columns) {
  if (target.numel() == 0) return;
  const tenon::cuda::DeviceGuard guard(target.device());
  const TileGrid grid(target.shape()[0], rows, columns);
  tenon::cuda::visit_device_floating(target.dtype(), "channels_last", [&]<class T>() {
    launch_transpose(static_cast<const T*>(source.raw_data()), static_cast<T*>(target.raw_data()),
                     grid, SameValue(), target.device());
  });
}

}  // namespace

Tensor empty_channels_last(const TensorSpec& spec) {
  return tenon::detail::make_empty(spec, MemoryFormat::ChannelsLast);
}

Tensor to_channels_last(const Tensor& x) {
  if (x.is_contiguous(MemoryFormat::ChannelsLast)) {
    return tenon::detail::with_strides_of(x, MemoryFormat::ChannelsLast);
  }
  const Tensor target = empty_channels_last(x.spec());
  transpose(x, target, x.shape()[1], x.shape()[2] * x.shape()[3]);
  return target;
}

void from_channels_last(const Tensor& source, const Tensor& target) {
  transpose(source, target, target.shape()[2] * target.shape()[3], target.shape()[1]);
}

}  // namespace tenon::ops::cuda
