#include "tenon/ops/tuning_cache.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "support/environment.h"
#include "support/temporary_directory.h"

namespace tenon::ops {
namespace {

namespace fs = std::filesystem;

class TuningCacheTest : public testing::Test {
 protected:
  fs::path file() const { return folder_ / "choices.json"; }

  test::TemporaryDirectory folder_;
};

const TuningCache::Entry kEntry{{"engine", "37"}, {"plan", R"({"quoted": "\n"})"}};

TEST_F(TuningCacheTest, FindsWhatAnotherObjectStored) {
  TuningCache(file()).store("gpu", "problem", kEntry);
  EXPECT_EQ(TuningCache(file()).find("gpu", "problem"), kEntry);
}

TEST_F(TuningCacheTest, FindsNothingForOtherHardwareOrAnotherProblem) {
  TuningCache cache(file());
  EXPECT_EQ(cache.find("gpu", "problem"), std::nullopt);
  cache.store("gpu", "problem", kEntry);
  EXPECT_EQ(cache.find("another gpu", "problem"), std::nullopt);
  EXPECT_EQ(cache.find("gpu", "another problem"), std::nullopt);
}

TEST_F(TuningCacheTest, ReplacesAnOlderChoice) {
  TuningCache cache(file());
  cache.store("gpu", "problem", {{"engine", "1"}});
  cache.store("gpu", "problem", {{"engine", "2"}});
  EXPECT_EQ(TuningCache(file()).find("gpu", "problem")->at("engine"), "2");
}

TEST_F(TuningCacheTest, MakesItsFolderAndLeavesNoTemporaryFile) {
  const fs::path nested = folder_ / "a/b/choices.json";
  TuningCache(nested).store("gpu", "problem", kEntry);
  std::vector<std::string> names;
  for (const auto& found : fs::directory_iterator(nested.parent_path())) {
    names.push_back(found.path().extension().string());
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{".json", ".lock"}));
}

TEST_F(TuningCacheTest, KeepsWhatAnotherObjectAddedMeanwhile) {
  TuningCache first(file());
  TuningCache second(file());
  EXPECT_EQ(first.find("gpu", "b"), std::nullopt);  // has read the file, which was empty
  second.store("gpu", "b", {{"engine", "2"}});
  first.store("gpu", "a", {{"engine", "1"}});
  TuningCache third(file());
  EXPECT_TRUE(third.find("gpu", "a").has_value());
  EXPECT_TRUE(third.find("gpu", "b").has_value());
}

TEST_F(TuningCacheTest, IgnoresAndReplacesFilesThatAreNotIts) {
  const std::vector<std::string> contents{
      "",
      "{\"format\": \"tenon tun",
      "[1, 2]",
      R"({"entries": {}})",
      R"({"format": "tenon tuning cache 0", "entries": {}})",
      R"({"format": "tenon tuning cache 1", "entries": {"gpu": {"problem": 3}}})",
  };
  for (const std::string& text : contents) {
    test::write_file(file(), text);
    testing::internal::CaptureStderr();
    TuningCache cache(file());
    EXPECT_EQ(cache.find("gpu", "problem"), std::nullopt) << text;
    cache.store("gpu", "problem", kEntry);
    const std::string told = testing::internal::GetCapturedStderr();
    EXPECT_NE(told.find(file().string()), std::string::npos) << text;
    EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 1) << told;
    EXPECT_EQ(TuningCache(file()).find("gpu", "problem"), kEntry) << text;
  }
}

TEST_F(TuningCacheTest, WorksForOneRunWhereNothingCanBeWritten) {
  test::write_file(file(), "a file, where the folder should be");
  testing::internal::CaptureStderr();
  TuningCache cache(file() / "choices.json");
  cache.store("gpu", "a", kEntry);
  cache.store("gpu", "b", kEntry);
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_EQ(cache.find("gpu", "a"), kEntry);
  EXPECT_EQ(cache.find("gpu", "b"), kEntry);
  EXPECT_EQ(std::count(told.begin(), told.end(), '\n'), 1) << told;
}

TEST_F(TuningCacheTest, WithoutAPathItStaysInMemory) {
  TuningCache cache{fs::path()};
  cache.store("gpu", "problem", kEntry);
  EXPECT_EQ(cache.find("gpu", "problem"), kEntry);
}

TEST_F(TuningCacheTest, LosesNothingWhenProcessesAndThreadsWriteAtOnce) {
  constexpr int kProcesses = 4;
  constexpr int kChoices = 8;
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      TuningCache cache(file());
      const auto store = [&](int from, int to) {
        for (int i = from; i < to; ++i) {
          cache.store("gpu " + std::to_string(p), "problem " + std::to_string(i), kEntry);
        }
      };
      std::thread other(store, 0, kChoices / 2);
      store(kChoices / 2, kChoices);
      other.join();
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  TuningCache cache(file());
  for (int p = 0; p < kProcesses; ++p) {
    for (int i = 0; i < kChoices; ++i) {
      EXPECT_EQ(cache.find("gpu " + std::to_string(p), "problem " + std::to_string(i)), kEntry);
    }
  }
}

TEST(CacheDirectory, TakesTheFirstThatIsSet) {
  const test::EnvironmentGuard own("TENON_CACHE_DIR", "/own");
  const test::EnvironmentGuard xdg("XDG_CACHE_HOME", "/xdg");
  const test::EnvironmentGuard home("HOME", "/home/someone");
  EXPECT_EQ(cache_directory(), "/own");
  const test::EnvironmentGuard no_own("TENON_CACHE_DIR", "");
  EXPECT_EQ(cache_directory(), "/xdg/tenon");
  {
    const test::EnvironmentGuard relative("XDG_CACHE_HOME", "relative");
    EXPECT_EQ(cache_directory(), "/home/someone/.cache/tenon");
  }
  const test::EnvironmentGuard no_xdg("XDG_CACHE_HOME", "");
  EXPECT_EQ(cache_directory(), "/home/someone/.cache/tenon");
  const test::EnvironmentGuard no_home("HOME", "");
  EXPECT_EQ(cache_directory(), "");
}

}  // namespace
}  // namespace tenon::ops
