#include "paths.h"

#include <functional>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/tuning.h"
#include "tenon/graph/graph.h"
#include "tenon/ops/ops.h"

#ifdef TENON_WITH_CUDA
#include "tenon/ops/cuda/cudnn_conv.h"
#endif

namespace bench {
namespace {

using namespace tenon;
using Forward = std::function<Tensor(const InputSet&)>;

Tensor five_ops(const Problem& problem, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const ops::Epilogue& e = problem.epilogue();
  const Tensor y = ops::conv_transpose2d(x, weight, bias, problem.shape().options());
  return ops::mul(ops::hardtanh(ops::add(ops::mish(y), e.add), e.min, e.max), e.scale);
}

/// The cuDNN plan that the block's convolution took, in words; empty where none ran.
std::string convolution_plan([[maybe_unused]] const Problem& problem) {
#ifdef TENON_WITH_CUDA
  if (problem.device().is_cuda()) {
    namespace cuda = ops::cuda;
    const InputSet& set = problem.set(0);
    const Tensor z =
        empty(problem.shape().z(), {.dtype = set.x.dtype(), .device = problem.device()});
    const ops::ConvTranspose2dOptions options = problem.shape().options();
    auto convolution = cuda::ConvolutionProblem::of(
        cuda::ConvolutionKind::DataGradient, z, set.weight, set.x,
        {options.stride, options.padding, options.dilation, options.groups});
    std::string plan = cuda::plan_in_use(convolution, problem.device());
    if (!plan.empty()) return "nchw, cuDNN " + plan;
    convolution.image_strides = channels_last_strides(convolution.image);
    convolution.filter_strides = channels_last_strides(convolution.filter);
    convolution.response_strides = channels_last_strides(convolution.response);
    plan = cuda::plan_in_use(convolution, problem.device());
    if (!plan.empty()) return "nhwc inside, cuDNN " + plan;
  }
#endif
  return {};
}

std::string joined(const std::string& a, const std::string& b) {
  return a.empty() || b.empty() ? a + b : a + ", " + b;
}

Row run_forward(const Problem& problem, const std::string& path, Purpose purpose,
                const Forward& forward) {
  const std::size_t count = problem.sets().size();
  // Results are kept as long as their turn lasts, so that they rotate through memory too.
  std::vector<std::vector<Tensor>> kept(count);
  const Step step = [&](std::size_t i) {
    const InputSet& set = problem.set(i);
    std::vector<Tensor> results{forward(set)};
    if (problem.train()) {
      const std::vector<Tensor> leaves{set.x, set.weight, set.bias};
      for (Tensor& gradient : grad(results, leaves, {&set.grad_out, 1})) {
        results.push_back(std::move(gradient));
      }
    }
    kept[i % count] = std::move(results);
  };
  Row row;
  row.path = path;
  if (purpose == Purpose::Profile) {
    profile(problem.device(), step);
    return row;
  }
  if (purpose == Purpose::Turns) {
    take_turns(problem.device(), step);
    return row;
  }
  row.timing = measure(problem.device(), step);
  row.bytes = problem.floor_bytes();
  row.flop = problem.flop();
  kept.assign(count, {});
  row.peak_bytes = peak_memory(problem.device(), step);
  return row;
}

}  // namespace

Row run_path(const Problem& problem, const std::string& path, Purpose purpose) {
  const TuningGuard tuning(true);
  const Float32PrecisionGuard precision(problem.precision().float32);
  const GradModeGuard gradients(problem.train());
  if (path == "auto") {
    const auto compiled =
        graph::compile([&problem](const Tensor& x, const Tensor& weight, const Tensor& bias) {
          return five_ops(problem, x, weight, bias);
        });
    Row row = run_forward(problem, path, purpose, [&](const InputSet& set) {
      return compiled(set.x, set.weight, set.bias);
    });
    const auto decisions = compiled.decisions();
    const bool fused = !decisions.empty() && decisions[0].fused;
    const std::string what = fused               ? decisions[0].kernel
                             : decisions.empty() ? "not fused"
                                                 : "not fused: " + decisions[0].reason;
    row.configuration = joined(what, convolution_plan(problem));
    return row;
  }
  if (path == "fused") {
    Row row = run_forward(problem, path, purpose, [&](const InputSet& set) {
      return ops::conv_transpose2d_epilogue(set.x, set.weight, set.bias, problem.shape().options(),
                                            problem.epilogue());
    });
    const InputSet& set = problem.set(0);
    const TensorSpec z{problem.shape().z(), set.x.dtype(), problem.device()};
    const ops::ConvTranspose2dEpilogueOp op(problem.shape().options(), problem.epilogue());
    row.configuration = op.kernel(set.x.spec(), set.weight.spec(), z);
    return row;
  }
  TENON_CHECK(path == "unfused", "--path: \"", path,
              "\" is not one of auto, fused, unfused, expert");
  Row row = run_forward(problem, path, purpose, [&](const InputSet& set) {
    return five_ops(problem, set.x, set.weight, set.bias);
  });
  row.configuration = joined("five ops", convolution_plan(problem));
  return row;
}

}  // namespace bench
