// The shared thread pool.
#pragma once

#include <cstdint>
#include <type_traits>

namespace tenon {

/// How many threads `parallel_for` uses, the calling one included. At first `TENON_NUM_THREADS`
/// if it is set to a positive number, otherwise the number of processors this process may use.
int num_threads();
/// Sets it, at least 1. Not to be called from inside `parallel_for`.
void set_num_threads(int count);

namespace detail {

/// A reference to a callable `void(int64_t begin, int64_t end)`; does not own it.
class RangeFunction {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_const_t<F>, RangeFunction>)
      RangeFunction(F& function)  // NOLINT(implicit)
      : object_(const_cast<std::remove_const_t<F>*>(&function)),
        call_([](void* object, std::int64_t begin, std::int64_t end) {
          (*static_cast<F*>(object))(begin, end);
        }) {}
  void operator()(std::int64_t begin, std::int64_t end) const { call_(object_, begin, end); }

 private:
  void* object_;
  void (*call_)(void*, std::int64_t, std::int64_t);
};

/// In which order the chunks of a range begin: that of the range, or each thread's own.
enum class ChunkOrder { Increasing, OfThreads };

void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, ChunkOrder order,
                  RangeFunction body);

}  // namespace detail

/// Calls `body(chunk_begin, chunk_end)` for consecutive chunks of exactly `grain` items (the last
/// may be shorter) that cover [begin, end). Chunks start in increasing order and run on the pool's
/// threads. The cut does not depend on the number of threads: a sum kept per chunk is the same for
/// any. A call inside a chunk runs serially. The first exception of a chunk is thrown to the
/// caller after the running chunks have ended; chunks not yet begun are dropped.
template <class F>
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, F&& body) {
  std::remove_reference_t<F>& callable = body;
  detail::parallel_for(begin, end, grain, detail::ChunkOrder::Increasing,
                       detail::RangeFunction(callable));
}

/// The same for chunks that may begin in any order: every thread begins with neighbours that are
/// its own, the same part of each range, and then helps the others. What it wrote of a tensor is
/// still in its processor's cache when it reads that part in the next op.
template <class F>
void parallel_for_shares(std::int64_t begin, std::int64_t end, std::int64_t grain, F&& body) {
  std::remove_reference_t<F>& callable = body;
  detail::parallel_for(begin, end, grain, detail::ChunkOrder::OfThreads,
                       detail::RangeFunction(callable));
}

}  // namespace tenon
