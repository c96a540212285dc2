// Errors: one exception type, one check macro.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace tenon {

/// Everything Tenon throws. The message names the op, the offending value and, where there is one,
/// the fix: "conv2d: input must be [N, Cin, H, W], got [3, 8] (2 dimensions)".
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

/// Streams all parts into one string.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

/// Throws `Error(message)`; kept out of line so that a check costs one compare at the call site.
[[noreturn]] void fail(const std::string& message);

}  // namespace detail
}  // namespace tenon

/// Throws `tenon::Error` made of the remaining arguments (streamed one after another) unless
/// `condition` holds. For what the caller did wrong, and for what the outside world did to us.
#define TENON_CHECK(condition, ...)                                \
  do {                                                             \
    if (!(condition)) [[unlikely]] {                               \
      ::tenon::detail::fail(::tenon::detail::concat(__VA_ARGS__)); \
    }                                                              \
  } while (false)
