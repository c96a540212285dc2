#include "tenon/core/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "tenon/core/error.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::expect_error;

/// Restores the number of threads.
class Parallel : public testing::Test {
 protected:
  void TearDown() override { set_num_threads(before_); }

 private:
  int before_ = num_threads();
};

TEST_F(Parallel, CoversEveryRangeExactlyOnceInChunksOfTheGrain) {
  for (int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    for (std::int64_t begin : {-7, 0, 5}) {
      for (std::int64_t length : {0, 1, 2, 7, 64, 1000}) {
        for (std::int64_t grain : {1, 3, 64, 1000, 100000}) {
          std::vector<std::atomic<int>> seen(static_cast<std::size_t>(length));
          parallel_for(begin, begin + length, grain, [&](std::int64_t first, std::int64_t last) {
            EXPECT_EQ((first - begin) % grain, 0);
            EXPECT_EQ(last, std::min(begin + length, first + grain));
            for (std::int64_t i = first; i < last; ++i) ++seen[static_cast<std::size_t>(i - begin)];
          });
          for (const auto& count : seen) ASSERT_EQ(count, 1);
        }
      }
    }
  }
}

TEST_F(Parallel, SharesCoverEveryRangeExactlyOnceInChunksOfTheGrain) {
  for (int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    for (std::int64_t length : {0, 1, 2, 7, 64, 1000}) {
      for (std::int64_t grain : {1, 3, 64, 100000}) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(length));
        parallel_for_shares(5, 5 + length, grain, [&](std::int64_t first, std::int64_t last) {
          EXPECT_EQ((first - 5) % grain, 0);
          EXPECT_EQ(last, std::min(5 + length, first + grain));
          for (std::int64_t i = first; i < last; ++i) ++seen[static_cast<std::size_t>(i - 5)];
        });
        for (const auto& count : seen) ASSERT_EQ(count, 1);
      }
    }
  }
}

TEST_F(Parallel, EachThreadBeginsWithItsShare) {
  set_num_threads(3);
  std::vector<std::thread::id> owner(3);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::thread::id> ran(9);
    std::atomic<int> begun{0};
    parallel_for_shares(0, 9, 1, [&](std::int64_t i, std::int64_t) {
      ran[static_cast<std::size_t>(i)] = std::this_thread::get_id();
      // Nobody takes a second chunk before all have taken their first.
      ++begun;
      while (begun < 3) std::this_thread::yield();
    });
    EXPECT_EQ(ran[0], std::this_thread::get_id()) << "the caller has the first share";
    for (std::size_t share = 0; share < 3; ++share) {
      if (round == 0) owner[share] = ran[3 * share];
      EXPECT_EQ(ran[3 * share], owner[share]) << "the same in every range";
    }
  }
}

TEST_F(Parallel, ThreadsHelpTheOthersWithTheirShares) {
  set_num_threads(3);
  for (int round = 0; round < 2; ++round) {
    const std::thread::id caller = std::this_thread::get_id();
    std::atomic<int> left{6};
    parallel_for_shares(0, 6, 1, [&](std::int64_t, std::int64_t) {
      --left;
      while (std::this_thread::get_id() == caller && left > 0) std::this_thread::yield();
    });
    EXPECT_EQ(left, 0);
  }
}

TEST_F(Parallel, AnEmptyOrReversedRangeCallsNothing) {
  int calls = 0;
  parallel_for(3, 3, 1, [&](std::int64_t, std::int64_t) { ++calls; });
  parallel_for(3, -2, 1, [&](std::int64_t, std::int64_t) { ++calls; });
  EXPECT_EQ(calls, 0);
}

TEST_F(Parallel, TakesRangesAtTheEndsOfInt64) {
  set_num_threads(4);
  std::atomic<std::int64_t> items{0};
  const auto count = [&](std::int64_t first, std::int64_t last) {
    EXPECT_LT(first, last);
    items += last - first;
  };
  parallel_for(INT64_MAX - 10, INT64_MAX, 3, count);
  EXPECT_EQ(items, 10);
  parallel_for(INT64_MIN, INT64_MIN + 10, 3, count);
  EXPECT_EQ(items, 20);
  parallel_for(0, 10, INT64_MAX, count);
  EXPECT_EQ(items, 30);
  set_num_threads(1);
  parallel_for(INT64_MAX - 10, INT64_MAX, 3, count);
  EXPECT_EQ(items, 40);
}

TEST_F(Parallel, UsesTheThreadsThatWereAskedFor) {
  set_num_threads(3);
  EXPECT_EQ(num_threads(), 3);
  std::mutex mutex;
  std::set<std::thread::id> used;
  std::atomic<int> waiting{0};
  parallel_for(0, 3, 1, [&](std::int64_t, std::int64_t) {
    // Three chunks that wait for one another need three threads.
    ++waiting;
    while (waiting < 3) std::this_thread::yield();
    const std::lock_guard lock(mutex);
    used.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(used.size(), 3u);
  EXPECT_EQ(used.count(std::this_thread::get_id()), 1u) << "the caller works too";
}

TEST_F(Parallel, ANestedCallRunsOnTheThreadOfItsChunk) {
  set_num_threads(4);
  std::atomic<int> items{0};
  parallel_for(0, 8, 1, [&](std::int64_t, std::int64_t) {
    const std::thread::id outer = std::this_thread::get_id();
    std::int64_t expected = 0;
    parallel_for(0, 100, 7, [&](std::int64_t first, std::int64_t last) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      EXPECT_EQ(first, expected) << "in order";
      expected = last;
      items += static_cast<int>(last - first);
    });
  });
  EXPECT_EQ(items, 800);
}

TEST_F(Parallel, TheFirstExceptionReachesTheCallerAndThePoolStaysUsable) {
  for (int threads : {1, 4}) {
    set_num_threads(threads);
    std::atomic<int> finished{0};
    expect_error(
        [&] {
          parallel_for(0, 1000, 1, [&](std::int64_t first, std::int64_t) {
            TENON_CHECK(first != 5, "chunk ", first, " failed");
            ++finished;
          });
        },
        {"chunk 5 failed"});
    EXPECT_LT(finished, 1000) << "the chunks not yet begun were dropped";
    finished = 0;
    expect_error(
        [&] {
          parallel_for_shares(0, 1000, 1, [&](std::int64_t first, std::int64_t) {
            TENON_CHECK(first != 5, "chunk ", first, " failed");
            ++finished;
          });
        },
        {"chunk 5 failed"});
    EXPECT_LT(finished, 1000) << "of all shares";
    std::atomic<int> items{0};
    parallel_for(0, 100, 9, [&](std::int64_t first, std::int64_t last) {
      items += static_cast<int>(last - first);
    });
    EXPECT_EQ(items, 100);
  }
}

TEST_F(Parallel, AnExceptionOfANestedCallPassesThroughBoth) {
  set_num_threads(4);
  expect_error(
      [] {
        parallel_for(0, 4, 1, [](std::int64_t, std::int64_t) {
          parallel_for(0, 4, 1, [](std::int64_t first, std::int64_t) {
            TENON_CHECK(first != 2, "inner chunk failed");
          });
        });
      },
      {"inner chunk failed"});
}

TEST_F(Parallel, SumsKeptPerChunkDoNotDependOnTheNumberOfThreads) {
  std::vector<std::vector<float>> results;
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    std::vector<float> sums(13);
    parallel_for(0, 1234, 100, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        sums[static_cast<std::size_t>(first / 100)] += 1.0f / static_cast<float>(i + 1);
      }
    });
    results.push_back(sums);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST_F(Parallel, SeveralThreadsMayCallAtOnce) {
  set_num_threads(3);
  std::atomic<std::int64_t> total{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        parallel_for(0, 64, 5,
                     [&](std::int64_t first, std::int64_t last) { total += last - first; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total, 4 * 50 * 64);
}

TEST_F(Parallel, TheNumberOfThreadsMayChangeWhileOthersRun) {
  std::atomic<std::int64_t> total{0};
  std::thread caller([&] {
    for (int round = 0; round < 200; ++round) {
      parallel_for(0, 64, 5, [&](std::int64_t first, std::int64_t last) { total += last - first; });
    }
  });
  for (int round = 0; round < 20; ++round) set_num_threads(1 + round % 4);
  caller.join();
  EXPECT_EQ(total, 200 * 64);
}

TEST_F(Parallel, RejectsBadCountsAndGrains) {
  expect_error([] { set_num_threads(0); }, {"set_num_threads", "got 0"});
  expect_error([] { set_num_threads(-3); }, {"set_num_threads", "got -3"});
  expect_error([] { set_num_threads(1000000); }, {"set_num_threads", "1024", "got 1000000"});
  const auto nothing = [](std::int64_t, std::int64_t) {};
  expect_error([&] { parallel_for(0, 10, 0, nothing); }, {"parallel_for", "grain", "got 0"});
  expect_error([&] { parallel_for(0, 10, -1, nothing); }, {"parallel_for", "got -1"});
  set_num_threads(2);
  expect_error(
      [] { parallel_for(0, 8, 1, [](std::int64_t, std::int64_t) { set_num_threads(3); }); },
      {"set_num_threads", "parallel_for"});
}

/// Exits with the number of threads that a fresh process has with TENON_NUM_THREADS=`value`.
void exit_with_num_threads(const char* value) {
  setenv("TENON_NUM_THREADS", value, 1);
  std::exit(num_threads());
}

TEST(ParallelDeathTest, TheEnvironmentSetsTheNumberOfThreads) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // starts a process in which no pool exists yet
  EXPECT_EXIT(exit_with_num_threads("3"), testing::ExitedWithCode(3), "");
}

TEST(ParallelDeathTest, ABadEnvironmentIsIgnored) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  unsetenv("TENON_NUM_THREADS");
  for (const char* bad : {"0", "-2", "many", "3x", "", "999999999999", "100000"}) {
    EXPECT_EXIT(
        {
          setenv("TENON_NUM_THREADS", bad, 1);
          const int with_bad_value = num_threads();
          std::exit(with_bad_value >= 1 && with_bad_value != 3 ? 0 : 1);
        },
        testing::ExitedWithCode(0), "")
        << bad;
  }
}

}  // namespace
}  // namespace tenon
