#include "tenon/ops/cuda/fused/backward.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/fused/backward_kernels.h"
#include "tenon/ops/cuda/fused/channel_rows_ops.h"
#include "tenon/ops/cuda/fused/weight_gradient.h"

namespace tenon::ops::cuda {
namespace {

/// Rows of a slice of the batch, which are all that a backward keeps.
constexpr std::int64_t kMostSliceBytes = std::int64_t{192} << 20;

/// Images of a slice: slices are of equal size, the last one smaller. (Parts of a slice whose dy
/// stays in the L2 cache until dx is made of it gain less than their many launches cost.)
int images_of_slice(const ChannelRows& x, const ChannelRows& grad_y) {
  const std::int64_t images = grad_y.images;
  const std::int64_t bytes = std::max<std::int64_t>(x.bytes() + grad_y.bytes(), 1);
  const auto most = std::clamp<std::int64_t>(kMostSliceBytes * images / bytes, 1, images);
  const std::int64_t slices = (images + most - 1) / most;
  return static_cast<int>((images + slices - 1) / slices);
}

/// All that does not depend on the numbers.
struct Plan {
  BackwardPlan kernels;
  TransposedShape shape;
  OperandKind operand;
  ChannelRows x;  ///< of the whole batch, without memory
  ChannelRows grad_y;
  int slice;                       ///< images of one
  WeightGradientPlan weight;       ///< of a slice
  WeightGradientPlan last_weight;  ///< of the last slice
};

std::optional<Plan> make_plan(const BlockProblem& problem) {
  const KernelTarget target = KernelTarget::of(problem.x.device);
  const std::optional<BackwardPlan> kernels = backward_plan(problem, target);
  if (!kernels || !backward_pays(*kernels, problem)) return std::nullopt;
  const TransposedShape shape =
      TransposedShape::of(problem.x.shape, problem.weight, problem.z, problem.options);
  const OperandKind operand = kernels->sum_gradient.row->operand;
  const ChannelRows x = input_rows(shape, operand, false);
  const ChannelRows grad_y = output_rows(shape, operand, false);
  const int slice_images = images_of_slice(x, grad_y);
  const auto weight_plan = [&](int images) {
    TransposedShape slice = shape;
    slice.images = images;
    return plan_weight_gradient({slice, operand, false},
                                {target.multiprocessors, target.shared_bytes});
  };
  const int last = (shape.images - 1) % slice_images + 1;
  return Plan{*kernels,         shape, operand, x, grad_y, slice_images, weight_plan(slice_images),
              weight_plan(last)};
}

/// This thread's plan for a problem; null where there is none. Valid until the next call.
const Plan* plan_of(const BlockProblem& problem) {
  constexpr std::size_t kMostPlans = 1024;
  thread_local std::unordered_map<BlockProblem, std::optional<Plan>, HashBlockProblem> plans;
  auto found = plans.find(problem);
  if (found == plans.end()) {
    // Programs with a new shape at every step must not fill the memory with plans.
    if (plans.size() == kMostPlans) plans.clear();
    found = plans.emplace(problem, make_plan(problem)).first;
  }
  return found->second ? &*found->second : nullptr;
}

Tensor empty_float(const Shape& shape, Device device) {
  return tenon::detail::make_empty({shape, DType::Float32, device});
}

/// A gradient that is summed over slices in float32, and at the end written as what it is.
class SummedGradient {
 public:
  /// `gradient` may be undefined: then there is no sum.
  explicit SummedGradient(const Tensor& gradient) : gradient_(gradient), sum_(gradient) {
    if (!gradient.defined()) return;
    if (gradient.dtype() != DType::Float32 || !gradient.is_contiguous()) {
      sum_ = empty_float(gradient.shape(), gradient.device());
    }
  }
  const Tensor& sum() const { return sum_; }
  void finish() const {
    if (gradient_.defined() && sum_.body() != gradient_.body()) kernels::copy(sum_, gradient_);
  }

 private:
  Tensor gradient_;
  Tensor sum_;
};

class Backward {
 public:
  Backward(const Plan& plan, const Tensor& x, const Tensor& weight, const Tensor& bias,
           const Tensor& grad_out, const Epilogue& epilogue, const Tensor& grad_x,
           const Tensor& grad_weight, const Tensor& grad_bias)
      : plan_(plan),
        x_(x),
        weight_(weight),
        bias_(bias),
        grad_out_(grad_out),
        epilogue_(epilogue),
        grad_x_(grad_x),
        weight_sum_(grad_weight),
        bias_sum_(grad_bias),
        x_rows_(of_slice(plan.x)),
        grad_y_rows_(of_slice(plan.grad_y)),
        x_memory_(allocate_rows(x_rows_, x.device())),
        grad_y_memory_(allocate_rows(grad_y_rows_, x.device())) {
    if (grad_weight.defined()) {
      const std::int64_t floats =
          std::max(plan.weight.workspace_floats(), plan.last_weight.workspace_floats());
      workspace_ = empty_float({floats}, x.device());
    }
  }

  void run() {
    for (int first = 0; first < plan_.shape.images; first += plan_.slice) {
      run_slice(first, std::min(plan_.slice, plan_.shape.images - first));
    }
    weight_sum_.finish();
    bias_sum_.finish();
  }

 private:
  ChannelRows of_slice(const ChannelRows& rows) const {
    ChannelRows slice = rows;
    slice.images = slice.buffer_images = plan_.slice;
    return slice;
  }

  void run_slice(int first, int count) {
    const ChannelRows x = x_rows_.part(0, count);
    pack_channel_rows(images_of(x_, first, count), plan_.operand, x);
    const ChannelRows grad_y = grad_y_rows_.part(0, count);
    const KernelPlan& sums = plan_.kernels.sum_gradient;
    const Tensor bias_sums =
        empty_float({bias_sum_rows(sums, count), grad_out_.shape()[1]}, x_.device());
    run_sum_gradient(sums, x, weight_, bias_, images_of(grad_out_, first, count), epilogue_, grad_y,
                     bias_sums);
    if (grad_x_.defined()) {
      run_data_gradient(plan_.kernels.data_gradient, grad_y, weight_,
                        images_of(grad_x_, first, count));
    }
    if (bias_sum_.sum().defined()) add_bias(bias_sums, first > 0);
    if (weight_sum_.sum().defined()) {
      run_weight_gradient(count == plan_.slice ? plan_.weight : plan_.last_weight, x, grad_y,
                          workspace_, weight_sum_.sum(), first > 0);
    }
  }

  void add_bias(const Tensor& bias_sums, bool add) {
    const Tensor& sum = bias_sum_.sum();
    const Tensor total = add ? empty_float({1, sum.shape()[0]}, sum.device()) : sum.unsqueeze(0);
    kernels::sum_to(bias_sums, total);
    if (add) kernels::add(sum, total.squeeze(0), sum);
  }

  const Plan& plan_;
  const Tensor& x_;
  const Tensor& weight_;
  const Tensor& bias_;
  const Tensor& grad_out_;
  const Epilogue& epilogue_;
  const Tensor& grad_x_;
  SummedGradient weight_sum_;
  SummedGradient bias_sum_;
  ChannelRows x_rows_;
  ChannelRows grad_y_rows_;
  Tensor x_memory_;
  Tensor grad_y_memory_;
  Tensor workspace_;
};

}  // namespace

bool backward_by_kernels(const Tensor& x, const Tensor& weight, const Tensor& bias,
                         const Tensor& grad_out, const ConvTranspose2dOptions& options,
                         const Epilogue& epilogue, const Tensor& grad_x, const Tensor& grad_weight,
                         const Tensor& grad_bias) {
  const bool planes = x.is_contiguous() && grad_out.is_contiguous() &&
                      (!grad_x.defined() || grad_x.is_contiguous());
  if (!planes) return false;
  const Plan* plan =
      plan_of(BlockProblem::of(x.spec(), weight.shape(), grad_out.shape(), options, epilogue));
  if (plan == nullptr) return false;
  Backward(*plan, x, weight, bias, grad_out, epilogue, grad_x, grad_weight, grad_bias).run();
  return true;
}

Tensor images_of(const Tensor& tensor, std::int64_t first, std::int64_t count) {
  Shape shape = tensor.shape();
  shape[0] = count;
  return tenon::detail::make_view(tensor, shape, tensor.strides(),
                                  tensor.body()->offset + first * tensor.strides()[0]);
}

std::string backward_kernel_names(const TensorSpec& x, const Shape& weight, const Shape& z,
                                  const ConvTranspose2dOptions& options, const Epilogue& epilogue) {
  const Plan* plan = plan_of(BlockProblem::of(x, weight, z, options, epilogue));
  if (plan == nullptr) return "";
  return std::string(plan->kernels.sum_gradient.row->name) + "; " +
         plan->kernels.data_gradient.row->name;
}

}  // namespace tenon::ops::cuda
