#include "tenon/core/recycled.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace tenon::detail {
namespace {

struct Counted {
  static inline std::atomic<int> alive{0};
  int value;

  explicit Counted(int number) : value(number) { ++alive; }
  ~Counted() { --alive; }
};

TEST(Recycled, AnObjectLivesAsLongAsItsOwners) {
  auto object = make_recycled<Counted>(7);
  const auto second = object;
  const std::weak_ptr<Counted> weak = object;
  object.reset();
  EXPECT_EQ(weak.lock()->value, 7);
  EXPECT_EQ(Counted::alive, 1);
}

TEST(Recycled, WhatWasFreedLastIsHandedOutNext) {
  if (kWithAddressSanitizer) GTEST_SKIP() << "what is freed is really freed";
  auto first = make_recycled<Counted>(1);
  const auto second = make_recycled<Counted>(2);
  const void* place = first.get();
  first.reset();
  EXPECT_EQ(make_recycled<Counted>(3).get(), place);
}

// More than are kept, made on one thread and freed on another that ends.
TEST(Recycled, ObjectsMayBeFreedOnAnotherThread) {
  constexpr int kObjects = 10000;
  std::vector<std::shared_ptr<Counted>> objects;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < kObjects; ++i) objects.push_back(make_recycled<Counted>(i));
    EXPECT_EQ(Counted::alive, kObjects);
    std::thread([&] {
      for (int i = 0; i < kObjects; ++i) {
        EXPECT_EQ(objects[static_cast<std::size_t>(i)]->value, i);
      }
      objects.clear();
      objects.push_back(make_recycled<Counted>(0));
    }).join();
    EXPECT_EQ(Counted::alive, 1);
    objects.clear();
  }
}

}  // namespace
}  // namespace tenon::detail
