// The fastest of cuDNN's plans for something.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tenon/ops/cuda/cudnn_graph.h"
#include "timing.h"

namespace bench {

struct BestPlan {
  std::shared_ptr<const tenon::ops::cuda::Plan> plan;  ///< null when none of them can run
  Timing timing;
  std::size_t listed = 0;

  /// "best of 23 plans: engine 37 (k2=1)".
  std::string description() const;
};

/// Runs a plan on buffer set number i (or on that one of as many as there are that i falls on).
using RunPlan = std::function<void(const tenon::ops::cuda::Plan&, std::size_t)>;

/// Times all `plans` roughly and the best three as `measure` does.
BestPlan best_plan(tenon::Device device, std::vector<std::unique_ptr<tenon::ops::cuda::Plan>> plans,
                   const RunPlan& run);

/// ‖result − reference‖ / ‖reference‖.
double relative_error(const tenon::Tensor& result, const tenon::Tensor& reference);

}  // namespace bench
