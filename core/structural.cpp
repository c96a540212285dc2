#include "tenon/core/structural.h"

#include <algorithm>
#include <optional>
#include <sstream>

#include "tenon/core/kernels.h"
#include "tenon/core/tensor_body.h"

namespace tenon {
namespace {

/// Strides under which the elements of (`shape`, `strides`) can be seen as `target` without moving
/// them, if there are any. Runs of source dimensions that step alike are matched with runs of
/// target dimensions of the same product.
std::optional<Strides> view_strides(const Shape& shape, const Strides& strides,
                                    const Shape& target) {
  if (shape.numel() == 0) return contiguous_strides(target);
  Strides result = target;
  std::size_t next = target.size();  // target dimensions from here on are settled
  std::int64_t run = 1;              // elements in the current run of source dimensions
  std::int64_t step = shape.empty() ? 1 : strides.back();
  for (std::size_t d = shape.size(); d-- > 0;) {
    run *= shape[d];
    const bool run_ends = d == 0 || (shape[d - 1] != 1 && strides[d - 1] != run * step);
    if (!run_ends) continue;
    std::int64_t settled = 1;
    while (next > 0 && (settled < run || target[next - 1] == 1)) {
      --next;
      result[next] = settled * step;
      settled *= target[next];
    }
    if (settled != run) return std::nullopt;
    if (d > 0) step = strides[d - 1];
    run = 1;
  }
  while (next > 0) result[--next] = 1;  // only sizes of 1 are left
  return result;
}

std::vector<std::int64_t> values(const Shape& shape) { return shape.to_vector(); }

const Tensor& only(std::span<const Tensor> tensors) { return tensors[0]; }

std::string format_text(MemoryFormat format) {
  std::ostringstream text;
  text << format;
  return text.str();
}

void check_format(std::string_view op, MemoryFormat format, const Shape& shape) {
  TENON_CHECK(format != MemoryFormat::ChannelsLast || shape.size() == 4, op,
              ": channels_last needs 4 dimensions [N, C, H, W], got ", shape);
}

Tensor slice_view(const Tensor& x, std::size_t dim, std::int64_t start, std::int64_t length,
                  std::int64_t step) {
  Shape shape = x.shape();
  Strides strides = x.strides();
  const std::int64_t offset = x.body()->offset + (length > 0 ? start * strides[dim] : 0);
  shape[dim] = length;
  if (length > 1) strides[dim] *= step;  // otherwise never used, and a huge step would overflow
  return detail::make_view(x, shape, strides, offset);
}

}  // namespace

// ---- reshape ------------------------------------------------------------------------------------

Attributes ReshapeOp::attributes() const { return {{"shape", values(shape_)}}; }

std::vector<TensorSpec> ReshapeOp::infer(std::span<const TensorSpec> inputs) const {
  const Shape& from = inputs[0].shape;
  Shape to = shape_;
  std::optional<std::size_t> unknown;
  std::int64_t known = 1;
  for (std::size_t d = 0; d < to.size(); ++d) {
    TENON_CHECK(to[d] >= -1, "reshape: size ", to[d], " in ", shape_,
                "; sizes are at least 0, and one may be -1");
    if (to[d] != -1) {
      TENON_CHECK(!__builtin_mul_overflow(known, to[d], &known), "reshape: ", shape_,
                  " has more than 2^63 elements");
      continue;
    }
    TENON_CHECK(!unknown, "reshape: more than one -1 in ", shape_);
    unknown = d;
  }
  const std::int64_t count = from.numel();
  if (unknown) {
    TENON_CHECK(known != 0 && count % known == 0, "reshape: ", from, " (", count,
                " elements) cannot take the shape ", shape_);
    to[*unknown] = count / known;
  }
  TENON_CHECK(to.numel() == count, "reshape: ", from, " (", count,
              " elements) cannot take the shape ", shape_);
  return {{to, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> ReshapeOp::forward(std::span<const Tensor> inputs,
                                       std::span<const TensorSpec> outputs) const {
  const Tensor& x = only(inputs);
  const Shape& target = outputs[0].shape;
  if (const auto strides = view_strides(x.shape(), x.strides(), target)) {
    return {detail::make_view(x, target, *strides, x.body()->offset)};
  }
  const Tensor copy = x.contiguous();
  return {detail::make_view(copy, target, contiguous_strides(target), 0)};
}

std::vector<Tensor> ReshapeOp::backward(const BackwardContext& context,
                                        std::span<const Tensor> grad_outputs) const {
  return {grad_outputs[0].reshape(context.input_spec(0).shape)};
}

// ---- permute ------------------------------------------------------------------------------------

Attributes PermuteOp::attributes() const { return {{"dims", values(dims_)}}; }

std::vector<TensorSpec> PermuteOp::infer(std::span<const TensorSpec> inputs) const {
  const Shape& from = inputs[0].shape;
  TENON_CHECK(dims_.size() == from.size(), "permute: ", dims_.size(), " dimensions ", dims_,
              " for a tensor of shape ", from);
  Shape to;
  Shape seen = Shape::filled(from.size(), 0);
  for (std::int64_t dim : dims_) {
    const std::size_t d = normalize_dim(dim, from.size(), "permute");
    TENON_CHECK(seen[d]++ == 0, "permute: dimension ", dim, " appears twice in ", dims_);
    to.push_back(from[d]);
  }
  return {{to, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> PermuteOp::forward(std::span<const Tensor> inputs,
                                       std::span<const TensorSpec> outputs) const {
  const Tensor& x = only(inputs);
  Strides strides;
  for (std::int64_t dim : dims_) {
    strides.push_back(x.strides()[normalize_dim(dim, x.dim(), "permute")]);
  }
  return {detail::make_view(x, outputs[0].shape, strides, x.body()->offset)};
}

std::vector<Tensor> PermuteOp::backward(const BackwardContext&,
                                        std::span<const Tensor> grad_outputs) const {
  Shape inverse = dims_;
  for (std::size_t i = 0; i < dims_.size(); ++i) {
    inverse[normalize_dim(dims_[i], dims_.size(), "permute")] = static_cast<std::int64_t>(i);
  }
  return {grad_outputs[0].permute(inverse)};
}

// ---- slice and its adjoint ----------------------------------------------------------------------

Attributes SliceOp::attributes() const {
  return {{"dim", dim_}, {"start", start_}, {"length", length_}, {"step", step_}};
}

std::vector<TensorSpec> SliceOp::infer(std::span<const TensorSpec> inputs) const {
  Shape shape = inputs[0].shape;
  TENON_CHECK(!shape.empty(), "slice: a 0-dimensional tensor has no dimension to slice");
  const std::size_t dim = normalize_dim(dim_, shape.size(), "slice");
  TENON_CHECK(step_ >= 1, "slice: the step must be at least 1, got ", step_);
  TENON_CHECK(
      start_ >= 0 && length_ >= 0 &&
          (length_ == 0 ? start_ <= shape[dim] : start_ + (length_ - 1) * step_ < shape[dim]),
      "slice: ", length_, " elements from ", start_, " (step ", step_,
      ") are not all in dimension ", dim_, " of ", shape);
  shape[dim] = length_;
  return {{shape, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> SliceOp::forward(std::span<const Tensor> inputs,
                                     std::span<const TensorSpec>) const {
  const Tensor& x = only(inputs);
  return {slice_view(x, normalize_dim(dim_, x.dim(), "slice"), start_, length_, step_)};
}

std::vector<Tensor> SliceOp::backward(const BackwardContext& context,
                                      std::span<const Tensor> grad_outputs) const {
  return {embed(grad_outputs[0], context.input_spec(0).shape, dim_, start_, step_)};
}

Attributes EmbedOp::attributes() const {
  return {{"shape", values(shape_)}, {"dim", dim_}, {"start", start_}, {"step", step_}};
}

std::vector<TensorSpec> EmbedOp::infer(std::span<const TensorSpec> inputs) const {
  const Shape& from = inputs[0].shape;
  const std::size_t dim = normalize_dim(dim_, shape_.size(), "embed");
  TENON_CHECK(from.size() == shape_.size(), "embed: ", from, " has another rank than ", shape_);
  Shape expected = shape_;
  expected[dim] = from[dim];
  TENON_CHECK(from == expected && step_ >= 1 && start_ >= 0 &&
                  (from[dim] == 0 || start_ + (from[dim] - 1) * step_ < shape_[dim]),
              "embed: ", from, " does not fit ", shape_, " at ", start_, " (step ", step_,
              ") of dimension ", dim_);
  return {{shape_, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> EmbedOp::forward(std::span<const Tensor> inputs,
                                     std::span<const TensorSpec> outputs) const {
  const Tensor& x = only(inputs);
  const std::size_t dim = normalize_dim(dim_, shape_.size(), "embed");
  Tensor result = detail::make_empty(outputs[0]);
  kernels::fill(result, 0);
  kernels::copy(x, slice_view(result, dim, start_, x.shape()[dim], step_));
  return {result};
}

std::vector<Tensor> EmbedOp::backward(const BackwardContext& context,
                                      std::span<const Tensor> grad_outputs) const {
  const Shape& from = context.input_spec(0).shape;
  const std::int64_t length = from[normalize_dim(dim_, from.size(), "embed")];
  return {apply(SliceOp(dim_, start_, length, step_), {grad_outputs[0]})};
}

Tensor embed(const Tensor& x, const Shape& shape, std::int64_t dim, std::int64_t start,
             std::int64_t step) {
  return apply(EmbedOp(shape, dim, start, step), {x});
}

// ---- expand and its adjoint ---------------------------------------------------------------------

Attributes ExpandOp::attributes() const { return {{"shape", values(shape_)}}; }

std::vector<TensorSpec> ExpandOp::infer(std::span<const TensorSpec> inputs) const {
  const Shape& from = inputs[0].shape;
  TENON_CHECK(shape_.size() >= from.size(), "expand: ", from, " has more dimensions than ", shape_);
  Shape to = shape_;
  const std::size_t lead = to.size() - from.size();
  for (std::size_t d = 0; d < to.size(); ++d) {
    if (to[d] == -1 && d >= lead) to[d] = from[d - lead];
    TENON_CHECK(to[d] >= 0 && (d < lead || from[d - lead] == to[d] || from[d - lead] == 1),
                "expand: ", from, " cannot be expanded to ", shape_,
                "; only sizes of 1 can grow, and -1 keeps a size that exists");
  }
  return {{to, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> ExpandOp::forward(std::span<const Tensor> inputs,
                                      std::span<const TensorSpec> outputs) const {
  const Tensor& x = only(inputs);
  const Shape& target = outputs[0].shape;
  const std::size_t lead = target.size() - x.dim();
  Strides strides = Shape::filled(target.size(), 0);
  for (std::size_t d = lead; d < target.size(); ++d) {
    if (x.shape()[d - lead] == target[d]) strides[d] = x.strides()[d - lead];
  }
  return {detail::make_view(x, target, strides, x.body()->offset)};
}

std::vector<Tensor> ExpandOp::backward(const BackwardContext& context,
                                       std::span<const Tensor> grad_outputs) const {
  return {sum_to(grad_outputs[0], context.input_spec(0).shape)};
}

Attributes SumToOp::attributes() const { return {{"shape", values(shape_)}}; }

std::vector<TensorSpec> SumToOp::infer(std::span<const TensorSpec> inputs) const {
  TENON_CHECK(broadcast_shapes(inputs[0].shape, shape_, "sum_to") == inputs[0].shape,
              "sum_to: ", shape_, " does not broadcast to ", inputs[0].shape);
  return {{shape_, inputs[0].dtype, inputs[0].device}};
}

std::vector<Tensor> SumToOp::forward(std::span<const Tensor> inputs,
                                     std::span<const TensorSpec> outputs) const {
  if (only(inputs).shape() == shape_) return {only(inputs)};
  Tensor result = detail::make_empty(outputs[0]);
  kernels::sum_to(only(inputs), result);
  return {result};
}

std::vector<Tensor> SumToOp::backward(const BackwardContext& context,
                                      std::span<const Tensor> grad_outputs) const {
  return {grad_outputs[0].expand(context.input_spec(0).shape)};
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  return x.shape() == shape ? x : apply(SumToOp(shape), {x});
}

// ---- copy, detach, accumulate -------------------------------------------------------------------

Attributes CopyOp::attributes() const {
  Attributes result{{"dtype", std::string(tenon::name(dtype_))}, {"device", device_.to_string()}};
  if (format_ != MemoryFormat::Preserve) result.push_back({"format", format_text(format_)});
  return result;
}

std::vector<TensorSpec> CopyOp::infer(std::span<const TensorSpec> inputs) const {
  check_format("copy", format_, inputs[0].shape);
  return {{inputs[0].shape, dtype_, device_}};
}

std::vector<Tensor> CopyOp::forward(std::span<const Tensor> inputs,
                                    std::span<const TensorSpec> outputs) const {
  const Tensor& x = only(inputs);
  const Tensor result =
      format_ == MemoryFormat::Preserve
          ? detail::make_empty(outputs[0], preserved_strides(x.shape(), x.strides()))
          : detail::make_empty(outputs[0], format_);
  kernels::copy(x, result);
  return {result};
}

std::vector<Tensor> CopyOp::backward(const BackwardContext& context,
                                     std::span<const Tensor> grad_outputs) const {
  const TensorSpec& input = context.input_spec(0);
  return {grad_outputs[0].to(input.device, input.dtype)};
}

Attributes FormatOp::attributes() const { return {{"format", format_text(format_)}}; }

std::vector<TensorSpec> FormatOp::infer(std::span<const TensorSpec> inputs) const {
  check_format(name(), format_, inputs[0].shape);
  return {inputs[0]};
}

std::vector<Tensor> FormatOp::forward(std::span<const Tensor> inputs,
                                      std::span<const TensorSpec>) const {
  const Tensor& x = only(inputs);
  return {unless_ == Unless::IsContiguous ? x.contiguous(format_) : x.to(format_)};
}

std::vector<Tensor> FormatOp::backward(const BackwardContext&,
                                       std::span<const Tensor> grad_outputs) const {
  return {grad_outputs[0]};
}

std::vector<TensorSpec> DetachOp::infer(std::span<const TensorSpec> inputs) const {
  return {inputs[0]};
}

std::vector<Tensor> DetachOp::forward(std::span<const Tensor> inputs,
                                      std::span<const TensorSpec>) const {
  return {only(inputs)};
}

std::vector<TensorSpec> AccumulateOp::infer(std::span<const TensorSpec> inputs) const {
  TENON_CHECK(inputs[0] == inputs[1], "accumulate: the summands differ: ", inputs[0], " and ",
              inputs[1]);
  return {inputs[0]};
}

std::vector<Tensor> AccumulateOp::forward(std::span<const Tensor> inputs,
                                          std::span<const TensorSpec> outputs) const {
  const Tensor result = detail::make_elementwise(outputs[0], inputs);
  kernels::add(inputs[0], inputs[1], result);
  return {result};
}

std::vector<Tensor> AccumulateOp::backward(const BackwardContext&,
                                           std::span<const Tensor> grad_outputs) const {
  return {grad_outputs[0], grad_outputs[0]};
}

Tensor accumulate(const Tensor& a, const Tensor& b) { return apply(AccumulateOp(), {a, b}); }

// ---- Tensor's methods ---------------------------------------------------------------------------

Tensor Tensor::reshape(const Shape& shape) const { return apply(ReshapeOp(shape), {*this}); }

Tensor Tensor::flatten(std::int64_t first, std::int64_t last) const {
  const std::size_t from = normalize_dim(first, dim(), "flatten");
  const std::size_t to = normalize_dim(last, dim(), "flatten");
  TENON_CHECK(from <= to, "flatten: the first dimension ", first, " comes after the last ", last);
  Shape joined;
  for (std::size_t d = 0; d < from; ++d) joined.push_back(shape()[d]);
  std::int64_t product = 1;
  for (std::size_t d = from; d <= to && d < dim(); ++d) product *= shape()[d];
  joined.push_back(product);
  for (std::size_t d = to + 1; d < dim(); ++d) joined.push_back(shape()[d]);
  return reshape(joined);
}

Tensor Tensor::permute(const Shape& dims) const { return apply(PermuteOp(dims), {*this}); }

Tensor Tensor::transpose(std::int64_t dim0, std::int64_t dim1) const {
  const std::size_t a = normalize_dim(dim0, dim(), "transpose");
  const std::size_t b = normalize_dim(dim1, dim(), "transpose");
  Shape dims;
  for (std::size_t d = 0; d < dim(); ++d) dims.push_back(static_cast<std::int64_t>(d));
  if (dim() > 0) std::swap(dims[a], dims[b]);
  return permute(dims);
}

Tensor Tensor::slice(std::int64_t dim, std::int64_t start, std::int64_t end,
                     std::int64_t step) const {
  TENON_CHECK(this->dim() > 0, "slice: a 0-dimensional tensor has no dimension to slice");
  TENON_CHECK(step >= 1, "slice: the step must be at least 1, got ", step);
  const std::int64_t extent = shape()[normalize_dim(dim, this->dim(), "slice")];
  const auto clamped = [&](std::int64_t i) {
    return std::clamp<std::int64_t>(i < 0 ? i + extent : i, 0, extent);
  };
  const std::int64_t first = clamped(start);
  const std::int64_t last = std::max(first, clamped(end));
  const std::int64_t length = (last - first) / step + ((last - first) % step != 0 ? 1 : 0);
  return apply(SliceOp(dim, first, length, step), {*this});
}

Tensor Tensor::narrow(std::int64_t dim, std::int64_t start, std::int64_t length) const {
  TENON_CHECK(this->dim() > 0, "narrow: a 0-dimensional tensor has no dimension to narrow");
  const std::int64_t extent = shape()[normalize_dim(dim, this->dim(), "narrow")];
  const std::int64_t first = start < 0 ? start + extent : start;
  TENON_CHECK(first >= 0 && length >= 0 && first <= extent && length <= extent - first,
              "narrow: ", length, " elements from ", start, " are not all in dimension ", dim,
              " of ", shape());
  return apply(SliceOp(dim, first, length, 1), {*this});
}

Tensor Tensor::select(std::int64_t dim, std::int64_t index) const {
  TENON_CHECK(this->dim() > 0, "select: a 0-dimensional tensor has no dimension to select from");
  const std::size_t d = normalize_dim(dim, this->dim(), "select");
  const std::int64_t extent = shape()[d];
  TENON_CHECK(index >= -extent && index < extent, "select: index ", index,
              " is out of range for dimension ", dim, " of ", shape());
  Shape rest = shape();
  rest.erase(d);
  return narrow(dim, index, 1).reshape(rest);
}

Tensor Tensor::expand(const Shape& shape) const { return apply(ExpandOp(shape), {*this}); }

Tensor Tensor::squeeze(std::int64_t dim) const {
  const std::size_t d = normalize_dim(dim, this->dim(), "squeeze");
  if (this->dim() == 0 || shape()[d] != 1) return *this;
  Shape rest = shape();
  rest.erase(d);
  return reshape(rest);
}

Tensor Tensor::squeeze() const {
  Shape rest;
  for (std::int64_t size : shape()) {
    if (size != 1) rest.push_back(size);
  }
  return rest == shape() ? *this : reshape(rest);
}

Tensor Tensor::unsqueeze(std::int64_t dim) const {
  const std::size_t d = normalize_dim(dim, this->dim() + 1, "unsqueeze");
  Shape longer = shape();
  longer.insert(d, 1);
  return reshape(longer);
}

Tensor Tensor::detach() const { return apply(DetachOp(), {*this}); }

Tensor Tensor::contiguous(MemoryFormat format) const {
  TENON_CHECK(format != MemoryFormat::Preserve,
              "contiguous: preserve is no format to ask for; clone() preserves one");
  check_format("contiguous", format, shape());
  if (is_traced()) return apply(FormatOp(format, FormatOp::Unless::IsContiguous), {*this});
  return is_contiguous(format) ? *this : clone(format);
}

Tensor Tensor::clone(MemoryFormat format) const {
  return apply(CopyOp(dtype(), device(), format), {*this});
}

Tensor Tensor::to(DType dtype) const { return to(device(), dtype); }

Tensor Tensor::to(Device device) const { return to(device, dtype()); }

Tensor Tensor::to(Device device, DType dtype) const {
  if (device == this->device() && dtype == this->dtype()) return *this;
  return apply(CopyOp(dtype, device), {*this});
}

Tensor Tensor::to(MemoryFormat format) const {
  if (format == MemoryFormat::Preserve) return *this;
  check_format("to", format, shape());
  if (is_traced()) return apply(FormatOp(format, FormatOp::Unless::IsSuggested), {*this});
  return suggest_memory_format() == format ? *this : clone(format);
}

}  // namespace tenon
