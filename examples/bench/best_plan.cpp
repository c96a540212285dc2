#include "best_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tenon/ops/ops.h"

namespace bench {

using tenon::Device;
using tenon::Tensor;
using tenon::ops::cuda::Plan;

std::string BestPlan::description() const {
  const std::string count = std::to_string(listed) + (listed == 1 ? " plan" : " plans");
  return plan == nullptr ? "none of " + count + " runs" : "best of " + count + ": " + plan->name();
}

BestPlan best_plan(Device device, std::vector<std::unique_ptr<Plan>> plans, const RunPlan& run) {
  constexpr int kRepeats = 5;
  constexpr double kHopeless = 2;  // times the best so far: timed once is enough
  constexpr std::size_t kFinalists = 3;
  struct Candidate {
    double milliseconds;
    std::size_t index;
  };
  BestPlan best;
  best.listed = plans.size();
  std::vector<Candidate> candidates;
  double fastest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < plans.size(); ++i) {
    const auto step = [&](std::size_t call) { run(*plans[i], call); };
    try {
      double time = measure_roughly(device, step, 1);
      if (time < kHopeless * fastest) time = measure_roughly(device, step, kRepeats);
      candidates.push_back({time, i});
      fastest = std::min(fastest, time);
    } catch (const tenon::Error&) {
      // A plan that cuDNN lists and then cannot run is none.
    }
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.milliseconds < b.milliseconds; });
  candidates.resize(std::min(candidates.size(), kFinalists));
  for (const Candidate& candidate : candidates) {
    std::unique_ptr<Plan>& plan = plans[candidate.index];
    const Timing timing = measure(device, [&](std::size_t call) { run(*plan, call); });
    if (best.plan == nullptr || timing.milliseconds < best.timing.milliseconds) {
      best.plan = std::move(plan);
      best.timing = timing;
    }
  }
  return best;
}

double relative_error(const Tensor& result, const Tensor& reference) {
  const auto norm = [](const Tensor& t) {
    return std::sqrt(tenon::ops::sum(tenon::ops::mul(t, t)).item());
  };
  const Tensor exact = reference.to(tenon::DType::Float32);
  return norm(tenon::ops::sub(result.to(tenon::DType::Float32), exact)) / norm(exact);
}

}  // namespace bench
