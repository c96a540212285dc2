// The order in which the elements of a tensor lie in memory. A format is a matter of strides alone:
// shape and indices are those of the logical tensor, [N, C, H, W] for images, in either format.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <span>

#include "tenon/core/shape.h"

namespace tenon {

/// PyTorch's memory formats.
enum class MemoryFormat : std::uint8_t {
  Contiguous,    ///< row-major: of an image, one channel after another
  ChannelsLast,  ///< of 4 dimensions only: the channels of a pixel together, as [N, H, W, C]
  Preserve,      ///< in requests for a copy: the order of the original
};

/// "contiguous", "channels_last" or "preserve".
std::ostream& operator<<(std::ostream& out, MemoryFormat format);

/// [C·H·W, 1, C·W, C] of [N, C, H, W]. Throws `Error` for another number of dimensions.
Strides channels_last_strides(const Shape& shape);

/// True when the elements lie in that order without gaps; strides of dimensions of size 1 do not
/// count, so that one tensor may have both formats. False for channels-last of other than 4
/// dimensions, and for `Preserve`.
bool has_format(const Shape& shape, const Strides& strides, MemoryFormat format);

/// The format that results computed from such a tensor should have: channels-last when the strides
/// of 4 dimensions ascend in that order, gaps or not; contiguous otherwise and where it could be
/// either (PyTorch's `suggest_memory_format`).
MemoryFormat suggest_memory_format(const Shape& shape, const Strides& strides);

/// True when the elements fill their memory, in whatever order: no gaps, none in two places.
bool is_dense(const Shape& shape, const Strides& strides);

/// The strides of a dense copy with the dimensions in the same order; those given where they are
/// dense already.
Strides preserved_strides(const Shape& shape, const Strides& strides);

/// How one operand of an elementwise op is laid out; see `elementwise_strides`.
struct OperandLayout {
  const Shape* shape;
  const Strides* strides;
};

/// The strides of an elementwise op's result, of the shape `common` to which all operands
/// broadcast, by the rules of PyTorch's TensorIterator: where all operands have that shape, the
/// format that they share, or the strides that they share if those are dense; otherwise dense
/// strides with the dimensions in the order of the operands, of which the first decides where they
/// differ.
Strides elementwise_strides(const Shape& common, std::span<const OperandLayout> operands);

}  // namespace tenon
