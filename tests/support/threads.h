// The number of threads for a part of a test.
#pragma once

#include "tenon/core/parallel.h"

namespace tenon::test {

/// Sets it for a scope.
class ThreadsGuard {
 public:
  explicit ThreadsGuard(int count) : before_(num_threads()) { set_num_threads(count); }
  ~ThreadsGuard() { set_num_threads(before_); }
  ThreadsGuard(const ThreadsGuard&) = delete;
  ThreadsGuard& operator=(const ThreadsGuard&) = delete;

 private:
  int before_;
};

}  // namespace tenon::test
