#include "tenon/ops/cuda/cudnn_conv.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <sstream>
#include <unordered_map>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/stream.h"
#include "tenon/core/tuning.h"
#include "tenon/ops/cuda/cudnn_graph.h"
#include "tenon/ops/tuning_cache.h"

namespace tenon::ops::cuda {
namespace {

// The plans on disk know the tensors by these numbers: other numbers need another file.
constexpr const char* kPlanFile = "cudnn_plans.json";
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

/// Which plans compute `problem` as exactly as its precision promises.
PlanFilter filter_for(const ConvolutionProblem& problem) {
  const bool strict =
      problem.dtype == DType::Float32 && problem.precision == Float32Precision::Float32;
  return {.allow_tensor_cores_for_float32 = !strict,
          .allow_transforms = !strict && problem.dtype != DType::Float64};
}

PlanList list_plans(const ConvolutionProblem& p, Device device) {
  const AttributeNames names = names_of(p.kind);
  Descriptor operation(names.operation);
  operation.set(names.convolution, convolution_descriptor(p));
  operation.set(names.image, tensor_descriptor(kImageId, p.image, p.image_strides, p.dtype));
  operation.set(names.filter, tensor_descriptor(kFilterId, p.filter, p.filter_strides, p.dtype));
  operation.set(names.response,
                tensor_descriptor(kResponseId, p.response, p.response_strides, p.dtype));
  // In the type that the convolution computes in: cuDNN reads them as that, whatever was set.
  if (p.dtype == DType::Float64) {
    operation.set(names.alpha, 1.0);
    operation.set(names.beta, 0.0);
  } else {
    operation.set(names.alpha, 1.0F);
    operation.set(names.beta, 0.0F);
  }
  operation.finalize();
  return PlanList(device, {&operation, 1}, filter_for(p));
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

bool fits(const std::unique_ptr<Plan>& plan) {
  return plan != nullptr && plan->workspace_bytes() <= kMostWorkspaceBytes;
}

/// Every plan that can run within the workspace limit, in the heuristics' order.
std::vector<std::unique_ptr<Plan>> build_all(const PlanList& list) {
  std::vector<std::unique_ptr<Plan>> plans;
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto plan = list.build(i);
    if (fits(plan)) plans.push_back(std::move(plan));
  }
  return plans;
}

std::unique_ptr<Plan> first_plan(const PlanList& list) {
  for (std::size_t i = 0; i < list.size(); ++i) {
    auto plan = list.build(i);
    if (fits(plan)) return plan;
  }
  return nullptr;
}

/// A plan and what it took.
struct TimedPlan {
  std::unique_ptr<Plan> plan;
  double milliseconds = std::numeric_limits<double>::infinity();
};

bool faster(const TimedPlan& a, const TimedPlan& b) { return a.milliseconds < b.milliseconds; }

/// Times all plans roughly and the best few again more exactly; no plan when none can run.
TimedPlan fastest_plan(const PlanList& list, const Operands& operands) {
  constexpr int kRoughRepeats = 3;
  constexpr double kHopeless = 2;  // times the best so far: timed once is enough
  constexpr int kExactRepeats = 15;
  constexpr std::size_t kFinalists = 3;
  std::vector<TimedPlan> candidates;
  double fastest = std::numeric_limits<double>::infinity();
  for (auto& plan : build_all(list)) {
    double time = time_plan(*plan, operands, 1);
    if (time == std::numeric_limits<double>::infinity()) continue;
    if (time < kHopeless * fastest) time = time_plan(*plan, operands, kRoughRepeats);
    fastest = std::min(fastest, time);
    candidates.push_back({std::move(plan), time});
  }
  if (candidates.empty()) return {};
  std::sort(candidates.begin(), candidates.end(), faster);
  candidates.resize(std::min(candidates.size(), kFinalists));
  for (TimedPlan& candidate : candidates) {
    candidate.milliseconds = time_plan(*candidate.plan, operands, kExactRepeats);
  }
  return std::move(*std::min_element(candidates.begin(), candidates.end(), faster));
}

/// What a measured choice is valid for, besides the problem.
std::string hardware_name(Device device) {
  cudaDeviceProp properties;
  TENON_CUDA_CHECK(cudaGetDeviceProperties(&properties, device.index()));
  return std::string(properties.name) + ", cuDNN " + std::to_string(cudnnGetVersion());
}

/// The fastest plan, from the disk when it was found before.
std::unique_ptr<Plan> tuned_plan(const ConvolutionProblem& problem, const Operands& operands) {
  static TuningCache disk(cache_directory().empty() ? cache_directory()
                                                    : cache_directory() / kPlanFile);
  const std::string hardware = hardware_name(operands.device);
  const std::string key = problem.key();
  if (const auto found = disk.find(hardware, key)) {
    const auto json = found->find("plan");
    if (json != found->end()) {
      auto plan = Plan::from_json(operands.device, json->second, filter_for(problem));
      if (fits(plan)) return plan;
    }
  }
  TimedPlan best = fastest_plan(list_plans(problem, operands.device), operands);
  if (best.plan == nullptr) return nullptr;
  if (const std::string json = best.plan->to_json(); !json.empty()) {
    disk.store(hardware, key,
               {{"plan", json},
                {"engine", best.plan->name()},
                {"milliseconds", std::to_string(best.milliseconds)}});
  }
  return std::move(best.plan);
}

struct CacheKey {
  int device;
  ConvolutionProblem problem;

  bool operator==(const CacheKey&) const = default;
};

struct HashCacheKey {
  std::size_t operator()(const CacheKey& key) const {
    std::uint64_t hash = 0;
    const auto mix = [&](auto value) {
      hash = (hash ^ static_cast<std::uint64_t>(value)) * 0x9E3779B97F4A7C15U;
      hash ^= hash >> 32;
    };
    const ConvolutionProblem& p = key.problem;
    mix(key.device);
    mix(p.kind);
    mix(p.dtype);
    mix(p.precision);
    for (const Shape* shape : {&p.image, &p.image_strides, &p.filter, &p.filter_strides,
                               &p.response, &p.response_strides}) {
      for (const std::int64_t value : *shape) mix(value);
    }
    for (const Pair& pair : {p.stride, p.padding, p.dilation}) {
      mix(pair.h);
      mix(pair.w);
    }
    return hash;
  }
};

/// A problem's plan, and whether it is the fastest or only the first.
struct CacheEntry {
  std::unique_ptr<Plan> plan;
  bool tuned = false;
};

/// This thread's plans: plans belong to a handle, and handles to a thread.
std::unordered_map<CacheKey, CacheEntry, HashCacheKey>& plan_cache() {
  thread_local std::unordered_map<CacheKey, CacheEntry, HashCacheKey> cache;
  return cache;
}

/// The plan for `problem` from this thread's cache, made when missing.
const Plan& plan_for(const ConvolutionProblem& problem, const Operands& operands) {
  CacheEntry& entry = plan_cache()[{operands.device.index(), problem}];
  const bool tune = tuning_enabled();
  if (entry.plan == nullptr || (tune && !entry.tuned)) {
    entry.plan =
        tune ? tuned_plan(problem, operands) : first_plan(list_plans(problem, operands.device));
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

std::string plan_in_use(const ConvolutionProblem& problem, Device device) {
  const auto found = plan_cache().find({device.index(), problem});
  if (found == plan_cache().end() || found->second.plan == nullptr) return {};
  return found->second.plan->name();
}

std::vector<std::unique_ptr<Plan>> convolution_plans(const ConvolutionProblem& problem,
                                                     Device device) {
  const tenon::cuda::DeviceGuard guard(device);
  return build_all(list_plans(problem, device));
}

void run_plan(const Plan& plan, const Tensor& image, const Tensor& filter, const Tensor& response) {
  const tenon::cuda::DeviceGuard guard(image.device());
  execute(plan, Operands(image, filter, response));
}

}  // namespace tenon::ops::cuda
