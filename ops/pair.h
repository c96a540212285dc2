// Two numbers for the two dimensions of an image.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>

namespace tenon {

/// Height and width, or what belongs to each: a kernel size, a stride. One number stands for both,
/// so that `{.stride = 2}` and `{.stride = {2, 1}}` both read well.
struct Pair {
  std::int64_t h;
  std::int64_t w;

  constexpr Pair(std::int64_t both) : h(both), w(both) {}  // NOLINT(implicit): on purpose
  constexpr Pair(std::int64_t height, std::int64_t width) : h(height), w(width) {}

  constexpr bool operator==(const Pair&) const = default;
};

/// A `Pair` that may be left out, with the same spellings.
struct OptionalPair : std::optional<Pair> {
  constexpr OptionalPair() = default;
  constexpr OptionalPair(std::nullopt_t) {}  // NOLINT(implicit): as std::optional's
  constexpr OptionalPair(const std::optional<Pair>& pair) : std::optional<Pair>(pair) {}
  constexpr OptionalPair(Pair pair) : std::optional<Pair>(pair) {}
  constexpr OptionalPair(std::int64_t both) : std::optional<Pair>(both) {}
  constexpr OptionalPair(std::int64_t height, std::int64_t width)
      : std::optional<Pair>(Pair(height, width)) {}

  // Spelled out, because clang 14 finds the comparisons of std::optional ambiguous here.
  constexpr bool operator==(const OptionalPair& other) const {
    return has_value() == other.has_value() && (!has_value() || **this == *other);
  }
};

/// "(2, 1)"
inline std::ostream& operator<<(std::ostream& out, const Pair& pair) {
  return out << '(' << pair.h << ", " << pair.w << ')';
}

}  // namespace tenon
