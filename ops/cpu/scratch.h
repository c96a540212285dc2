// Scratch memory of a kernel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "tenon/core/memory.h"

namespace tenon::ops::cpu {

/// Uninitialised memory for `count` elements, freed with this object and counted in
/// `memory_stats`.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : storage_(Storage::allocate(static_cast<std::size_t>(count) * sizeof(T), Device::cpu())),
        count_(count) {}

  T* data() const { return reinterpret_cast<T*>(storage_->data()); }
  std::int64_t size() const { return count_; }
  void fill_zero() const { std::fill_n(data(), count_, T{}); }

 private:
  std::shared_ptr<Storage> storage_;
  std::int64_t count_;
};

}  // namespace tenon::ops::cpu
