// Tensor: a handle to a strided array that knows how it was computed.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "tenon/core/device.h"
#include "tenon/core/dtype.h"
#include "tenon/core/memory.h"
#include "tenon/core/memory_format.h"
#include "tenon/core/shape.h"

namespace tenon {

class Node;
namespace detail {
struct TensorBody;
}

/// Shape, dtype and device: all that is known of a tensor before it is computed.
struct TensorSpec {
  Shape shape;
  DType dtype = DType::Float32;
  Device device = Device::cpu();

  bool operator==(const TensorSpec&) const = default;
};

/// "float32[2, 3]", with "@cuda:0" behind it off the CPU.
std::ostream& operator<<(std::ostream& out, const TensorSpec& spec);

/// A value-typed handle, cheap to copy: copies share the elements, the gradient and the history.
/// A default-constructed one is undefined and may only be asked `defined()`.
///
/// Constness is that of the handle, as in PyTorch: the elements of a `const Tensor` can be written.
/// Every method that has a gradient runs through `call` (core/op.h) and can so be traced.
class Tensor {
 public:
  Tensor() = default;

  bool defined() const { return body_ != nullptr; }
  const Shape& shape() const;
  /// In elements; 0 where a dimension was expanded. Not known in a trace: throws `Error` there.
  const Strides& strides() const;
  /// Size of dimension `dim`, which may count from the back.
  std::int64_t size(std::int64_t dim) const;
  /// Number of dimensions.
  std::size_t dim() const { return shape().size(); }
  std::int64_t numel() const;
  DType dtype() const;
  Device device() const;
  TensorSpec spec() const;
  /// True when the elements lie in the order of `format` without gaps. Not known in a trace: throws
  /// `Error` there, and so does `suggest_memory_format`.
  bool is_contiguous(MemoryFormat format = MemoryFormat::Contiguous) const;
  /// The format that results computed from this tensor should have.
  MemoryFormat suggest_memory_format() const;
  /// True for the shape-only tensors that a trace hands out: they have no elements.
  bool is_traced() const;
  /// True when both handles are the same tensor (not merely equal).
  bool is_same(const Tensor& other) const { return body_ == other.body_; }

  // ---- elements ---------------------------------------------------------------------------------

  /// First element, with the view's offset applied. The device must be the CPU for the host to
  /// read it. Writing through the pointer is not noticed: call `bump_version` afterwards when the
  /// tensor has been used before. Throws `Error` when `T` is not the dtype or the tensor is traced.
  template <class T>
  T* data() const {
    return static_cast<T*>(checked_data(dtype_of<T>));
  }
  /// The same without the type check, for kernels that dispatch on `dtype()`.
  void* raw_data() const;
  /// The value of a tensor of one element, converted to `T`. Waits for the device.
  template <class T = double>
  T item() const {
    const Scalar value = item_scalar();
    if constexpr (std::is_same_v<T, bool>) {
      return value.to_double() != 0;
    } else if constexpr (std::is_floating_point_v<T>) {
      return static_cast<T>(value.to_double());
    } else {
      return static_cast<T>(value.to_int64());
    }
  }
  /// All elements in row-major order, converted to `T` (bool, uint8_t, int64_t, float or double).
  template <class T>
  std::vector<T> to_vector() const;

  // ---- views: no elements are copied ------------------------------------------------------------

  /// [..] -> `shape`, where one size may be -1 and is computed. A view where the strides allow it,
  /// otherwise a copy.
  Tensor reshape(const Shape& shape) const;
  /// Joins dimensions `first` to `last` (inclusive).
  Tensor flatten(std::int64_t first = 0, std::int64_t last = -1) const;
  /// Dimension i of the result is dimension `dims[i]` of this tensor.
  Tensor permute(const Shape& dims) const;
  Tensor transpose(std::int64_t dim0, std::int64_t dim1) const;
  /// Elements start, start + step, … below `end` of `dim`; `start` and `end` may count from the
  /// back and are clamped, as in Python. `step` is at least 1.
  Tensor slice(std::int64_t dim, std::int64_t start, std::int64_t end = INT64_MAX,
               std::int64_t step = 1) const;
  /// `length` elements of `dim` from `start`. Throws `Error` when they are not all there.
  Tensor narrow(std::int64_t dim, std::int64_t start, std::int64_t length) const;
  /// Element `index` of `dim`, which disappears.
  Tensor select(std::int64_t dim, std::int64_t index) const;
  /// Repeats dimensions of size 1, and adds leading ones, without copying; -1 keeps a size.
  Tensor expand(const Shape& shape) const;
  /// Removes `dim` if its size is 1.
  Tensor squeeze(std::int64_t dim) const;
  /// Removes all dimensions of size 1.
  Tensor squeeze() const;
  /// Adds a dimension of size 1 before `dim`.
  Tensor unsqueeze(std::int64_t dim) const;
  /// The same elements without the history: no gradient flows through it.
  Tensor detach() const;

  // ---- copies -----------------------------------------------------------------------------------

  /// This tensor when its elements lie in that order already, otherwise a copy whose do. Throws
  /// `Error` for channels-last of other than 4 dimensions, and for `Preserve`.
  Tensor contiguous(MemoryFormat format = MemoryFormat::Contiguous) const;
  /// A copy, by default with the dimensions in the same order in memory.
  Tensor clone(MemoryFormat format = MemoryFormat::Preserve) const;
  /// This tensor when nothing changes, otherwise a converted copy with the dimensions in the same
  /// order in memory.
  Tensor to(DType dtype) const;
  Tensor to(Device device) const;
  Tensor to(Device device, DType dtype) const;
  /// This tensor when that is the format it suggests, otherwise a copy in that format. Other than
  /// `contiguous`, it leaves a tensor with gaps as it is, and makes a copy whose strides say
  /// channels-last also where a size of 1 lets it be either.
  Tensor to(MemoryFormat format) const;

  // ---- in place: each bumps the version, which autograd and `derived` (core/derived.h) check
  // ------ They throw `Error` on a tensor whose gradient is being recorded: use `NoGradGuard` for a
  // leaf.

  /// Overwrites the elements with those of `source`, broadcast and converted.
  const Tensor& copy_(const Tensor& source) const;
  const Tensor& fill_(Scalar value) const;
  const Tensor& zero_() const { return fill_(0); }
  /// Makes this tensor have the elements, shape, dtype and device of `other` while it stays the
  /// same leaf: how a module's parameters move to another device without the optimizer noticing.
  const Tensor& set_data(const Tensor& other) const;
  /// How often the memory that this tensor shares with its views was changed in place.
  std::uint32_t version() const;
  /// Says that work on `stream`, not the one that the memory was allocated on, uses the elements,
  /// so that their memory is not given to others before that work is done.
  const Tensor& record_stream(const Stream& stream) const;
  /// Says that the elements were changed behind Tenon's back, through `data` or `raw_data`.
  const Tensor& bump_version() const;

  // ---- autograd ---------------------------------------------------------------------------------

  bool requires_grad() const;
  /// Asks for a gradient of this leaf. Throws `Error` for a tensor that was computed, or whose
  /// dtype is not floating.
  const Tensor& requires_grad_(bool value = true) const;
  /// True unless an op computed this tensor with gradients on.
  bool is_leaf() const;
  /// The accumulated gradient; undefined before the first `backward`.
  Tensor grad() const;
  void set_grad(const Tensor& grad) const;
  /// Keeps the gradient of a tensor that is not a leaf, for `grad()` to give after `backward`.
  const Tensor& retain_grad() const;
  /// Calls `hook` with this tensor's gradient during `backward`; what it returns, when defined,
  /// takes its place. The number returned is for `remove_hook`.
  std::size_t register_hook(std::function<Tensor(const Tensor&)> hook) const;
  void remove_hook(std::size_t id) const;
  /// Computes the gradients of this tensor with respect to the leaves and adds them to their
  /// `grad()`. `gradient` may be left out for a tensor of one element. The history is freed on the
  /// way unless `retain_graph`; with `create_graph`, which implies it, the gradients
  /// have a history of their own.
  void backward(const Tensor& gradient = {}, bool retain_graph = false,
                bool create_graph = false) const;

  /// The shared state; for core itself.
  const std::shared_ptr<detail::TensorBody>& body() const { return body_; }
  explicit Tensor(std::shared_ptr<detail::TensorBody> body) : body_(std::move(body)) {}

 private:
  void* checked_data(DType expected) const;
  Scalar item_scalar() const;

  std::shared_ptr<detail::TensorBody> body_;
};

/// Prints the values as PyTorch does, large tensors with their middles left out.
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

}  // namespace tenon
