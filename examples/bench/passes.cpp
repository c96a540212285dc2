// The pointwise passes alone.
#include <algorithm>
#include <vector>

#include "expert.h"
#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/stream.h"
#include "tenon/ops/conv.h"
#include "tenon/ops/cuda/channels_last.h"
#include "tenon/ops/cuda/conv.h"
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

/// The passes of one problem on buffers that are made once.
class Passes {
 public:
  explicit Passes(const Problem& problem) : problem_(problem) {
    for (const InputSet& set : problem.sets()) {
      convolved_.push_back(ops::conv_transpose2d(set.x, set.weight, {}, problem.shape().options()));
      biases_.push_back(set.bias.detach());
      buffers_.push_back(empty_like(convolved_.back()));
    }
    grad_bias_ = empty_like(biases_[0]);
  }

  /// Those that work in place on NCHW tensors.
  void append_in_place(std::vector<Row>& rows) {
    const Step restore = [&](std::size_t i) { buffers_[i].copy_(convolved_[i]); };
    rows.push_back(row("pointwise pass, in place", 2 * z_bytes(), restore, [&](std::size_t i) {
      ops::cuda::epilogue_pass(buffers_[i], biases_[i], problem_.epilogue());
    }));
    if (!problem_.train()) return;
    rows.push_back(row("gradient pass, in place", 3 * z_bytes(), restore, [&](std::size_t i) {
      ops::cuda::epilogue_gradient_pass(buffers_[i], biases_[i], problem_.set(i).grad_out,
                                        problem_.epilogue(), grad_bias_);
    }));
  }

  /// Those around a convolution in channels-last memory, which convert on the way.
  void append_channels_last(std::vector<Row>& rows) {
    const Step nothing = [](std::size_t) {};
    std::vector<Tensor> last;
    for (const Tensor& y : convolved_) last.push_back(ops::cuda::to_channels_last(y));
    rows.push_back(row("pointwise pass, nhwc to nchw", 2 * z_bytes(), nothing, [&](std::size_t i) {
      ops::cuda::epilogue_pass_from_channels_last(last[i], biases_[i], problem_.epilogue(),
                                                  buffers_[i]);
    }));
    const std::int64_t x_bytes = problem_.bytes_of(problem_.shape().x());
    std::vector<Tensor> converted(last.size());
    rows.push_back(row("x to nhwc", 2 * x_bytes, nothing, [&](std::size_t i) {
      converted[i] = ops::cuda::to_channels_last(problem_.set(i).x.detach());
    }));
    if (!problem_.train()) return;
    const Step restore = [&](std::size_t i) { last[i].copy_(convolved_[i]); };
    rows.push_back(row("gradient pass, nhwc from nchw", 3 * z_bytes(), restore, [&](std::size_t i) {
      ops::cuda::epilogue_gradient_pass_channels_last(last[i], biases_[i], problem_.set(i).grad_out,
                                                      problem_.epilogue(), grad_bias_);
    }));
  }

 private:
  std::int64_t z_bytes() const { return problem_.bytes_of(problem_.shape().z()); }

  Row row(const char* name, std::int64_t bytes, const Step& prepare, const Step& step) const {
    Row result;
    result.path = name;
    result.configuration = "floor: its own bytes at copy bandwidth";
    result.timing = measure_prepared(problem_.device(), buffers_.size(), prepare, step);
    result.bytes = bytes;
    result.whole = false;
    return result;
  }

  const Problem& problem_;
  std::vector<Tensor> convolved_;
  std::vector<Tensor> biases_;
  std::vector<Tensor> buffers_;
  Tensor grad_bias_;
};

}  // namespace

std::vector<Row> pass_rows(const Problem& problem) {
  const NoGradGuard no_gradients;
  const Float32PrecisionGuard precision(problem.precision().float32);
  Passes passes(problem);
  std::vector<Row> rows;
  passes.append_in_place(rows);
  if (ops::cuda::wants_channels_last(problem.precision().dtype)) passes.append_channels_last(rows);
  return rows;
}

}  // namespace bench
