#include "tenon/core/memory.h"

#include <algorithm>
#include <cstdlib>

#include "tenon/core/error.h"

namespace tenon {
namespace {

/// The CPU allocator's counters.
struct Counters {
  std::atomic<std::int64_t> in_use{0};
  std::atomic<std::int64_t> peak{0};
  std::atomic<std::int64_t> allocations{0};

  void add(std::int64_t bytes) {
    const std::int64_t now = in_use.fetch_add(bytes) + bytes;
    allocations.fetch_add(1);
    std::int64_t seen = peak.load();
    while (seen < now && !peak.compare_exchange_weak(seen, now)) {
    }
  }
};

Counters& counters() {
  static Counters instance;
  return instance;
}

void require_cpu(Device device, const char* what) {
  TENON_CHECK(device.is_cpu(), what, ": this build of Tenon has no memory on ", device);
}

}  // namespace

MemoryStats memory_stats(Device device) {
  require_cpu(device, "memory_stats");
  const Counters& c = counters();
  return {c.in_use.load(), c.peak.load(), c.allocations.load()};
}

void reset_peak_memory(Device device) {
  require_cpu(device, "reset_peak_memory");
  Counters& c = counters();
  c.peak.store(c.in_use.load());
}

std::shared_ptr<Storage> Storage::allocate(std::size_t bytes, Device device) {
  require_cpu(device, "allocate");
  // aligned_alloc wants a multiple of the alignment; at least one line, so that data() is never
  // null and vector code may read a whole register at the last element.
  const std::size_t lines = bytes / kAlignment + 1;
  void* data = lines > (SIZE_MAX / kAlignment) ? nullptr
                                               : std::aligned_alloc(kAlignment, lines * kAlignment);
  TENON_CHECK(data != nullptr, "allocate: no memory for ", bytes, " bytes on ", device, " (",
              counters().in_use.load(), " bytes in use)");
  std::shared_ptr<Storage> storage(
      new Storage(static_cast<std::byte*>(data), bytes, device, nullptr));
  storage->owned_ = true;
  counters().add(static_cast<std::int64_t>(bytes));
  return storage;
}

std::shared_ptr<Storage> Storage::adopt(void* data, std::size_t bytes, Device device,
                                        std::function<void(void*)> deleter) {
  return std::shared_ptr<Storage>(
      new Storage(static_cast<std::byte*>(data), bytes, device, std::move(deleter)));
}

Storage::~Storage() {
  if (owned_) {
    counters().in_use.fetch_sub(static_cast<std::int64_t>(bytes_));
    std::free(data_);
  } else if (deleter_) {
    deleter_(data_);
  }
}

}  // namespace tenon
