#include "tenon/core/memory.h"

#include <algorithm>
#include <cstdlib>
#include <span>

#ifdef TENON_WITH_CUDA
#include "tenon/core/cuda/runtime.h"
#endif
#include "tenon/core/cpu/large_blocks.h"
#include "tenon/core/derived.h"
#include "tenon/core/dispatch.h"
#include "tenon/core/memory_counters.h"
#include "tenon/core/recycled.h"

namespace tenon {
namespace cpu {
namespace {

/// Of the CPU's allocator.
detail::MemoryCounters& counters() {
  static detail::MemoryCounters instance;
  return instance;
}

/// Freed memory of the process, of blocks of this size. Never destroyed: tensors of static
/// variables are freed late. Those of middle size are kept apart, lest there be too many to look
/// through.
LargeBlocks& large_blocks(std::size_t bytes) {
  constexpr std::size_t kMiddle = std::size_t{128} << 10;
  static LargeBlocks& middle = *std::make_unique<LargeBlocks>(64 * kMiddle).release();
  static LargeBlocks& large = *std::make_unique<LargeBlocks>().release();
  return bytes < kMiddle ? middle : large;
}

/// Under AddressSanitizer every block comes from it and goes back, so that it sees wrong use.
constexpr bool is_large([[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  return false;
#else
  return bytes >= LargeBlocks::kLeastBytes;
#endif
}

}  // namespace

void* allocate(std::size_t bytes, Device) {
  void* data = nullptr;
  if (is_large(bytes)) {
    data = large_blocks(bytes).take(bytes);
    if (data == nullptr) data = allocate_large(bytes);
    if (data == nullptr) {
      large_blocks(0).release();
      large_blocks(SIZE_MAX).release();
      data = allocate_large(bytes);
    }
  } else {
    // aligned_alloc wants a multiple of the alignment; at least one line, so that data() is never
    // null and vector code may read a whole register at the last element.
    const std::size_t lines = bytes / kAlignment + 1;
    if (lines <= SIZE_MAX / kAlignment) data = std::aligned_alloc(kAlignment, lines * kAlignment);
  }
  TENON_CHECK(data != nullptr, "allocate: no memory for ", bytes, " bytes on cpu (",
              counters().stats().in_use, " bytes in use)");
  counters().add(static_cast<std::int64_t>(bytes));
  return data;
}

void deallocate(void* data, std::size_t bytes, const Stream&, std::span<const Stream>) {
  counters().remove(static_cast<std::int64_t>(bytes));
  if (is_large(bytes)) {
    large_blocks(bytes).keep(data, bytes);
  } else {
    std::free(data);
  }
}

MemoryStats memory_stats(Device) { return counters().stats(); }

void reset_peak_memory(Device) { counters().reset_peak(); }

}  // namespace cpu

MemoryStats memory_stats(Device device) { return TENON_DISPATCH(device, memory_stats(device)); }

void reset_peak_memory(Device device) { TENON_DISPATCH(device, reset_peak_memory(device)); }

std::shared_ptr<Storage> Storage::allocate(std::size_t bytes, Device device) {
  void* data = TENON_DISPATCH(device, allocate(bytes, device));
  auto storage =
      detail::make_recycled<Storage>(Key(), static_cast<std::byte*>(data), bytes, device, nullptr);
  storage->owned_ = true;
  return storage;
}

std::shared_ptr<Storage> Storage::adopt(void* data, std::size_t bytes, Device device,
                                        std::function<void(void*)> deleter) {
  return detail::make_recycled<Storage>(Key(), static_cast<std::byte*>(data), bytes, device,
                                        std::move(deleter));
}

void Storage::set_order(std::shared_ptr<const ElementOrder> order) {
  auto memory = detail::make_recycled<Storage>(Key(), data(), bytes_, device_, nullptr);
  memory->owned_ = true;
  const std::lock_guard lock(mutex_);
  reordered_ = detail::make_recycled<Reordered>(Reordered{std::move(memory), std::move(order)});
  data_.store(nullptr, std::memory_order_release);
}

std::shared_ptr<const Storage::Reordered> Storage::reordered() const {
  if (data_.load(std::memory_order_acquire) != nullptr) return nullptr;
  const std::lock_guard lock(mutex_);
  return reordered_;
}

std::byte* Storage::restored() const {
  const std::lock_guard lock(mutex_);
  if (reordered_ == nullptr) return data_.load(std::memory_order_acquire);
  auto* const data = static_cast<std::byte*>(TENON_DISPATCH(device_, allocate(bytes_, device_)));
  reordered_->order->restore(reordered_->memory->data(), data);
  data_.store(data, std::memory_order_release);
  reordered_.reset();
  return data;
}

void Storage::record_stream(const Stream& stream) {
  if (stream.handle() == home_.handle()) return;
  const std::lock_guard lock(mutex_);
  const auto same = [&](const Stream& user) { return user.handle() == stream.handle(); };
  if (std::none_of(users_.begin(), users_.end(), same)) users_.push_back(stream);
}

detail::DerivedTensors& Storage::derived() {
  detail::DerivedTensors* known = derived_.load(std::memory_order_acquire);
  if (known != nullptr) return *known;
  auto made = std::make_unique<detail::DerivedTensors>();
  // Two threads may come here at once: the first one's stays, `known` tells the second.
  if (derived_.compare_exchange_strong(known, made.get(), std::memory_order_acq_rel)) {
    known = made.release();
  }
  return *known;
}

Storage::~Storage() {
  delete derived_.load(std::memory_order_acquire);
  if (owned_) {
    std::byte* const data = data_.load(std::memory_order_acquire);
    if (data != nullptr) TENON_DISPATCH(device_, deallocate(data, bytes_, home_, users_));
  } else if (deleter_) {
    deleter_(data_);
  }
}

}  // namespace tenon
