#include "tenon/ops/cpu/batched/lane_order.h"

#include "tenon/core/parallel.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cpu/batched/lane_groups.h"

namespace tenon::ops::cpu {
namespace {

/// Images [N, C, H, W] as [group][channel][row][column][lane], N a multiple of the lanes.
class LaneOrder : public ElementOrder {
 public:
  explicit LaneOrder(const Shape& shape) : shape_(shape) {}

  const Shape& shape() const { return shape_; }

  void restore(const std::byte* source, std::byte* target) const override {
    const simd::Kernels& kernels = simd::kernels();
    const std::int64_t channels = shape_[1];
    const std::int64_t plane = shape_[2] * shape_[3];
    const std::int64_t group_planes = channels * kernels.lanes;
    // Whole groups, so that threads share no lines and have what their shares had before.
    parallel_for_shares(0, shape_[0] / kernels.lanes, 1, [&](std::int64_t group, std::int64_t) {
      for (std::int64_t c = 0; c < channels; ++c) {
        const float* from = reinterpret_cast<const float*>(source) +
                            (group * group_planes + c * kernels.lanes) * plane;
        float* to = reinterpret_cast<float*>(target) + (group * group_planes + c) * plane;
        kernels.unpack_lanes({from, 0, 1, plane * kernels.lanes}, plane, to, channels * plane,
                             kernels.lanes);
      }
    });
  }

 private:
  Shape shape_;
};

/// Whether the tensor is all of its memory, in the order of its indices.
bool is_whole(const Tensor& x) {
  return x.dim() == 4 && x.device().is_cpu() && x.dtype() == DType::Float32 &&
         x.body()->offset == 0 && x.is_contiguous() &&
         x.body()->storage->bytes() == static_cast<std::size_t>(x.numel()) * sizeof(float);
}

std::shared_ptr<const Storage::Reordered> reordered(const Tensor& x) {
  auto found = x.body()->storage->reordered();
  if (found == nullptr || !is_whole(x)) return nullptr;
  const auto* order = dynamic_cast<const LaneOrder*>(found->order.get());
  return order != nullptr && order->shape() == x.shape() ? found : nullptr;
}

}  // namespace

bool in_lanes(const Tensor& x) { return reordered(x) != nullptr; }

LaneOperand::LaneOperand(const Tensor& x)
    : reordered_(reordered(x)),
      images_{reordered_ == nullptr ? x.data<float>()
                                    : reinterpret_cast<const float*>(reordered_->memory->data()),
              reordered_ != nullptr} {}

LaneResult::LaneResult(const Tensor& y, bool wanted)
    : y_(y),
      images_{y.data<float>(), wanted && is_whole(y) && y.body()->storage->owned() &&
                                   y.body()->storage.use_count() == 1 && y.numel() > 0 &&
                                   y.size(0) % simd::kernels().lanes == 0} {}

void LaneResult::done() const {
  if (images_.side_by_side) {
    y_.body()->storage->set_order(std::make_shared<const LaneOrder>(y_.shape()));
  }
}

}  // namespace tenon::ops::cpu
