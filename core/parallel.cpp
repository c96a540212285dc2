#include "tenon/core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "tenon/core/error.h"

namespace tenon {
namespace {

thread_local bool inside_chunk = false;

/// More is a mistake, and would exhaust the machine before the system refuses.
constexpr int kMaxThreads = 1024;

/// Those that this process may use.
int processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

int default_num_threads() {
  if (const char* text = std::getenv("TENON_NUM_THREADS")) {
    int count = 0;
    const char* end = text + std::strlen(text);
    const auto [stop, error] = std::from_chars(text, end, count);
    if (error == std::errc{} && stop == end && count > 0 && count <= kMaxThreads) {
      return count;
    }
  }
  return processors();
}

/// A range cut into chunks of `grain` items. Distances are unsigned: that from the smallest to the
/// largest int64 has no signed value.
struct Chunks {
  std::int64_t begin;
  std::int64_t end;
  std::int64_t grain;

  std::uint64_t items() const {
    return static_cast<std::uint64_t>(end) - static_cast<std::uint64_t>(begin);
  }
  std::uint64_t count() const {
    const auto size = static_cast<std::uint64_t>(grain);
    return items() / size + (items() % size != 0 ? 1 : 0);
  }
  void run(const detail::RangeFunction& body, std::uint64_t chunk) const {
    const std::uint64_t skipped = chunk * static_cast<std::uint64_t>(grain);
    const auto first = static_cast<std::int64_t>(static_cast<std::uint64_t>(begin) + skipped);
    const bool whole = items() - skipped >= static_cast<std::uint64_t>(grain);
    body(first, whole ? first + grain : end);
  }
};

/// Looks for `condition` for so long that the others usually end and the next op of a program
/// begins: who sleeps is woken by the system, which takes as long as a small op.
template <class Condition>
void look_for(const Condition& condition) {
  constexpr auto kLongest = std::chrono::microseconds(100);
  constexpr int kLooks = 32;  // between two looks at the clock
  const auto end = std::chrono::steady_clock::now() + kLongest;
  while (!condition()) {
    for (int i = 0; i < kLooks; ++i) {
#ifdef __x86_64__
      __builtin_ia32_pause();
#endif
      if (condition()) return;
    }
    if (std::chrono::steady_clock::now() >= end) return;
  }
}

/// Neighbouring chunks that are taken in their order, on a cache line of its own.
struct alignas(64) Share {
  std::atomic<std::uint64_t> next{0};
  std::uint64_t end = 0;
};

/// Workers that wait for one range at a time and take its chunks.
class ThreadPool {
 public:
  explicit ThreadPool(int threads)
      : shares_(static_cast<std::size_t>(threads)), looks_(threads <= processors()) {
    try {
      for (int i = 1; i < threads; ++i) {
        workers_.emplace_back([this, i] { work(static_cast<std::size_t>(i)); });
      }
    } catch (const std::system_error& error) {
      const std::size_t started = workers_.size();
      stop();
      detail::fail(detail::concat("set_num_threads: the system starts no more than ", started,
                                  " threads, ", threads, " are wanted: ", error.what()));
    }
  }

  ~ThreadPool() { stop(); }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(const Chunks& chunks, detail::ChunkOrder order, detail::RangeFunction body) {
    const std::lock_guard caller(callers_);
    Job job(body, chunks, cut(chunks.count(), order));
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++generation_;
    }
    wake_.notify_all();
    job.take_chunks(0);
    {
      const std::lock_guard lock(mutex_);
      job_ = nullptr;  // nobody begins any more
    }
    if (looks_) look_for([this] { return active_ == 0; });
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return active_ == 0; });
    if (job.error) std::rethrow_exception(job.error);
  }

 private:
  struct Job {
    detail::RangeFunction body;
    Chunks chunks;
    std::span<Share> shares;
    std::mutex error_mutex{};
    std::exception_ptr error{};

    Job(detail::RangeFunction f, const Chunks& cut, std::span<Share> all)
        : body(f), chunks(cut), shares(all) {}

    /// Those of the share that is the thread's own, then what is left of the others'.
    void take_chunks(std::size_t thread) {
      inside_chunk = true;
      for (std::size_t i = 0; i < shares.size(); ++i) {
        take_share(shares[(thread + i) % shares.size()]);
      }
      inside_chunk = false;
    }

   private:
    void take_share(Share& share) {
      for (;;) {
        const std::uint64_t chunk = share.next.fetch_add(1);
        if (chunk >= share.end) break;
        try {
          chunks.run(body, chunk);
        } catch (...) {
          const std::lock_guard lock(error_mutex);
          if (!error) error = std::current_exception();
          for (Share& each : shares) each.next.store(each.end);
        }
      }
    }
  };

  /// One share for all threads, or one for each.
  std::span<Share> cut(std::uint64_t count, detail::ChunkOrder order) {
    const std::size_t parts = order == detail::ChunkOrder::Increasing ? 1 : shares_.size();
    std::uint64_t next = 0;
    for (std::size_t i = 0; i < parts; ++i) {
      shares_[i].next = next;
      next += count / parts + (i < count % parts ? 1 : 0);
      shares_[i].end = next;
    }
    return {shares_.data(), parts};
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  void work(std::size_t thread) {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_, std::defer_lock);
    for (;;) {
      if (looks_) look_for([&] { return stopping_ || generation_ != seen; });
      lock.lock();
      wake_.wait(lock, [&] { return stopping_ || (job_ != nullptr && generation_ != seen); });
      if (stopping_) return;
      seen = generation_;
      Job* job = job_;
      ++active_;
      lock.unlock();
      job->take_chunks(thread);
      lock.lock();
      if (--active_ == 0) done_.notify_all();
      lock.unlock();
    }
  }

  std::vector<std::thread> workers_;
  std::vector<Share> shares_;  // of the range that is running
  std::mutex callers_;         // held by the thread whose range is running
  std::mutex mutex_;           // guards what follows
  std::condition_variable wake_;
  std::condition_variable done_;
  Job* job_ = nullptr;
  std::atomic<std::uint64_t> generation_ = 0;
  std::atomic<int> active_ = 0;
  std::atomic<bool> stopping_ = false;
  const bool looks_;  // whether there is a processor for each thread
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
  TENON_CHECK(count >= 1 && count <= kMaxThreads, "set_num_threads: the count must be from 1 to ",
              kMaxThreads, ", got ", count);
  TENON_CHECK(!inside_chunk, "set_num_threads: not from inside parallel_for");
  PoolHolder& pools = holder();
  std::shared_ptr<ThreadPool> replaced;  // joined after the lock is released
  const std::lock_guard lock(pools.mutex);
  if (pools.pool != nullptr && pools.pool->threads() == count) return;
  replaced = std::exchange(pools.pool, std::make_shared<ThreadPool>(count));
}

namespace detail {

void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, ChunkOrder order,
                  RangeFunction body) {
  TENON_CHECK(grain >= 1, "parallel_for: the grain must be at least 1, got ", grain);
  if (begin >= end) return;
  const Chunks chunks{begin, end, grain};
  const std::uint64_t count = chunks.count();
  std::shared_ptr<ThreadPool> pool;
  const bool serial = inside_chunk || count == 1 || (pool = holder().get())->threads() == 1;
  if (!serial) {
    pool->run(chunks, order, body);
    return;
  }
  for (std::uint64_t chunk = 0; chunk < count; ++chunk) chunks.run(body, chunk);
}

}  // namespace detail
}  // namespace tenon
