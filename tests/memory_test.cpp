#include "tenon/core/memory.h"

#include <gtest/gtest.h>

#include <thread>

#include "tenon/core/tensor_body.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using test::expect_error;

MemoryStats stats() { return memory_stats(Device::cpu()); }

TEST(Memory, IsAlignedForEverySize) {
  for (std::size_t bytes : {0, 1, 63, 64, 65, 127, 1000, 4096, 100001}) {
    const auto storage = Storage::allocate(bytes, Device::cpu());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(storage->data()) % kAlignment, 0u) << bytes;
    EXPECT_NE(storage->data(), nullptr);
    EXPECT_EQ(storage->bytes(), bytes);
    EXPECT_EQ(storage->device(), Device::cpu());
  }
}

/// Elements in reverse.
class Reversed : public ElementOrder {
 public:
  explicit Reversed(int count) : count_(count) {}
  void restore(const std::byte* source, std::byte* target) const override {
    for (int i = 0; i < count_; ++i) target[i] = source[count_ - 1 - i];
  }

 private:
  int count_;
};

TEST(Memory, ElementsStayInAnotherOrderUntilSomebodyAsks) {
  const MemoryStats before = stats();
  {
    const auto storage = Storage::allocate(5, Device::cpu());
    EXPECT_EQ(storage->reordered(), nullptr);
    for (int i = 0; i < 5; ++i) storage->data()[i] = static_cast<std::byte>(i);
    std::byte* const written = storage->data();
    storage->set_order(std::make_shared<const Reversed>(5));
    const auto reordered = storage->reordered();
    ASSERT_NE(reordered, nullptr);
    EXPECT_EQ(reordered->memory->data(), written);
    EXPECT_EQ(stats().in_use, before.in_use + 5);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(storage->data()[i], static_cast<std::byte>(4 - i));
    EXPECT_EQ(storage->reordered(), nullptr);
    EXPECT_EQ(reordered->memory->data()[1], static_cast<std::byte>(1)) << "for who has it";
    const auto never_asked = Storage::allocate(7, Device::cpu());
    never_asked->set_order(std::make_shared<const Reversed>(7));
  }
  EXPECT_EQ(stats().in_use, before.in_use);
}

TEST(Memory, CountersFollowAllocationsAndFrees) {
  const MemoryStats before = stats();
  {
    const auto first = Storage::allocate(1000, Device::cpu());
    const auto second = Storage::allocate(24, Device::cpu());
    EXPECT_EQ(stats().in_use, before.in_use + 1024);
    EXPECT_EQ(stats().allocations, before.allocations + 2);
  }
  EXPECT_EQ(stats().in_use, before.in_use);
  EXPECT_EQ(stats().allocations, before.allocations + 2);
}

TEST(Memory, PeakIsTheLargestUseSinceTheReset) {
  reset_peak_memory(Device::cpu());
  const std::int64_t base = stats().in_use;
  EXPECT_EQ(stats().peak, base);
  { const auto big = Storage::allocate(50000, Device::cpu()); }
  const auto small = Storage::allocate(100, Device::cpu());
  EXPECT_EQ(stats().peak, base + 50000);
  reset_peak_memory(Device::cpu());
  EXPECT_EQ(stats().peak, base + 100);
}

TEST(Memory, CountersAreRightWithManyThreads) {
  const MemoryStats before = stats();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 500; ++i) Storage::allocate(64, Device::cpu());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(stats().in_use, before.in_use);
  EXPECT_EQ(stats().allocations, before.allocations + 2000);
}

TEST(Memory, ViewsShareOneBuffer) {
  const MemoryStats before = stats();
  Tensor part;
  {
    const Tensor x = zeros({100, 10});
    part = x.slice(0, 0, 1).transpose(0, 1);
    EXPECT_EQ(stats().allocations, before.allocations + 1);
    EXPECT_EQ(stats().in_use, before.in_use + 4000);
  }
  EXPECT_EQ(stats().in_use, before.in_use + 4000) << "the view keeps the whole buffer";
  part = Tensor();
  EXPECT_EQ(stats().in_use, before.in_use);
}

TEST(Memory, AdoptedMemoryIsNotCountedAndDeletedOnce) {
  const MemoryStats before = stats();
  std::byte bytes[16];
  int deleted = 0;
  {
    const auto storage = Storage::adopt(bytes, 16, Device::cpu(), [&](void* data) {
      EXPECT_EQ(data, bytes);
      ++deleted;
    });
    const std::shared_ptr<Storage> other = storage;
    EXPECT_EQ(storage->data(), bytes);
    EXPECT_EQ(stats().allocations, before.allocations);
  }
  EXPECT_EQ(deleted, 1);
  Storage::adopt(bytes, 16, Device::cpu(), nullptr);
  EXPECT_EQ(stats().in_use, before.in_use);
}

TEST(Memory, ARequestThatCannotBeMetNamesTheBytesAndLeavesAllUsable) {
  const MemoryStats before = stats();
  const std::size_t absurd = std::size_t{1} << 60;
  expect_error([&] { Storage::allocate(absurd, Device::cpu()); },
               {"allocate", "1152921504606846976 bytes", "in use"});
  expect_error([&] { Storage::allocate(SIZE_MAX, Device::cpu()); }, {"18446744073709551615 bytes"});
  expect_error([] { zeros({std::int64_t{1} << 58}); }, {"1152921504606846976 bytes"});
  expect_error([] { arange(0, std::int64_t{1} << 57); }, {"1152921504606846976 bytes"});
  EXPECT_EQ(stats().in_use, before.in_use);
  EXPECT_EQ(ones({3}).to_vector<float>(), (std::vector<float>{1, 1, 1}));
}

TEST(Memory, VersionsCountChangesInPlace) {
  const Tensor x = zeros({3});
  const auto version = [&] { return x.body()->storage->version(); };
  const std::uint32_t first = version();
  x.fill_(1);
  EXPECT_EQ(version(), first + 1);
  x.slice(0, 1).copy_(ones({2}));
  EXPECT_EQ(version(), first + 2) << "a view shares the counter";
  x.clone().fill_(3);
  EXPECT_EQ(version(), first + 2);
}

}  // namespace
}  // namespace tenon
