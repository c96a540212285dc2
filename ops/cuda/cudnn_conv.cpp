#include "tenon/ops/cuda/cudnn_conv.h"

#include <algorithm>
#include <limits>
#include <map>
#include <sstream>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/stream.h"
#include "tenon/ops/cuda/cudnn_graph.h"
#include "tenon/ops/tuning.h"

namespace tenon::ops::cuda {
namespace {

constexpr std::int64_t kImageId = 1;
constexpr std::int64_t kFilterId = 2;
constexpr std::int64_t kResponseId = 3;

/// Plans that want more scratch than this are not tried.
constexpr std::int64_t kMostWorkspaceBytes = std::int64_t{1} << 30;

/// Where the three tensors lie.
struct Operands {
  void* image;
  void* filter;
  void* response;
  Device device;

  Operands(const Tensor& i, const Tensor& f, const Tensor& r)
      : image(i.raw_data()), filter(f.raw_data()), response(r.raw_data()), device(i.device()) {}
};

struct AttributeNames {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t convolution, image, filter, response, alpha, beta;
};

AttributeNames names_of(ConvolutionKind kind) {
  switch (kind) {
    case ConvolutionKind::Forward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case ConvolutionKind::DataGradient:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case ConvolutionKind::WeightGradient:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
  }
  tenon::detail::fail("cudnn: unknown convolution");
}

Descriptor convolution_descriptor(const ConvolutionProblem& problem) {
  const auto pair = [](Pair p) { return std::vector<std::int64_t>{p.h, p.w}; };
  Descriptor convolution(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  convolution.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, std::int64_t{2});
  convolution.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
                  problem.dtype == DType::Float64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT);
  convolution.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION);
  convolution.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, pair(problem.padding));
  convolution.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, pair(problem.padding));
  convolution.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, pair(problem.stride));
  convolution.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, pair(problem.dilation));
  convolution.finalize();
  return convolution;
}

PlanList list_plans(const ConvolutionProblem& p, Device device) {
  const AttributeNames names = names_of(p.kind);
  Descriptor operation(names.operation);
  operation.set(names.convolution, convolution_descriptor(p));
  operation.set(names.image, tensor_descriptor(kImageId, p.image, p.image_strides, p.dtype));
  operation.set(names.filter, tensor_descriptor(kFilterId, p.filter, p.filter_strides, p.dtype));
  operation.set(names.response,
                tensor_descriptor(kResponseId, p.response, p.response_strides, p.dtype));
  operation.set(names.alpha, 1.0);
  operation.set(names.beta, 0.0);
  operation.finalize();
  const bool strict = p.dtype == DType::Float32 && p.precision == Float32Precision::Float32;
  return PlanList(device, {&operation, 1}, {.allow_tensor_cores_for_float32 = !strict});
}

void execute(const Plan& plan, const Operands& operands) {
  const std::int64_t ids[] = {kImageId, kFilterId, kResponseId};
  void* const data[] = {operands.image, operands.filter, operands.response};
  std::shared_ptr<Storage> workspace;
  if (plan.workspace_bytes() > 0) {
    workspace =
        Storage::allocate(static_cast<std::size_t>(plan.workspace_bytes()), operands.device);
  }
  plan.execute(operands.device, ids, data, workspace == nullptr ? nullptr : workspace->data());
}

/// Median of `repeats` runs in milliseconds; infinite when the plan fails.
double time_plan(const Plan& plan, const Operands& operands, int repeats) {
  try {
    execute(plan, operands);
    std::vector<double> times;
    for (int i = 0; i < repeats; ++i) {
      Event begin(operands.device);
      Event end(operands.device);
      begin.record();
      execute(plan, operands);
      end.record();
      times.push_back(begin.elapsed_ms(end));
    }
    std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
    return times[static_cast<std::size_t>(repeats / 2)];
  } catch (const Error&) {
    return std::numeric_limits<double>::infinity();
  }
}

/// Every plan that can run within the workspace limit, in the heuristics' order.
std::vector<std::unique_ptr<Plan>> build_all(const PlanList& list) {
  std::vector<std::unique_ptr<Plan>> plans;
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto plan = list.build(i);
    if (plan != nullptr && plan->workspace_bytes() <= kMostWorkspaceBytes) {
      plans.push_back(std::move(plan));
    }
  }
  return plans;
}

/// A problem's plan, and whether it is the fastest or only the first.
struct CacheEntry {
  std::unique_ptr<Plan> plan;
  bool tuned = false;
};

std::unique_ptr<Plan> first_plan(const PlanList& list) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto plan = list.build(i);
    if (plan != nullptr && plan->workspace_bytes() <= kMostWorkspaceBytes) return plan;
  }
  return nullptr;
}

std::unique_ptr<Plan> fastest_plan(const PlanList& list, const Operands& operands) {
  constexpr int kRepeats = 3;
  std::unique_ptr<Plan> best;
  double best_time = std::numeric_limits<double>::infinity();
  for (auto& plan : build_all(list)) {
    const double time = time_plan(*plan, operands, kRepeats);
    if (time < best_time) {
      best_time = time;
      best = std::move(plan);
    }
  }
  return best;
}

/// The plan for `problem` from this thread's cache, made when missing. Plans belong to a handle,
/// and handles to a thread.
const Plan& plan_for(const ConvolutionProblem& problem, const Operands& operands) {
  thread_local std::map<std::string, CacheEntry> cache;
  CacheEntry& entry = cache[operands.device.to_string() + ' ' + problem.key()];
  const bool tune = tuning_enabled();
  if (entry.plan == nullptr || (tune && !entry.tuned)) {
    const PlanList list = list_plans(problem, operands.device);
    entry.plan = tune ? fastest_plan(list, operands) : first_plan(list);
    entry.tuned = tune;
    TENON_CHECK(entry.plan != nullptr, "cudnn: no plan for the convolution ", problem.key());
  }
  return *entry.plan;
}

}  // namespace

ConvolutionProblem ConvolutionProblem::of(ConvolutionKind kind, const Tensor& image,
                                          const Tensor& filter, const Tensor& response,
                                          const Conv2dOptions& options) {
  return {kind,
          image.dtype(),
          float32_precision(),
          image.shape(),
          image.strides(),
          filter.shape(),
          filter.strides(),
          response.shape(),
          response.strides(),
          options.stride,
          options.padding,
          options.dilation};
}

std::string ConvolutionProblem::key() const {
  constexpr const char* kKinds[] = {"forward", "data_gradient", "weight_gradient"};
  std::ostringstream out;
  out << kKinds[static_cast<int>(kind)] << ' ' << dtype;
  if (dtype == DType::Float32) out << '/' << precision;
  out << " image " << image << image_strides << " filter " << filter << filter_strides
      << " response " << response << response_strides << " stride " << stride << " padding "
      << padding << " dilation " << dilation;
  return out.str();
}

void run_convolution(const ConvolutionProblem& problem, const Tensor& image, const Tensor& filter,
                     const Tensor& response) {
  const tenon::cuda::DeviceGuard guard(image.device());
  const Operands operands(image, filter, response);
  execute(plan_for(problem, operands), operands);
}

std::vector<PlanTiming> time_all_plans(const ConvolutionProblem& problem, const Tensor& image,
                                       const Tensor& filter, const Tensor& response, int repeats) {
  const tenon::cuda::DeviceGuard guard(image.device());
  const Operands operands(image, filter, response);
  std::vector<PlanTiming> timings;
  for (const auto& plan : build_all(list_plans(problem, image.device()))) {
    timings.push_back(
        {plan->description(), time_plan(*plan, operands, repeats), plan->workspace_bytes()});
  }
  std::sort(timings.begin(), timings.end(), [](const PlanTiming& a, const PlanTiming& b) {
    return a.milliseconds < b.milliseconds;
  });
  return timings;
}

}  // namespace tenon::ops::cuda
