// Where a tensor lives.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

namespace tenon {

/// A compute device: the CPU, or one CUDA GPU.
class Device {
 public:
  enum class Type : std::uint8_t { Cpu, Cuda };

  /// The host.
  static constexpr Device cpu() { return Device(Type::Cpu, 0); }
  /// GPU number `index` as the CUDA runtime counts them. Throws `Error` in a build without CUDA,
  /// with a sentence that says how to get one.
  static Device cuda(int index = 0);
  /// "cpu", "cuda" or "cuda:1"; throws `Error` on anything else.
  static Device parse(std::string_view text);

  constexpr Type type() const { return type_; }
  constexpr int index() const { return index_; }
  constexpr bool is_cpu() const { return type_ == Type::Cpu; }
  constexpr bool is_cuda() const { return type_ == Type::Cuda; }
  /// "cpu" or "cuda:0".
  std::string to_string() const;
  constexpr bool operator==(const Device&) const = default;

 private:
  constexpr Device(Type type, int index) : type_(type), index_(index) {}

  Type type_;
  int index_;
};

std::ostream& operator<<(std::ostream& out, Device device);

}  // namespace tenon
