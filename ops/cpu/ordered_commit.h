// Sums over chunks whose result does not depend on how many threads computed them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace tenon::ops::cpu {

/// Lets the chunks of one `parallel_for` add their partial sums in the order of their numbers:
/// chunks start in that order, so that the one whose turn it is is always running.
class OrderedCommit {
 public:
  /// Runs `compute()` at once and `commit()` when those of chunks 0 … index − 1 are done. When a
  /// chunk throws, the ones behind it return without committing.
  template <class Compute, class Commit>
  void run(std::int64_t index, Compute&& compute, Commit&& commit) {
    try {
      compute();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failed_ = true;
      turn_.notify_all();
      throw;
    }
    std::unique_lock lock(mutex_);
    turn_.wait(lock, [&] { return failed_ || next_ == index; });
    if (failed_) return;
    commit();
    ++next_;
    turn_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable turn_;
  std::int64_t next_ = 0;
  bool failed_ = false;
};

/// How the images of a batch are cut into chunks that each keep one partial sum: at most 64 chunks,
/// and enough positions in each that adding its sum is little beside computing it.
inline std::int64_t images_per_chunk(std::int64_t batch, std::int64_t positions) {
  constexpr std::int64_t kMaxChunks = 64;
  constexpr std::int64_t kMinPositions = 256;
  const std::int64_t by_count = (batch + kMaxChunks - 1) / kMaxChunks;
  const std::int64_t by_work = (kMinPositions + positions - 1) / (positions > 0 ? positions : 1);
  return by_count > by_work ? by_count : by_work;
}

}  // namespace tenon::ops::cpu
