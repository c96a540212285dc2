#include "tenon/ops/cuda/fused/backward.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"
#include "tenon/ops/cuda/fused/backward_kernels.h"
#include "tenon/ops/cuda/fused/bias_sums.h"
#include "tenon/ops/cuda/fused/channel_rows_ops.h"
#include "tenon/ops/cuda/fused/gradient_pair.h"
#include "tenon/ops/cuda/fused/weight_gradient.h"

namespace tenon::ops::cuda {
namespace {

/// What a backward keeps of a slice of the batch: rows, and sums for the bias. With the weight
/// gradient's workspace that is less than 256 MiB: of the mission in float32 15 images have 240 MiB
/// of dy's rows and 4 of sums, and the workspace has 9.
constexpr std::int64_t kMostSliceBytes = std::int64_t{244} << 20;

/// Images of a slice, where the whole batch keeps `bytes`: slices are of equal size, the last one
/// smaller. (Parts of a slice whose dy stays in the L2 cache until dx is made of it gain less than
/// their many launches cost.)
int images_of_slice(std::int64_t images, std::int64_t bytes) {
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
  int slice;                         ///< images of one
  WeightGradientPlan weight;         ///< of a slice, the last one too
  std::optional<GradientPair> pair;  ///< how dx and dw are made at once, where both are wanted
  bool borrows_grad_x = false;       ///< x's rows lie where dx of the slice is written later

  bool weight_reads_x_rows() const {
    return !weight.reads_planes() || (pair && !pair->weight.reads_planes());
  }
  /// Whether any kernel reads x as rows.
  bool reads_x_rows() const { return takes_rows(kernels.sum_gradient) || weight_reads_x_rows(); }
  int last_slice() const { return (shape.images - 1) % slice + 1; }
  /// Rows that are left of the sums for the bias of so many images.
  std::int64_t bias_rows(int images) const {
    return bias_rows_of_sums(bias_sum_rows(kernels.sum_gradient, images));
  }
};

/// `wants_grad_x`: dx is asked for. Its memory is free until dy is there, which makes slices
/// larger.
std::optional<Plan> make_plan(const BlockProblem& problem, bool wants_grad_x) {
  const KernelTarget target = KernelTarget::of(problem.x.device);
  const std::optional<BackwardPlan> kernels = backward_plan(problem, target);
  if (!kernels || !backward_pays(*kernels, problem)) return std::nullopt;
  const TransposedShape shape =
      TransposedShape::of(problem.x.shape, problem.weight, problem.z, problem.options);
  const OperandKind operand = kernels->sum_gradient.row->operand;
  const bool split = kernels->sum_gradient.row->config.split;
  const ChannelRows x = input_rows(shape, operand, split);
  const ChannelRows grad_y = output_rows(shape, operand, split);
  // Within a chunk of a slice kernels count bytes in 32 bits; several images fit kMostSliceBytes.
  if (16 * grad_y.image_rows() > std::int64_t{UINT32_MAX}) return std::nullopt;
  const std::int64_t bias_bytes = bias_sum_rows(kernels->sum_gradient, shape.images) *
                                  problem.z[1] * std::int64_t{sizeof(float)};
  const WeightGradientTarget weight_target{target.multiprocessors, target.shared_bytes,
                                           target.architecture};
  const auto with_slices_of = [&](std::int64_t bytes) {
    TransposedShape slice = shape;
    slice.images = images_of_slice(shape.images, bytes);
    const WeightGradientProblem weight_problem{slice, operand, split};
    const WeightGradientPlan weight = plan_weight_gradient(weight_problem, weight_target);
    return Plan{
        *kernels, shape,
        operand,  x,
        grad_y,   slice.images,
        weight,   pair_gradients(kernels->data_gradient, weight, weight_problem, weight_target)};
  };
  Plan plan = with_slices_of(grad_y.bytes() + bias_bytes);
  if (!plan.reads_x_rows()) return plan;
  const bool as_large =
      x.bytes() == problem.x.shape.numel() * static_cast<std::int64_t>(item_size(problem.x.dtype));
  plan.borrows_grad_x = wants_grad_x && as_large && !plan.weight_reads_x_rows();
  return plan.borrows_grad_x ? plan : with_slices_of(x.bytes() + grad_y.bytes() + bias_bytes);
}

/// This thread's plan for a problem; null where there is none. Valid until the next call.
const Plan* plan_of(const BlockProblem& problem, bool wants_grad_x) {
  constexpr std::size_t kMostPlans = 1024;
  using Plans = std::unordered_map<BlockProblem, std::optional<Plan>, HashBlockProblem>;
  thread_local Plans with_grad_x;
  thread_local Plans without;
  Plans& plans = wants_grad_x ? with_grad_x : without;
  auto found = plans.find(problem);
  if (found == plans.end()) {
    // Programs with a new shape at every step must not fill the memory with plans.
    if (plans.size() == kMostPlans) plans.clear();
    found = plans.emplace(problem, make_plan(problem, wants_grad_x)).first;
  }
  return found->second ? &*found->second : nullptr;
}

Tensor empty_float(const Shape& shape, Device device) {
  return tenon::detail::make_empty({shape, DType::Float32, device});
}

/// Calls `form` with contiguous memory for `gradient`, if that is defined, and brings what it
/// writes there to the gradient.
template <class Form>
void form_contiguous(const Tensor& gradient, const Form& form) {
  if (!gradient.defined()) return;
  if (gradient.is_contiguous()) {
    form(gradient);
    return;
  }
  const Tensor formed =
      tenon::detail::make_empty({gradient.shape(), gradient.dtype(), gradient.device()});
  form(formed);
  kernels::copy(formed, gradient);
}

bool begins_at_16_bytes(const Tensor& tensor) {
  return reinterpret_cast<std::uintptr_t>(tensor.raw_data()) % 16 == 0;
}

/// `tensor`, or a copy of it, that begins at a multiple of 16 bytes.
Tensor at_16_bytes(const Tensor& tensor) {
  if (begins_at_16_bytes(tensor)) return tensor;
  const Tensor copy = tenon::detail::make_empty(tensor.spec());
  kernels::copy(tensor, copy);
  return copy;
}

class Backward {
 public:
  Backward(const Plan& plan, const Tensor& x, const Tensor& weight, const Tensor& bias,
           const Tensor& grad_out, const Epilogue& epilogue, const Tensor& grad_x,
           const Tensor& grad_weight, const Tensor& grad_bias)
      : plan_(plan),
        x_(at_16_bytes(x)),
        weight_(weight),
        bias_(bias),
        grad_out_(grad_out),
        epilogue_(epilogue),
        grad_x_(grad_x),
        grad_weight_(grad_weight),
        grad_bias_(grad_bias),
        borrows_grad_x_(plan.borrows_grad_x && begins_at_16_bytes(grad_x)),
        x_rows_(with_room(plan.x, plan.slice)),
        grad_y_rows_(with_room(plan.grad_y, plan.slice)),
        grad_y_memory_(allocate_rows(grad_y_rows_, x.device())) {
    if (plan.reads_x_rows() && !borrows_grad_x_) x_memory_ = allocate_rows(x_rows_, x.device());
    if (grad_weight.defined()) {
      workspace_ = empty_float({weight_plan().workspace_floats()}, x.device());
    }
    if (at_once() && weight_plan().reads_planes()) {
      progress_ = tenon::detail::make_empty({{1}, DType::Int64, x.device()});
    }
    if (grad_bias.defined()) {
      const std::int64_t whole_slices = (plan.shape.images - 1) / plan.slice;
      const std::int64_t rows =
          whole_slices * plan.bias_rows(plan.slice) + plan.bias_rows(plan.last_slice());
      bias_rows_ = empty_float({rows, grad_out.shape()[1]}, x.device());
    }
  }

  void run() {
    for (int first = 0; first < plan_.shape.images; first += plan_.slice) {
      run_slice(first, std::min(plan_.slice, plan_.shape.images - first));
    }
    form_contiguous(grad_weight_, [&](const Tensor& gradient) {
      finish_weight_gradient(weight_plan(), workspace_, gradient);
    });
    form_contiguous(grad_bias_,
                    [&](const Tensor& gradient) { finish_bias_gradient(bias_rows_, gradient); });
  }

 private:
  /// Whether dx and dw are made at once. (dw's last bits depend on it, as on anything that changes
  /// the number of its blocks.)
  bool at_once() const { return plan_.pair && grad_x_.defined() && grad_weight_.defined(); }
  const WeightGradientPlan& weight_plan() const {
    return at_once() ? plan_.pair->weight : plan_.weight;
  }

  static ChannelRows with_room(const ChannelRows& rows, int images) {
    ChannelRows slice = rows;
    slice.images = slice.buffer_images = images;
    return slice;
  }

  /// Where the rows of x lie for a slice.
  ChannelRows x_rows(int first, int count) const {
    if (!borrows_grad_x_) return x_rows_.part(0, count);
    ChannelRows rows = with_room(plan_.x, count);
    rows.data = images_of(grad_x_, first, count).raw_data();
    return rows;
  }

  void run_slice(int first, int count) {
    const Tensor x = images_of(x_, first, count);
    const ChannelRows x_rows = this->x_rows(first, count);
    if (plan_.reads_x_rows()) {
      // Behind another slice, whose kernels have no business with this one's dx.
      pack_channel_rows(x, plan_.operand, x_rows, borrows_grad_x_ && first > 0);
    }
    const ChannelRows grad_y = grad_y_rows_.part(0, count);
    const KernelPlan& sums = plan_.kernels.sum_gradient;
    const Tensor bias_sums =
        empty_float({bias_sum_rows(sums, count), grad_out_.shape()[1]}, x_.device());
    run_sum_gradient(sums, x, x_rows, weight_, bias_, images_of(grad_out_, first, count), epilogue_,
                     grad_y, bias_sums, progress_);
    const KernelPlan& data = plan_.kernels.data_gradient;
    const int multiprocessors = at_once() ? plan_.pair->data_multiprocessors
                                          : tenon::cuda::properties(x_.device()).multiprocessors;
    if (grad_x_.defined()) {
      run_data_gradient(data, grad_y, weight_, images_of(grad_x_, first, count), multiprocessors,
                        progress_);
    }
    if (grad_weight_.defined()) {
      accumulate_weight_gradient(weight_plan(), x, x_rows, grad_y, workspace_, first > 0, at_once(),
                                 leading_tiles(data, count, multiprocessors, progress_));
    }
    if (grad_bias_.defined()) {
      add_bias_rows(bias_sums, bias_rows_, first / plan_.slice * plan_.bias_rows(plan_.slice),
                    at_once());
    }
  }

  const Plan& plan_;
  const Tensor x_;
  const Tensor& weight_;
  const Tensor& bias_;
  const Tensor& grad_out_;
  const Epilogue& epilogue_;
  const Tensor& grad_x_;
  const Tensor& grad_weight_;
  const Tensor& grad_bias_;
  const bool borrows_grad_x_;
  ChannelRows x_rows_;
  ChannelRows grad_y_rows_;
  Tensor x_memory_;  // of the rows, where they are needed
  Tensor grad_y_memory_;
  Tensor workspace_;  // of the weight gradient
  Tensor progress_;   // tiles of dx that have begun, where dw follows
  Tensor bias_rows_;
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
      plan_of(BlockProblem::of(x.spec(), weight.shape(), grad_out.shape(), options, epilogue),
              grad_x.defined());
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
  const Plan* plan = plan_of(BlockProblem::of(x, weight, z, options, epilogue), true);
  if (plan == nullptr) return "";
  return std::string(plan->kernels.sum_gradient.row->name) + "; " +
         plan->kernels.data_gradient.row->name;
}

}  // namespace tenon::ops::cuda
