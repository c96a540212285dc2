// The number of threads for a part of a test.
#pragma once

#include <vector>

#include "tenon/core/parallel.h"
#include "tenon/tests/compare.h"

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

/// What `compute` gives, several tensors, by one thread; expects the same bits of any number.
template <class Compute>
std::vector<Tensor> for_all_threads(const Compute& compute) {
  const auto by = [&](int threads) {
    const ThreadsGuard guard(threads);
    return compute();
  };
  const std::vector<Tensor> results = by(1);
  for (const int threads : {2, 5, 7}) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    const std::vector<Tensor> others = by(threads);
    for (std::size_t i = 0; i < results.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "result " << i);
      expect_same_bits(others[i], results[i]);
    }
  }
  return results;
}

}  // namespace tenon::test
