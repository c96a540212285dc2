// The JSON header of a safetensors file, parsed and checked without its elements.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tenon/core/dtype.h"
#include "tenon/core/shape.h"
#include "tenon/nn/safetensors.h"

namespace tenon::nn::detail {

/// Headers may be 100 MB long and no more, in every implementation of the format.
inline constexpr std::uint64_t kLargestHeader = 100'000'000;

/// One tensor of the file; the elements are bytes [begin, end) of what follows the header.
struct TensorEntry {
  std::string name;
  DType dtype = DType::Float32;
  Shape shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct Header {
  std::vector<TensorEntry> entries;  // ordered by `begin`
  Metadata metadata;
};

/// Parses `text` and checks that the entries cover exactly `data_bytes` bytes without gap or
/// overlap. Throws `Error` naming `path` and the value.
Header parse_header(const std::string& path, const std::string& text, std::uint64_t data_bytes);

/// The text for `header`, padded with spaces to a multiple of 8 bytes; entries in their order.
std::string format_header(const std::string& path, const Header& header);

/// The format's name of `dtype`, "F32".
const char* format_name(DType dtype);

}  // namespace tenon::nn::detail
