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

/// The single descriptor of kind `type` that is attribute `name` of `owner`.
Descriptor descriptor_in(const Descriptor& owner, cudnnBackendAttributeName_t name,
                         cudnnBackendDescriptorType_t type) {
  Descriptor result(type);
  cudnnBackendDescriptor_t handle = result.get();
  std::int64_t count = 0;
  TENON_CUDNN_CHECK(cudnnBackendGetAttribute(owner.get(), name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                             &count, &handle));
  return result;
}

std::int64_t integer_in(const Descriptor& owner, cudnnBackendAttributeName_t name) {
  std::int64_t value = 0;
  std::int64_t count = 0;
  TENON_CUDNN_CHECK(
      cudnnBackendGetAttribute(owner.get(), name, CUDNN_TYPE_INT64, 1, &count, &value));
  return value;
}

/// The choices that `configuration` makes among an engine's kernels: "k2=1 k5=3".
std::string knobs_text(const Descriptor& configuration) {
  std::vector<Descriptor> choices;
  std::vector<cudnnBackendDescriptor_t> handles;
  for (int i = 0; i < CUDNN_KNOB_TYPE_COUNTS; ++i) {
    choices.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
    handles.push_back(choices.back().get());
  }
  std::int64_t count = 0;
  TENON_CUDNN_CHECK(cudnnBackendGetAttribute(configuration.get(), CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, CUDNN_KNOB_TYPE_COUNTS,
                                             &count, handles.data()));
  std::string text;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    cudnnBackendKnobType_t knob{};
    std::int64_t one = 0;
    TENON_CUDNN_CHECK(cudnnBackendGetAttribute(handles[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE,
                                               CUDNN_TYPE_KNOB_TYPE, 1, &one, &knob));
    const std::int64_t value = integer_in(choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE);
    if (i > 0) text += ' ';
    text += 'k' + std::to_string(knob) + '=' + std::to_string(value);
  }
  return text;
}

/// What cuDNN notes about the arithmetic of the engine of `configuration`.
class Notes {
 public:
  explicit Notes(const Descriptor& configuration) {
    const Descriptor engine =
        descriptor_in(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    TENON_CUDNN_CHECK(cudnnBackendGetAttribute(engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
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

/// True for a plan of `configuration` whose results are the same in every run and as exact as
/// `filter` asks.
bool acceptable(const Descriptor& configuration, const PlanFilter& filter) {
  const Notes notes(configuration);
  if (notes.has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) ||
      notes.has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) {
    return false;
  }
  if (!filter.allow_tensor_cores_for_float32 &&
      (notes.has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE) ||
       notes.has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS))) {
    return false;
  }
  return filter.allow_transforms ||
         (!notes.has(CUDNN_NUMERICAL_NOTE_FFT) && !notes.has(CUDNN_NUMERICAL_NOTE_WINOGRAD) &&
          !notes.has(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4) &&
          !notes.has(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6) &&
          !notes.has(CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13));
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
void Descriptor::set(cudnnBackendAttributeName_t name, float value) {
  set_raw(name, CUDNN_TYPE_FLOAT, 1, &value);
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

void Descriptor::set(cudnnBackendAttributeName_t name, std::string_view text) {
  set_raw(name, CUDNN_TYPE_CHAR, static_cast<std::int64_t>(text.size()), text.data());
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

Plan::Plan(Descriptor descriptor)
    : descriptor_(std::move(descriptor)),
      workspace_bytes_(integer_in(descriptor_, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)) {}

std::unique_ptr<Plan> Plan::from_json(Device device, std::string_view json,
                                      const PlanFilter& filter) {
  try {
    Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, json);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, cudnn_handle(device));
    if (!plan.try_finalize()) return nullptr;
    const Descriptor configuration = descriptor_in(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                                   CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (!acceptable(configuration, filter)) return nullptr;
    return std::unique_ptr<Plan>(new Plan(std::move(plan)));
  } catch (const Error&) {
    return nullptr;
  }
}

std::string Plan::name() const {
  try {
    const Descriptor configuration = descriptor_in(
        descriptor_, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    const Descriptor engine =
        descriptor_in(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    return "engine " + std::to_string(integer_in(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX)) + " (" +
           knobs_text(configuration) + ")";
  } catch (const Error&) {
    return "an engine that cuDNN does not name";
  }
}

std::string Plan::to_json() const {
  constexpr auto kName = CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
  std::int64_t length = 0;
  const auto read = [&](std::int64_t room, char* text) {
    return cudnnBackendGetAttribute(descriptor_.get(), kName, CUDNN_TYPE_CHAR, room, &length,
                                    text) == CUDNN_STATUS_SUCCESS;
  };
  if (!read(0, nullptr)) return {};
  std::string text(static_cast<std::size_t>(length), '\0');
  if (!read(length, text.data())) return {};
  text.erase(std::find(text.begin(), text.end(), '\0'), text.end());
  return text;
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
    if (acceptable(found[i], filter)) configurations_.push_back(found[i]);
  }
}

std::unique_ptr<Plan> PlanList::build(std::size_t i) const {
  Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, cudnn_handle(device_));
  plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configurations_[i]);
  if (!plan.try_finalize()) return nullptr;
  return std::unique_ptr<Plan>(new Plan(std::move(plan)));
}

}  // namespace tenon::ops::cuda
