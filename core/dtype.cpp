#include "tenon/core/dtype.h"

#include <array>
#include <ostream>

namespace tenon {
namespace {

struct DTypeInfo {
  std::string_view name;
  std::size_t size;
  bool floating;
};

// In the order of the enumeration.
constexpr std::array<DTypeInfo, 7> kInfo{{{"bool", 1, false},
                                          {"uint8", 1, false},
                                          {"int64", 8, false},
                                          {"float16", 2, true},
                                          {"bfloat16", 2, true},
                                          {"float32", 4, true},
                                          {"float64", 8, true}}};

const DTypeInfo& info(DType dtype) { return kInfo[static_cast<std::size_t>(dtype)]; }

}  // namespace

std::size_t item_size(DType dtype) { return info(dtype).size; }
std::string_view name(DType dtype) { return info(dtype).name; }
bool is_floating(DType dtype) { return info(dtype).floating; }

DType promote_types(DType a, DType b) {
  // The enumeration is ordered so that the larger one wins, but for the two 16-bit types, of which
  // neither holds the other.
  const bool mixed_halves = (a == DType::Float16 && b == DType::BFloat16) ||
                            (a == DType::BFloat16 && b == DType::Float16);
  return mixed_halves ? DType::Float32 : std::max(a, b);
}

DType parse_dtype(std::string_view name) {
  for (std::size_t i = 0; i < kInfo.size(); ++i) {
    if (kInfo[i].name == name) return static_cast<DType>(i);
  }
  detail::fail(detail::concat("unknown dtype '", name,
                              "'; known: bool, uint8, int64, float16, bfloat16, float32, float64"));
}

DType promote_with_scalar(DType tensor_dtype, Scalar::Kind kind) {
  switch (kind) {
    case Scalar::Kind::Bool:
      return tensor_dtype;
    case Scalar::Kind::Int:
      return tensor_dtype == DType::Bool ? DType::Int64 : tensor_dtype;
    case Scalar::Kind::Real:
      return is_floating(tensor_dtype) ? tensor_dtype : DType::Float32;
  }
  detail::fail("unknown scalar kind");
}

std::ostream& operator<<(std::ostream& out, DType dtype) { return out << name(dtype); }

std::ostream& operator<<(std::ostream& out, const Scalar& scalar) {
  switch (scalar.kind()) {
    case Scalar::Kind::Bool:
      return out << (scalar.to_int64() != 0 ? "true" : "false");
    case Scalar::Kind::Int:
      return out << scalar.to_int64();
    case Scalar::Kind::Real:
      return out << scalar.to_double();
  }
  return out;
}

}  // namespace tenon
