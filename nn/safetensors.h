// safetensors files, byte for byte as PyTorch's `safetensors.torch` writes and reads them
// (https://huggingface.co/docs/safetensors: an 8-byte length, a JSON header, the elements).
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tenon/nn/named_tensors.h"

namespace tenon::nn {

/// The texts of a file's `__metadata__`, in the file's order.
using Metadata = std::vector<std::pair<std::string, std::string>>;

/// The text called `key`, or null.
const std::string* find_metadata(const Metadata& metadata, std::string_view key);

/// What a safetensors file holds.
struct SafeTensors {
  TensorMap tensors;
  Metadata metadata;
};

/// Reads a file into tensors on the CPU. The types are BOOL, U8, I64, F16, BF16, F32 and F64.
/// Nothing in the file is trusted: a wrong length, overlapping, missing or excess bytes, a header
/// that is not what the format asks for, or a type that Tenon does not have throws `Error` naming
/// the file and the value, before memory that the file's size does not warrant is allocated.
SafeTensors load_safetensors(const std::string& path);

/// Writes `tensors` (of any device and strides) and `metadata`. The file appears under its name
/// only when it is complete. Throws `Error` when it cannot be written, a tensor is undefined, a
/// name is "__metadata__" or not UTF-8, or a metadata key comes twice.
void save_safetensors(const std::string& path, const TensorMap& tensors,
                      const Metadata& metadata = {});

}  // namespace tenon::nn
