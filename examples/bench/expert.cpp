#include "expert.h"

#include <cmath>
#include <limits>

#include "best_plan.h"
#include "cudnn_fusion.h"
#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/tuning.h"
#include "tenon/ops/cuda/cudnn_conv.h"
#include "tenon/ops/cuda/fused/epilogue_pass.h"
#include "tenon/ops/ops.h"

namespace bench {
namespace {

using namespace tenon;
using ops::cuda::ConvolutionKind;
using ops::cuda::ConvolutionProblem;
using ops::cuda::Plan;

enum class Format { Nchw, Nhwc };
constexpr Format kFormats[] = {Format::Nchw, Format::Nhwc};

std::string name(Format format) { return format == Format::Nchw ? "nchw" : "nhwc"; }

Tensor empty_in(Format format, const Shape& shape, const Problem& problem) {
  const TensorOptions options{.dtype = problem.precision().dtype, .device = problem.device()};
  if (format == Format::Nchw) return empty(shape, options);
  return empty({shape[0], shape[2], shape[3], shape[1]}, options).permute({0, 3, 1, 2});
}

Tensor copy_in(Format format, const Tensor& source, const Problem& problem) {
  return empty_in(format, source.shape(), problem).copy_(source);
}

/// The memory of a channels-last tensor as if it were row-major, for Tenon's pointwise passes:
/// each element once, whatever its channel is.
Tensor memory_of(const Tensor& tensor, Format format) {
  if (format == Format::Nchw) return tensor;
  return tensor.permute({0, 2, 3, 1}).reshape(tensor.shape());
}

/// One set of tensors in one memory format. `y` becomes z, and its gradient, in place.
struct Buffers {
  Tensor x, weight, bias, y, y_memory;
  Tensor grad_out, grad_x, grad_weight, grad_bias;

  Buffers(Format format, const InputSet& set, const Problem& problem)
      : x(copy_in(format, set.x.detach(), problem)),
        weight(copy_in(format, set.weight.detach(), problem)),
        bias(set.bias.detach()),
        y(empty_in(format, problem.shape().z(), problem)),
        y_memory(memory_of(y, format)) {
    if (!problem.train()) return;
    grad_out = set.grad_out;
    grad_x = empty_in(format, x.shape(), problem);
    grad_weight = empty_in(format, weight.shape(), problem);
    grad_bias = empty_like(bias);
  }
};

/// The expert's work in one memory format.
class Expert {
 public:
  Expert(const Problem& problem, Format format) : problem_(problem), format_(format) {
    for (const InputSet& set : problem.sets()) buffers_.emplace_back(format, set, problem);
  }

  std::vector<Row> rows() {
    const Shape z = problem_.shape().z();
    std::vector<Row> rows;
    forward_ = find(ConvolutionKind::DataGradient);
    rows.push_back(part("cuDNN convolution", forward_, z));
    if (forward_.plan == nullptr) return rows;
    rows.back().error = convolution_error();
    if (problem_.train()) {
      grad_x_ = find(ConvolutionKind::Forward);
      grad_weight_ = find(ConvolutionKind::WeightGradient);
      rows.push_back(part("cuDNN gradient of x", grad_x_, z));
      rows.push_back(part("cuDNN gradient of weight", grad_weight_, z));
      if (grad_x_.plan == nullptr || grad_weight_.plan == nullptr) return rows;
    }
    rows.push_back(composition());
    return rows;
  }

 private:
  const Buffers& at(std::size_t i) const { return buffers_[i % buffers_.size()]; }

  /// Runs `plan` as the convolution `kind`; image and response are the names of
  /// `ConvolutionProblem`.
  static void run(ConvolutionKind kind, const Plan& plan, const Buffers& b) {
    switch (kind) {
      case ConvolutionKind::DataGradient:
        return run_plan(plan, b.y, b.weight, b.x);
      case ConvolutionKind::Forward:
        return run_plan(plan, b.y, b.weight, b.grad_x);
      case ConvolutionKind::WeightGradient:
        return run_plan(plan, b.y, b.grad_weight, b.x);
    }
  }

  BestPlan find(ConvolutionKind kind) const {
    const ops::ConvTranspose2dOptions options = problem_.shape().options();
    const Buffers& b = buffers_[0];
    const auto convolution =
        ConvolutionProblem::of(kind, b.y, b.weight, b.x,
                               {options.stride, options.padding, options.dilation, options.groups});
    return best_plan(problem_.device(), convolution_plans(convolution, problem_.device()),
                     [&](const Plan& plan, std::size_t i) { run(kind, plan, at(i)); });
  }

  /// A convolution alone: all three read or write x, weight and y once each.
  Row part(const std::string& what, const BestPlan& best, const Shape& z) const {
    Row row;
    row.path = what + ", " + name(format_);
    row.configuration = best.description();
    row.timing = best.plan == nullptr ? Timing{kUnknown, 0} : best.timing;
    row.bytes = problem_.bytes_of(problem_.shape().x()) +
                problem_.bytes_of(problem_.shape().weight()) + problem_.bytes_of(z);
    row.flop = problem_.shape().forward_flop();
    row.whole = false;
    return row;
  }

  double convolution_error() const {
    const Buffers& b = buffers_[0];
    b.y.fill_(std::numeric_limits<double>::quiet_NaN());
    run(ConvolutionKind::DataGradient, *forward_.plan, b);
    const Tensor exact = ops::conv_transpose2d(b.x.contiguous(), b.weight.contiguous(), {},
                                               problem_.shape().options());
    return relative_error(b.y, exact);
  }

  /// The best plans and the passes, one after another. For training the expert keeps y, so that
  /// both passes read it; that the second finds it where the first left z is in his favour.
  Row composition() const {
    const Step step = [&](std::size_t i) {
      const Buffers& b = at(i);
      run(ConvolutionKind::DataGradient, *forward_.plan, b);
      ops::cuda::epilogue_pass(b.y_memory, b.bias, problem_.epilogue());
      if (!problem_.train()) return;
      ops::cuda::epilogue_gradient_pass(b.y_memory, b.bias, b.grad_out, problem_.epilogue(),
                                        b.grad_bias);
      run(ConvolutionKind::Forward, *grad_x_.plan, b);
      run(ConvolutionKind::WeightGradient, *grad_weight_.plan, b);
    };
    Row row;
    row.path = std::string(problem_.train() ? "three convolutions + two passes, "
                                            : "convolution + pass, ") +
               name(format_);
    row.configuration = "the best plan of each convolution, Tenon's pointwise passes";
    row.timing = measure(problem_.device(), step);
    row.bytes = problem_.floor_bytes();
    row.flop = problem_.flop();
    return row;
  }

  const Problem& problem_;
  Format format_;
  std::vector<Buffers> buffers_;
  BestPlan forward_;
  BestPlan grad_x_;
  BestPlan grad_weight_;
};

/// cuDNN's fusion of the whole forward.
Row fusion_row(const Problem& problem, std::size_t most_plans) {
  Row row;
  row.path = "cuDNN fusion, nhwc";
  row.timing = {kUnknown, 0};
  row.bytes = problem.floor_bytes();
  row.flop = problem.flop();
  try {
    std::vector<Buffers> buffers;
    for (const InputSet& set : problem.sets()) buffers.emplace_back(Format::Nhwc, set, problem);
    const CudnnFusion fusion(problem);
    const auto run = [&](const Plan& plan, std::size_t i) {
      const Buffers& b = buffers[i % buffers.size()];
      fusion.run(plan, b.x, b.weight, b.bias, b.y);
    };
    const BestPlan best = best_plan(problem.device(), fusion.plans(most_plans), run);
    row.configuration = best.description();
    if (best.plan == nullptr) return row;
    row.timing = best.timing;
    const Buffers& b = buffers[0];
    b.y.fill_(std::numeric_limits<double>::quiet_NaN());
    run(*best.plan, 0);
    const InputSet& set = problem.set(0);
    row.error = relative_error(
        b.y, ops::conv_transpose2d_epilogue(set.x, set.weight, set.bias, problem.shape().options(),
                                            problem.epilogue()));
  } catch (const Error& error) {
    row.configuration = error.what();
  }
  return row;
}

}  // namespace

std::vector<Row> expert_rows(const Problem& problem, std::size_t most_fusion_plans) {
  const NoGradGuard no_gradients;
  const TuningGuard tuning(true);
  const Float32PrecisionGuard precision(problem.precision().float32);
  std::vector<Row> rows;
  for (const Format format : kFormats) {
    for (Row& row : Expert(problem, format).rows()) rows.push_back(std::move(row));
  }
  if (!problem.train()) rows.push_back(fusion_row(problem, most_fusion_plans));
  for (Row& row : rows) row.peer = true;
  return rows;
}

}  // namespace bench
