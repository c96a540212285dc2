// Results of the kernels of this folder stay side by side in vectors until somebody asks for their
// elements in the order of the tensor: the next kernel, and elementwise kernels between the two,
// take them as they lie (`Storage::set_order`).
#pragma once

#include <memory>

#include "tenon/core/tensor.h"
#include "tenon/ops/cpu/batched/lane_window.h"

namespace tenon::ops::cpu {

/// Whether x lies in the order of lanes.
bool in_lanes(const Tensor& x);

/// Images of a tensor for a kernel, which holds on to them.
class LaneOperand {
 public:
  /// x [N, C, H, W], contiguous.
  explicit LaneOperand(const Tensor& x);

  const Images<const float>& images() const { return images_; }

 private:
  std::shared_ptr<const Storage::Reordered> reordered_;  // null where they lie as x says
  Images<const float> images_;
};

/// Where a kernel writes y [N, C, H, W], contiguous memory that nobody has seen yet: side by side
/// where `wanted` and the images fill vectors.
class LaneResult {
 public:
  explicit LaneResult(const Tensor& y, bool wanted = true);

  const Images<float>& images() const { return images_; }
  /// To be called when y is written.
  void done() const;

 private:
  Tensor y_;
  Images<float> images_;
};

}  // namespace tenon::ops::cpu
