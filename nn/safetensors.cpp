#include "tenon/nn/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "tenon/core/error.h"
#include "tenon/core/factories.h"
#include "tenon/nn/atomic_file.h"
#include "tenon/nn/safetensors_header.h"

namespace tenon::nn {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

/// The file's order of types: decreasing alignment, as the reference implementation ranks them.
int rank(DType dtype) {
  switch (dtype) {
    case DType::Bool:
      return 0;
    case DType::UInt8:
      return 1;
    case DType::Float16:
      return 2;
    case DType::BFloat16:
      return 3;
    case DType::Float32:
      return 4;
    case DType::Float64:
      return 5;
    case DType::Int64:
      return 6;
  }
  return 0;
}

void read_exactly(std::ifstream& file, const std::string& path, void* target, std::uint64_t bytes) {
  file.read(static_cast<char*>(target), static_cast<std::streamsize>(bytes));
  TENON_CHECK(static_cast<std::uint64_t>(file.gcount()) == bytes, "load_safetensors: '", path,
              "': cannot read ", bytes, " bytes, only ", file.gcount(), " came");
}

/// A byte other than 0 and 1 in a bool tensor would be undefined behaviour in whoever reads it.
void check_bools(const std::string& path, const std::string& name, const Tensor& tensor) {
  const auto* bytes = static_cast<const std::uint8_t*>(tensor.raw_data());
  const std::uint8_t* wrong =
      std::find_if(bytes, bytes + tensor.numel(), [](std::uint8_t value) { return value > 1; });
  TENON_CHECK(wrong == bytes + tensor.numel(), "load_safetensors: '", path, "': tensor '", name,
              "': element ", wrong - bytes, " of dtype BOOL is ", static_cast<int>(*wrong),
              ", neither 0 nor 1");
}

}  // namespace

const std::string* find_metadata(const Metadata& metadata, std::string_view key) {
  for (const std::pair<std::string, std::string>& item : metadata) {
    if (item.first == key) return &item.second;
  }
  return nullptr;
}

SafeTensors load_safetensors(const std::string& path) {
  std::error_code error;
  TENON_CHECK(std::filesystem::exists(path, error), "load_safetensors: there is no file '", path,
              "'");
  TENON_CHECK(std::filesystem::is_regular_file(path, error), "load_safetensors: '", path,
              "' is not a file");
  std::ifstream file(path, std::ios::binary);
  const std::uint64_t file_bytes = std::filesystem::file_size(path, error);
  TENON_CHECK(file && !error, "load_safetensors: cannot open '", path, "'");
  TENON_CHECK(file_bytes >= 8, "load_safetensors: '", path, "' is ", file_bytes,
              " bytes long, too short for a safetensors file");
  std::uint64_t header_bytes = 0;
  read_exactly(file, path, &header_bytes, sizeof header_bytes);
  TENON_CHECK(header_bytes <= detail::kLargestHeader, "load_safetensors: '", path,
              "': header length ", header_bytes, " exceeds the format's limit of ",
              detail::kLargestHeader, " bytes");
  TENON_CHECK(header_bytes <= file_bytes - 8, "load_safetensors: '", path, "': header length ",
              header_bytes, " exceeds the ", file_bytes - 8, " bytes left in the file");
  std::string text(header_bytes, '\0');
  read_exactly(file, path, text.data(), header_bytes);
  detail::Header header = detail::parse_header(path, text, file_bytes - 8 - header_bytes);

  SafeTensors result;
  result.metadata = std::move(header.metadata);
  for (const detail::TensorEntry& entry : header.entries) {
    const Tensor tensor = empty(entry.shape, {.dtype = entry.dtype});
    read_exactly(file, path, tensor.raw_data(), entry.end - entry.begin);
    if (entry.dtype == DType::Bool) check_bools(path, entry.name, tensor);
    result.tensors.emplace(entry.name, tensor);
  }
  return result;
}

void save_safetensors(const std::string& path, const TensorMap& tensors, const Metadata& metadata) {
  std::set<std::string> keys;
  for (const std::pair<std::string, std::string>& item : metadata) {
    TENON_CHECK(keys.insert(item.first).second, "save_safetensors: '", path, "': metadata key '",
                item.first, "' comes twice");
  }
  std::vector<std::pair<std::string, Tensor>> ordered;
  for (const std::pair<const std::string, Tensor>& item : tensors) {
    TENON_CHECK(item.first != "__metadata__", "save_safetensors: '", path,
                "': the name '__metadata__' is the format's own");
    TENON_CHECK(item.second.defined(), "save_safetensors: '", path, "': tensor '", item.first,
                "' is undefined");
    ordered.emplace_back(item.first, item.second);
  }
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return rank(a.second.dtype()) > rank(b.second.dtype());
  });
  detail::Header header;
  header.metadata = metadata;
  std::uint64_t offset = 0;
  for (const std::pair<std::string, Tensor>& item : ordered) {
    const Tensor& tensor = item.second;
    const std::uint64_t bytes =
        static_cast<std::uint64_t>(tensor.numel()) * item_size(tensor.dtype());
    header.entries.push_back({item.first, tensor.dtype(), tensor.shape(), offset, offset + bytes});
    offset += bytes;
  }
  const std::string text = detail::format_header(path, header);
  TENON_CHECK(text.size() <= detail::kLargestHeader, "save_safetensors: '", path,
              "': the header would take ", text.size(), " bytes, the format allows ",
              detail::kLargestHeader);

  detail::AtomicFile file("save_safetensors", path);
  const std::uint64_t length = text.size();
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (const std::pair<std::string, Tensor>& item : ordered) {
    const Tensor host = item.second.detach().to(Device::cpu()).contiguous();
    const std::size_t bytes = static_cast<std::size_t>(host.numel()) * item_size(host.dtype());
    file.write(host.raw_data(), bytes);
  }
  file.commit();
}

}  // namespace tenon::nn
