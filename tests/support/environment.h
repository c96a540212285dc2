// Environment variables of one test.
#pragma once

#include <cstdlib>
#include <optional>
#include <string>

namespace tenon::test {

/// Sets a variable for a scope; an empty value unsets.
class EnvironmentGuard {
 public:
  EnvironmentGuard(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    set(value);
  }
  ~EnvironmentGuard() { set(old_.value_or("")); }
  EnvironmentGuard(const EnvironmentGuard&) = delete;
  EnvironmentGuard& operator=(const EnvironmentGuard&) = delete;

 private:
  void set(const std::string& value) {
    if (value.empty()) {
      unsetenv(name_);
    } else {
      setenv(name_, value.c_str(), 1);
    }
  }

  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace tenon::test
