// What a Tensor handle points to. Internal to core and to those who write kernels.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tenon/core/recycled.h"
#include "tenon/core/tensor.h"

namespace tenon {

/// One output of a tape node: where a tensor's gradient goes.
struct Edge {
  std::shared_ptr<Node> node;
  std::size_t output = 0;

  explicit operator bool() const { return node != nullptr; }
};

/// A gradient hook and the number it was registered under.
struct GradientHook {
  std::size_t id;
  std::function<Tensor(const Tensor&)> function;
};

/// A value of the graph being traced; the tracer derives its own.
class TracedValue {
 public:
  virtual ~TracedValue() = default;
};

namespace detail {

/// Autograd's part of a tensor; absent from tensors that never saw a gradient.
struct AutogradState {
  bool requires_grad = false;       // as a leaf; a computed tensor has a producer instead
  Edge producer;                    // the node that computed it
  std::weak_ptr<Node> accumulator;  // of a leaf: the node that adds to `grad`
  Tensor grad;
  std::vector<GradientHook> hooks;  // of a leaf; those of a computed tensor hang on its producer

  // A state comes and goes with every recorded op.
  static void* operator new(std::size_t) { return FreeBlocks<sizeof(AutogradState)>::take(); }
  static void operator delete(void* state) { FreeBlocks<sizeof(AutogradState)>::give(state); }
};

struct TensorBody {
  Shape shape;
  Strides strides;
  std::int64_t offset = 0;  // of the first element, in elements
  DType dtype = DType::Float32;
  Device device = Device::cpu();
  std::shared_ptr<Storage> storage;           // null in a traced tensor
  std::shared_ptr<const TracedValue> traced;  // non-null in a traced tensor
  std::unique_ptr<AutogradState> autograd;

  AutogradState& autograd_state() {
    if (autograd == nullptr) autograd = std::make_unique<AutogradState>();
    return *autograd;
  }
};

/// What `tensor` points to; throws `Error` when it is undefined.
TensorBody& body_of(const Tensor& tensor);

/// The memory that a dense tensor of `spec` takes. Throws `Error` naming `op` when a size is
/// negative or the count overflows.
std::size_t byte_count(const TensorSpec& spec, std::string_view op);
/// A tensor over `storage` without history.
Tensor make_tensor(std::shared_ptr<Storage> storage, const Shape& shape, const Strides& strides,
                   std::int64_t offset, DType dtype);
/// Another view of `base`'s storage without history.
Tensor make_view(const Tensor& base, const Shape& shape, const Strides& strides,
                 std::int64_t offset);
/// `tensor`, which has that format, with the strides that the format gives to dimensions of size 1
/// too: where a tensor could be in either format, they say which.
Tensor with_strides_of(const Tensor& tensor, MemoryFormat format);
/// Another handle to the same elements, without history.
Tensor without_history(const Tensor& tensor);
/// Uninitialised memory of that spec, contiguous or channels-last.
Tensor make_empty(const TensorSpec& spec, MemoryFormat format = MemoryFormat::Contiguous);
/// The same with these strides, which must be dense.
Tensor make_empty(const TensorSpec& spec, const Strides& strides);
/// Uninitialised memory for the result of an elementwise op on `inputs`, which broadcast to its
/// shape: in the order in which the inputs lie (`elementwise_strides`).
Tensor make_elementwise(const TensorSpec& spec, std::span<const Tensor> inputs);
/// A shape-only tensor standing for `value`.
Tensor make_traced(const TensorSpec& spec, std::shared_ptr<const TracedValue> value);

/// To be called by every method that changes `tensor` in place before it does: throws `Error`
/// naming `op` where the change would make a gradient wrong, or where elements share memory
/// (expanded dimensions), and bumps the version.
void begin_in_place(const Tensor& tensor, const char* op);
/// Says that the contents of `tensor`'s memory change: counts its version, which a `CapturedStep`
/// that is being recorded then does at every replay.
void bump_version(const Tensor& tensor);

}  // namespace detail
}  // namespace tenon
