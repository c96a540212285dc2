// Thread-safe counters behind `memory_stats`. Internal to core.
#pragma once

#include <atomic>
#include <cstdint>

#include "tenon/core/memory.h"

namespace tenon::detail {

/// What one device's allocator has handed out.
class MemoryCounters {
 public:
  void add(std::int64_t bytes) {
    const std::int64_t now = in_use_.fetch_add(bytes) + bytes;
    allocations_.fetch_add(1);
    std::int64_t seen = peak_.load();
    while (seen < now && !peak_.compare_exchange_weak(seen, now)) {
    }
  }
  void remove(std::int64_t bytes) { in_use_.fetch_sub(bytes); }
  void reset_peak() { peak_.store(in_use_.load()); }
  /// `reserved` is what is in use: whoever keeps a pool sets it to the pool's size.
  MemoryStats stats() const {
    const std::int64_t in_use = in_use_.load();
    return {in_use, peak_.load(), allocations_.load(), in_use};
  }

 private:
  std::atomic<std::int64_t> in_use_{0};
  std::atomic<std::int64_t> peak_{0};
  std::atomic<std::int64_t> allocations_{0};
};

}  // namespace tenon::detail
