#include "tenon/core/tensor.h"

#include <algorithm>
#include <array>
#include <ostream>

#include "tenon/core/autograd.h"
#include "tenon/core/half.h"
#include "tenon/core/kernels.h"
#include "tenon/core/recording.h"
#include "tenon/core/recycled.h"
#include "tenon/core/tensor_body.h"

namespace tenon {

std::ostream& operator<<(std::ostream& out, const TensorSpec& spec) {
  out << spec.dtype << spec.shape;
  if (!spec.device.is_cpu()) out << '@' << spec.device;
  return out;
}

namespace detail {
namespace {

Strides strides_of(MemoryFormat format, const Shape& shape) {
  return format == MemoryFormat::ChannelsLast ? channels_last_strides(shape)
                                              : contiguous_strides(shape);
}

}  // namespace

Tensor make_tensor(std::shared_ptr<Storage> storage, const Shape& shape, const Strides& strides,
                   std::int64_t offset, DType dtype) {
  auto body = make_recycled<TensorBody>();
  body->shape = shape;
  body->strides = strides;
  body->offset = offset;
  body->dtype = dtype;
  body->device = storage->device();
  body->storage = std::move(storage);
  return Tensor(std::move(body));
}

Tensor make_view(const Tensor& base, const Shape& shape, const Strides& strides,
                 std::int64_t offset) {
  return make_tensor(base.body()->storage, shape, strides, offset, base.dtype());
}

Tensor without_history(const Tensor& tensor) {
  return make_view(tensor, tensor.shape(), tensor.strides(), tensor.body()->offset);
}

std::size_t byte_count(const TensorSpec& spec, std::string_view op) {
  for (std::int64_t size : spec.shape) {
    TENON_CHECK(size >= 0, op, ": negative size in shape ", spec.shape);
  }
  const auto count = static_cast<std::size_t>(spec.shape.numel());
  std::size_t bytes = 0;
  TENON_CHECK(!__builtin_mul_overflow(count, item_size(spec.dtype), &bytes), op, ": ", spec,
              " takes more than 2^64 bytes");
  return bytes;
}

Tensor with_strides_of(const Tensor& tensor, MemoryFormat format) {
  const Strides strides = strides_of(format, tensor.shape());
  return strides == tensor.strides()
             ? tensor
             : make_view(tensor, tensor.shape(), strides, tensor.body()->offset);
}

Tensor make_empty(const TensorSpec& spec, MemoryFormat format) {
  return make_empty(spec, strides_of(format, spec.shape));
}

Tensor make_empty(const TensorSpec& spec, const Strides& strides) {
  const std::size_t bytes = byte_count(spec, "empty");
  return make_tensor(Storage::allocate(bytes, spec.device), spec.shape, strides, 0, spec.dtype);
}

Tensor make_elementwise(const TensorSpec& spec, std::span<const Tensor> inputs) {
  constexpr std::size_t kMostOperands = 8;
  std::array<OperandLayout, kMostOperands> layouts{};
  TENON_CHECK(inputs.size() <= kMostOperands, "elementwise: at most ", kMostOperands,
              " operands, got ", inputs.size());
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    layouts[k] = {&inputs[k].shape(), &inputs[k].strides()};
  }
  return make_empty(spec, elementwise_strides(spec.shape, std::span(layouts).first(inputs.size())));
}

Tensor make_traced(const TensorSpec& spec, std::shared_ptr<const TracedValue> value) {
  auto body = make_recycled<TensorBody>();
  body->shape = spec.shape;
  body->strides = contiguous_strides(spec.shape);
  body->dtype = spec.dtype;
  body->device = spec.device;
  body->traced = std::move(value);
  return Tensor(std::move(body));
}

TensorBody& body_of(const Tensor& tensor) {
  TENON_CHECK(tensor.defined(),
              "tensor: undefined (default-constructed, or a gradient that was "
              "never computed)");
  return *tensor.body();
}

}  // namespace detail

using detail::body_of;

const Shape& Tensor::shape() const { return body_of(*this).shape; }
const Strides& Tensor::strides() const {
  const detail::TensorBody& body = body_of(*this);
  TENON_CHECK(body.traced == nullptr,
              "tensor: a tensor being traced has a shape but no strides: its memory format is that "
              "of the inputs of each run; ask for one with contiguous() or to()");
  return body.strides;
}
std::int64_t Tensor::size(std::int64_t dim) const {
  TENON_CHECK(!shape().empty(), "size: a 0-dimensional tensor has no dimension ", dim);
  return shape()[normalize_dim(dim, shape().size(), "size")];
}
std::int64_t Tensor::numel() const { return shape().numel(); }
DType Tensor::dtype() const { return body_of(*this).dtype; }
Device Tensor::device() const { return body_of(*this).device; }
TensorSpec Tensor::spec() const { return {shape(), dtype(), device()}; }
bool Tensor::is_traced() const { return body_of(*this).traced != nullptr; }

bool Tensor::is_contiguous(MemoryFormat format) const {
  return has_format(shape(), strides(), format);
}

MemoryFormat Tensor::suggest_memory_format() const {
  return tenon::suggest_memory_format(shape(), strides());
}

void* Tensor::raw_data() const {
  const detail::TensorBody& body = body_of(*this);
  TENON_CHECK(body.traced == nullptr,
              "tensor: a tensor being traced has a shape but no values (do not read elements, call "
              "item() or print inside a compiled function)");
  return body.storage->data() + body.offset * static_cast<std::int64_t>(item_size(body.dtype));
}

void* Tensor::checked_data(DType expected) const {
  TENON_CHECK(dtype() == expected, "data: the tensor is ", dtype(), ", not ", expected);
  return raw_data();
}

Scalar Tensor::item_scalar() const {
  TENON_CHECK(numel() == 1, "item: the tensor must have one element, it is ", spec());
  const Tensor host = device().is_cpu() ? *this : detail::make_empty({{}, dtype(), Device::cpu()});
  if (!device().is_cpu()) kernels::copy(detail::make_view(*this, {}, {}, body_->offset), host);
  const void* element = host.raw_data();
  return visit_dtype(dtype(), [&]<class T>() -> Scalar {
    const T value = *static_cast<const T*>(element);
    if constexpr (std::is_arithmetic_v<T>) {
      return value;
    } else {
      return static_cast<float>(value);
    }
  });
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor host = detail::make_empty({shape(), dtype_of<T>, Device::cpu()});
  kernels::copy(*this, host);
  const T* first = host.data<T>();
  return std::vector<T>(first, first + host.numel());
}

template std::vector<bool> Tensor::to_vector<bool>() const;
template std::vector<std::uint8_t> Tensor::to_vector<std::uint8_t>() const;
template std::vector<std::int64_t> Tensor::to_vector<std::int64_t>() const;
template std::vector<float> Tensor::to_vector<float>() const;
template std::vector<double> Tensor::to_vector<double>() const;

std::uint32_t Tensor::version() const {
  const detail::TensorBody& body = body_of(*this);
  TENON_CHECK(body.traced == nullptr, "version: a tensor being traced has no elements to change");
  return body.storage->version();
}

// ---- in place -----------------------------------------------------------------------------------

void detail::begin_in_place(const Tensor& tensor, const char* op) {
  TENON_CHECK(!tensor.is_traced(), op, ": a tensor being traced cannot be changed in place");
  TENON_CHECK(!(grad_enabled() && tensor.requires_grad()), op,
              ": the tensor's gradient is being recorded, which a change in place would make "
              "wrong; use the op that returns a new tensor, or a NoGradGuard");
  for (std::size_t d = 0; d < tensor.dim(); ++d) {
    TENON_CHECK(tensor.strides()[d] != 0 || tensor.shape()[d] <= 1, op, ": dimension ", d, " of ",
                tensor.shape(),
                " is expanded, several elements share one place in memory; "
                "clone() the tensor first");
  }
  bump_version(tensor);
}

void detail::bump_version(const Tensor& tensor) {
  const std::shared_ptr<Storage>& storage = tensor.body()->storage;
  storage->bump_version();
  if (Recording* recording = Recording::current()) recording->note_change(storage);
}

const Tensor& Tensor::copy_(const Tensor& source) const {
  TENON_CHECK(!source.is_traced(), "copy_: the source is being traced and has no values");
  TENON_CHECK(broadcast_shapes(shape(), source.shape(), "copy_") == shape(), "copy_: the source ",
              source.shape(), " does not broadcast to ", shape());
  detail::begin_in_place(*this, "copy_");
  kernels::copy(source, *this);
  return *this;
}

const Tensor& Tensor::fill_(Scalar value) const {
  detail::begin_in_place(*this, "fill_");
  kernels::fill(*this, value);
  return *this;
}

const Tensor& Tensor::record_stream(const Stream& stream) const {
  const detail::TensorBody& body = body_of(*this);
  TENON_CHECK(body.traced == nullptr, "record_stream: a tensor being traced has no memory");
  TENON_CHECK(stream.device() == body.device, "record_stream: the tensor is on ", body.device,
              ", the stream on ", stream.device());
  body.storage->record_stream(stream);
  return *this;
}

const Tensor& Tensor::bump_version() const {
  const detail::TensorBody& body = body_of(*this);
  TENON_CHECK(body.traced == nullptr,
              "bump_version: a tensor being traced has no elements to change");
  detail::bump_version(*this);
  return *this;
}

const Tensor& Tensor::set_data(const Tensor& other) const {
  TENON_CHECK(is_leaf(), "set_data: only a leaf can be given other data");
  TENON_CHECK(!is_traced() && !other.is_traced(), "set_data: not inside a trace");
  const detail::TensorBody& from = body_of(other);
  body_->shape = from.shape;
  body_->strides = from.strides;
  body_->offset = from.offset;
  body_->dtype = from.dtype;
  body_->device = from.device;
  body_->storage = from.storage;
  return *this;
}

}  // namespace tenon
