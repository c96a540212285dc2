// The pointwise passes alone.
#include <algorithm>
#include <vector>

#include "expert.h"
#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/stream.h"
#include "tenon/ops/conv.h"
#include "tenon/ops/cuda/fused/epilogue_pass.h"

namespace bench {
namespace {

using namespace tenon;

/// The median over samples of: `prepare` untimed, then `calls` calls of `step` timed, divided by
/// their number. For steps that use up what they work on.
Timing measure_prepared(Device device, std::size_t calls, const Step& prepare, const Step& step) {
  constexpr int kSamples = 40;
  std::vector<double> times;
  for (int sample = 0; sample < kSamples; ++sample) {
    for (std::size_t i = 0; i < calls; ++i) prepare(i);
    Event begin(device);
    Event end(device);
    begin.record();
    for (std::size_t i = 0; i < calls; ++i) step(i);
    end.record();
    times.push_back(begin.elapsed_ms(end) / static_cast<double>(calls));
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], 0};
}

}  // namespace

std::vector<Row> pass_rows(const Problem& problem) {
  const NoGradGuard no_gradients;
  const Float32PrecisionGuard precision(problem.precision().float32);
  const std::size_t count = problem.sets().size();
  std::vector<Tensor> results;  // of the convolution, to be restored: a pass works in place
  std::vector<Tensor> data;
  for (const InputSet& set : problem.sets()) {
    results.push_back(ops::conv_transpose2d(set.x, set.weight, {}, problem.shape().options()));
    data.push_back(empty_like(results.back()));
  }
  const Step restore = [&](std::size_t i) { data[i].copy_(results[i]); };
  const auto row = [&](const char* name, int passes_over_z, const Step& step) {
    Row result;
    result.path = name;
    result.configuration = "the passes' bytes count as their floor";
    result.timing = measure_prepared(problem.device(), count, restore, step);
    result.bytes = passes_over_z * problem.bytes_of(problem.shape().z());
    result.whole = false;
    return result;
  };
  std::vector<Row> rows;
  rows.push_back(row("pointwise pass", 2, [&](std::size_t i) {
    ops::cuda::epilogue_pass(data[i], problem.set(i).bias.detach(), problem.epilogue());
  }));
  if (problem.train()) {
    const Tensor grad_bias = empty_like(problem.set(0).bias.detach());
    rows.push_back(row("pointwise gradient pass", 3, [&](std::size_t i) {
      ops::cuda::epilogue_gradient_pass(data[i], problem.set(i).bias.detach(),
                                        problem.set(i).grad_out, problem.epilogue(), grad_bias);
    }));
  }
  return rows;
}

}  // namespace bench
