#include "tenon/ops/cuda/cudnn_graph.h"

#include <algorithm>
#include <array>
#include <map>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/error.h"

namespace tenon::ops::cuda {
namespace {

using tenon::cuda::DeviceGuard;

struct DestroyHandle {
  void operator()(cudnnHandle_t handle) const { cudnnDestroy(handle); }
};
using Handle = std::unique_ptr<std::remove_pointer_t<cudnnHandle_t>, DestroyHandle>;

/// How many attributes of a kind an engine has at most; cuDNN says how many it wrote.
constexpr std::int64_t kMostNotes = 16;
constexpr std::int64_t kMostConfigurations = 128;

/// True when the engine of `configuration` has the numerical note `note`.
class Notes {
 public:
  explicit Notes(const Descriptor& configuration) {
    Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendDescriptor_t handle = engine.get();
    std::int64_t count = 0;
    TENON_CUDNN_CHECK(cudnnBackendGetAttribute(configuration.get(), CUDNN_ATTR_ENGINECFG_ENGINE,
                                               CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &handle));
    TENON_CUDNN_CHECK(cudnnBackendGetAttribute(handle, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                               CUDNN_TYPE_NUMERICAL_NOTE, kMostNotes, &count_,
                                               notes_.data()));
  }

  bool has(cudnnBackendNumericalNote_t note) const {
    return std::find(notes_.begin(), notes_.begin() + count_, note) != notes_.begin() + count_;
  }

 private:
  std::array<cudnnBackendNumericalNote_t, kMostNotes> notes_{};
  std::int64_t count_ = 0;
};

std::string description_of(const Descriptor& plan) {
  std::int64_t length = 0;
  if (cudnnBackendGetAttribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                               CUDNN_TYPE_CHAR, 0, &length, nullptr) != CUDNN_STATUS_SUCCESS) {
    return {};
  }
  std::string text(static_cast<std::size_t>(length), '\0');
  if (cudnnBackendGetAttribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                               CUDNN_TYPE_CHAR, length, &length,
                               text.data()) != CUDNN_STATUS_SUCCESS) {
    return {};
  }
  return text;
}

}  // namespace

void check(cudnnStatus_t status, std::string_view call) {
  if (status == CUDNN_STATUS_SUCCESS) [[likely]]
    return;
  std::array<char, 1024> message{};
  cudnnGetLastErrorString(message.data(), message.size());
  tenon::detail::fail(tenon::detail::concat(
      "cudnn: ", call, " failed: ", cudnnGetErrorString(status), ' ', message.data()));
}

cudnnHandle_t cudnn_handle(Device device) {
  thread_local std::map<int, Handle> handles;
  Handle& handle = handles[device.index()];
  if (handle == nullptr) {
    const DeviceGuard guard(device);
    cudnnHandle_t created = nullptr;
    TENON_CUDNN_CHECK(cudnnCreate(&created));
    handle.reset(created);
  }
  TENON_CUDNN_CHECK(cudnnSetStream(handle.get(), tenon::cuda::current_stream(device)));
  return handle.get();
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t created = nullptr;
  TENON_CUDNN_CHECK(cudnnBackendCreateDescriptor(type, &created));
  handle_.reset(created,
                [](cudnnBackendDescriptor_t handle) { cudnnBackendDestroyDescriptor(handle); });
}

void Descriptor::set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                         std::int64_t count, const void* values) {
  TENON_CUDNN_CHECK(cudnnBackendSetAttribute(get(), name, type, count, values));
}

void Descriptor::set(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values) {
  set_raw(name, CUDNN_TYPE_INT64, static_cast<std::int64_t>(values.size()), values.data());
}
void Descriptor::set(cudnnBackendAttributeName_t name, bool value) {
  set_raw(name, CUDNN_TYPE_BOOLEAN, 1, &value);
}
void Descriptor::set(cudnnBackendAttributeName_t name, double value) {
  set_raw(name, CUDNN_TYPE_DOUBLE, 1, &value);
}
void Descriptor::set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
  set_raw(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}
void Descriptor::set(cudnnBackendAttributeName_t name, cudnnConvolutionMode_t value) {
  set_raw(name, CUDNN_TYPE_CONVOLUTION_MODE, 1, &value);
}
void Descriptor::set(cudnnBackendAttributeName_t name, cudnnPointwiseMode_t value) {
  set_raw(name, CUDNN_TYPE_POINTWISE_MODE, 1, &value);
}
void Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendHeurMode_t value) {
  set_raw(name, CUDNN_TYPE_HEUR_MODE, 1, &value);
}
void Descriptor::set(cudnnBackendAttributeName_t name, cudnnHandle_t value) {
  set_raw(name, CUDNN_TYPE_HANDLE, 1, &value);
}
void Descriptor::set(cudnnBackendAttributeName_t name, const Descriptor& value) {
  set(name, std::span<const Descriptor>(&value, 1));
}
void Descriptor::set(cudnnBackendAttributeName_t name, std::span<const Descriptor> values) {
  std::vector<cudnnBackendDescriptor_t> handles;
  for (const Descriptor& value : values) handles.push_back(value.get());
  set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<std::int64_t>(handles.size()),
          handles.data());
}
void Descriptor::set(cudnnBackendAttributeName_t name, std::span<void* const> values) {
  set_raw(name, CUDNN_TYPE_VOID_PTR, static_cast<std::int64_t>(values.size()), values.data());
}

void Descriptor::finalize() { TENON_CUDNN_CHECK(cudnnBackendFinalize(get())); }

bool Descriptor::try_finalize() { return cudnnBackendFinalize(get()) == CUDNN_STATUS_SUCCESS; }

cudnnDataType_t cudnn_type(DType dtype) {
  switch (dtype) {
    case DType::Float32:
      return CUDNN_DATA_FLOAT;
    case DType::Float64:
      return CUDNN_DATA_DOUBLE;
    case DType::Float16:
      return CUDNN_DATA_HALF;
    case DType::BFloat16:
      return CUDNN_DATA_BFLOAT16;
    default:
      tenon::detail::fail(tenon::detail::concat("cudnn: no kernels for ", dtype));
  }
}

Descriptor tensor_descriptor(std::int64_t id, const Shape& shape, const Strides& strides,
                             DType dtype, bool is_virtual) {
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, cudnn_type(dtype));
  tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, std::int64_t{16});
  tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, {shape.begin(), shape.size()});
  tensor.set(CUDNN_ATTR_TENSOR_STRIDES, {strides.begin(), strides.size()});
  if (is_virtual) tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  tensor.finalize();
  return tensor;
}

void Plan::execute(Device device, std::span<const std::int64_t> ids, std::span<void* const> data,
                   void* workspace) const {
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, data);
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, std::span<void* const>(&workspace, 1));
  pack.finalize();
  TENON_CUDNN_CHECK(cudnnBackendExecute(cudnn_handle(device), descriptor_.get(), pack.get()));
}

PlanList::PlanList(Device device, std::span<const Descriptor> operations, const PlanFilter& filter)
    : device_(device) {
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, cudnn_handle(device));
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations);
  if (!graph.try_finalize()) return;
  append(graph, CUDNN_HEUR_MODE_A, filter);
  append(graph, CUDNN_HEUR_MODE_FALLBACK, filter);
}

void PlanList::append(const Descriptor& graph, cudnnBackendHeurMode_t mode,
                      const PlanFilter& filter) {
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
  if (!heuristics.try_finalize()) return;
  std::vector<Descriptor> found;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (std::int64_t i = 0; i < kMostConfigurations; ++i) {
    found.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    handles.push_back(found.back().get());
  }
  std::int64_t count = 0;
  TENON_CUDNN_CHECK(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, kMostConfigurations,
                                             &count, handles.data()));
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const Notes notes(found[i]);
    const bool too_coarse = !filter.allow_tensor_cores_for_float32 &&
                            (notes.has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) ||
                             notes.has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS));
    if (too_coarse || notes.has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) ||
        notes.has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) {
      continue;
    }
    configurations_.push_back(found[i]);
  }
}

std::unique_ptr<Plan> PlanList::build(std::size_t i) const {
  Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, cudnn_handle(device_));
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configurations_[i]);
  if (!plan.try_finalize()) return nullptr;
  std::int64_t bytes = 0;
  std::int64_t count = 0;
  TENON_CUDNN_CHECK(cudnnBackendGetAttribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                             CUDNN_TYPE_INT64, 1, &count, &bytes));
  std::string description = description_of(plan);
  return std::unique_ptr<Plan>(new Plan(std::move(plan), bytes, std::move(description)));
}

}  // namespace tenon::ops::cuda
