// cuDNN's graph API (backend descriptors) as values: describe tensors and operations, ask for the
// plans that can run them, execute one. Reference: NVIDIA cuDNN documentation, "Graph API".
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tenon/core/tensor.h"

namespace tenon::ops::cuda {

/// Throws `Error` with `call` and cuDNN's words for `status` unless that is success.
void check(cudnnStatus_t status, std::string_view call);

/// This thread's cuDNN handle for `device`, bound to the current stream.
cudnnHandle_t cudnn_handle(Device device);

/// One backend descriptor: attributes are set, then it is finalized and can be used by others.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);

  void set(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values);
  void set(cudnnBackendAttributeName_t name, std::int64_t value) { set(name, {&value, 1}); }
  void set(cudnnBackendAttributeName_t name, bool value);
  void set(cudnnBackendAttributeName_t name, float value);
  void set(cudnnBackendAttributeName_t name, double value);
  void set(cudnnBackendAttributeName_t name, cudnnDataType_t value);
  void set(cudnnBackendAttributeName_t name, cudnnConvolutionMode_t value);
  void set(cudnnBackendAttributeName_t name, cudnnPointwiseMode_t value);
  void set(cudnnBackendAttributeName_t name, cudnnBackendHeurMode_t value);
  void set(cudnnBackendAttributeName_t name, cudnnHandle_t value);
  void set(cudnnBackendAttributeName_t name, const Descriptor& value);
  void set(cudnnBackendAttributeName_t name, std::span<const Descriptor> values);
  void set(cudnnBackendAttributeName_t name, std::span<void* const> values);
  void set(cudnnBackendAttributeName_t name, std::string_view text);
  /// Completes the descriptor; throws `Error` when cuDNN refuses it.
  void finalize();
  /// The same without throwing: false when cuDNN refuses it.
  bool try_finalize();

  cudnnBackendDescriptor_t get() const { return handle_.get(); }

 private:
  void set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
               std::int64_t count, const void* values);

  std::shared_ptr<std::remove_pointer_t<cudnnBackendDescriptor_t>> handle_;
};

/// `dtype` in cuDNN's words.
cudnnDataType_t cudnn_type(DType dtype);

/// A tensor of the graph; `id` names it when data is bound. A virtual one exists inside the fused
/// kernel only.
Descriptor tensor_descriptor(std::int64_t id, const Shape& shape, const Strides& strides,
                             DType dtype, bool is_virtual = false);

/// Which plans are acceptable.
struct PlanFilter {
  bool allow_tensor_cores_for_float32 = true;  ///< TF32; off for true float32
  /// Winograd's transforms and the FFT, which lose digits to cancellation; off where every digit of
  /// the dtype is asked for
  bool allow_transforms = true;
};

/// A compiled graph, ready to run.
class Plan {
 public:
  /// The plan whose `to_json` gave `json`, made without asking the heuristics. Null when cuDNN does
  /// not take it, because the text is damaged or of another GPU or version of cuDNN, and when
  /// `filter` does not.
  static std::unique_ptr<Plan> from_json(Device device, std::string_view json,
                                         const PlanFilter& filter);

  std::int64_t workspace_bytes() const { return workspace_bytes_; }
  /// cuDNN's engine and its knobs, for people: "engine 37 (k2=1 k5=3)".
  std::string name() const;
  /// All that makes this plan, in cuDNN's own words; empty when cuDNN does not tell.
  std::string to_json() const;
  /// Runs on the current stream; `data[i]` is bound to the tensor with id `ids[i]`.
  void execute(Device device, std::span<const std::int64_t> ids, std::span<void* const> data,
               void* workspace) const;

 private:
  friend class PlanList;
  /// Of a finalized plan descriptor.
  explicit Plan(Descriptor descriptor);

  Descriptor descriptor_;
  std::int64_t workspace_bytes_ = 0;
};

/// The engine configurations that cuDNN's heuristics list for a graph of operations, best guess
/// first; deterministic ones only. Each becomes a plan when asked for.
class PlanList {
 public:
  PlanList(Device device, std::span<const Descriptor> operations, const PlanFilter& filter);

  std::size_t size() const { return configurations_.size(); }
  /// Builds plan `i`; null when cuDNN finds that it cannot run after all.
  std::unique_ptr<Plan> build(std::size_t i) const;

 private:
  void append(const Descriptor& graph, cudnnBackendHeurMode_t mode, const PlanFilter& filter);

  Device device_;
  std::vector<Descriptor> configurations_;
};

}  // namespace tenon::ops::cuda

/// Runs a call of cuDNN and throws `tenon::Error` naming it when it fails.
#define TENON_CUDNN_CHECK(call) ::tenon::ops::cuda::check((call), #call)
