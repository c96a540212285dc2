#include "tenon/core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "tenon/core/error.h"

namespace tenon {
namespace {

thread_local bool inside_chunk = false;

int default_num_threads() {
  if (const char* text = std::getenv("TENON_NUM_THREADS")) {
    int count = 0;
    const char* end = text + std::strlen(text);
    const auto [stop, error] = std::from_chars(text, end, count);
    if (error == std::errc{} && stop == end && count > 0) return count;
  }
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

/// Workers that wait for one range at a time and take its chunks in order.
class ThreadPool {
 public:
  explicit ThreadPool(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }

  ~ThreadPool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(std::int64_t begin, std::int64_t end, std::int64_t grain, detail::RangeFunction body) {
    const std::lock_guard caller(callers_);
    Job job{body, begin, end, grain};
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++generation_;
    }
    wake_.notify_all();
    job.take_chunks();
    std::unique_lock lock(mutex_);
    job_ = nullptr;
    done_.wait(lock, [this] { return active_ == 0; });
    if (job.error) std::rethrow_exception(job.error);
  }

 private:
  struct Job {
    detail::RangeFunction body;
    std::atomic<std::int64_t> next;
    std::int64_t end;
    std::int64_t grain;
    std::mutex error_mutex{};
    std::exception_ptr error{};

    Job(detail::RangeFunction f, std::int64_t begin, std::int64_t stop, std::int64_t chunk)
        : body(f), next(begin), end(stop), grain(chunk) {}

    void take_chunks() {
      inside_chunk = true;
      for (;;) {
        const std::int64_t first = next.fetch_add(grain);
        if (first >= end) break;
        try {
          body(first, std::min(end, first + grain));
        } catch (...) {
          const std::lock_guard lock(error_mutex);
          if (!error) error = std::current_exception();
          next.store(end);
        }
      }
      inside_chunk = false;
    }
  };

  void work() {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || (job_ != nullptr && generation_ != seen); });
      if (stopping_) return;
      seen = generation_;
      Job* job = job_;
      ++active_;
      lock.unlock();
      job->take_chunks();
      lock.lock();
      if (--active_ == 0) done_.notify_all();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex callers_;  // held by the thread whose range is running
  std::mutex mutex_;    // guards what follows
  std::condition_variable wake_;
  std::condition_variable done_;
  Job* job_ = nullptr;
  std::uint64_t generation_ = 0;
  int active_ = 0;
  bool stopping_ = false;
};

/// The process's pool, made when first used and remade when its size is set.
struct PoolHolder {
  std::mutex mutex;
  std::shared_ptr<ThreadPool> pool;

  std::shared_ptr<ThreadPool> get() {
    const std::lock_guard lock(mutex);
    if (pool == nullptr) pool = std::make_shared<ThreadPool>(default_num_threads());
    return pool;
  }
};

PoolHolder& holder() {
  static PoolHolder instance;
  return instance;
}

}  // namespace

int num_threads() { return holder().get()->threads(); }

void set_num_threads(int count) {
  TENON_CHECK(count >= 1, "set_num_threads: the count must be at least 1, got ", count);
  TENON_CHECK(!inside_chunk, "set_num_threads: not from inside parallel_for");
  PoolHolder& pools = holder();
  std::shared_ptr<ThreadPool> replaced;  // joined after the lock is released
  const std::lock_guard lock(pools.mutex);
  if (pools.pool != nullptr && pools.pool->threads() == count) return;
  replaced = std::exchange(pools.pool, std::make_shared<ThreadPool>(count));
}

namespace detail {

void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, RangeFunction body) {
  TENON_CHECK(grain >= 1, "parallel_for: the grain must be at least 1, got ", grain);
  if (begin >= end) return;
  std::shared_ptr<ThreadPool> pool;
  const bool serial =
      inside_chunk || end - begin <= grain || (pool = holder().get())->threads() == 1;
  if (!serial) {
    pool->run(begin, end, grain, body);
    return;
  }
  for (std::int64_t first = begin; first < end; first += grain) {
    body(first, std::min(end, first + grain));
  }
}

}  // namespace detail
}  // namespace tenon
