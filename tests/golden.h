// Reads the golden tensors of tests/golden (see make_golden.py for what they hold).
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "tenon/core/factories.h"
#include "tenon/core/tensor.h"

namespace tenon::test {

/// One case of a golden file: its attributes and its tensors by name.
struct GoldenCase {
  nlohmann::json attributes;
  std::map<std::string, Tensor> tensors;

  /// The tensor called `name`; undefined when the case has none.
  Tensor get(const std::string& name) const {
    const auto found = tensors.find(name);
    return found == tensors.end() ? Tensor() : found->second;
  }
  /// The attribute called `name`, or `fallback`.
  template <class T>
  T attribute(const std::string& name, T fallback) const {
    return attributes.contains(name) ? attributes.at(name).get<T>() : fallback;
  }
};

/// The cases of tests/golden/`file`, by name. A reader of its own, so that the tests of the ops do
/// not depend on the one under test in nn.
inline std::map<std::string, GoldenCase> read_golden(const std::string& file) {
  std::ifstream in(std::string(TENON_TEST_DATA) + "/golden/" + file, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open golden file " + file);
  std::uint64_t header_size = 0;
  in.read(reinterpret_cast<char*>(&header_size), sizeof header_size);
  std::string text(header_size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(header_size));
  const nlohmann::json header = nlohmann::json::parse(text);
  const std::map<std::string, DType> dtypes{
      {"F64", DType::Float64}, {"F32", DType::Float32}, {"I64", DType::Int64}};
  std::map<std::string, GoldenCase> cases;
  for (const auto& [name, attributes] : header.at("__metadata__").items()) {
    cases[name].attributes = nlohmann::json::parse(attributes.get<std::string>());
  }
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const Shape shape(entry.at("shape").get<std::vector<std::int64_t>>());
    const Tensor tensor = empty(shape, {.dtype = dtypes.at(entry.at("dtype"))});
    const auto begin = entry.at("data_offsets").at(0).get<std::int64_t>();
    const auto end = entry.at("data_offsets").at(1).get<std::int64_t>();
    in.seekg(static_cast<std::streamoff>(8 + header_size) + begin);
    in.read(static_cast<char*>(tensor.raw_data()), end - begin);
    const std::size_t slash = name.find('/');
    cases[name.substr(0, slash)].tensors[name.substr(slash + 1)] = tensor;
  }
  if (!in) throw std::runtime_error("golden file ends early: " + file);
  return cases;
}

}  // namespace tenon::test
