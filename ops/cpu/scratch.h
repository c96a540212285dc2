// Scratch memory of a kernel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "tenon/core/half.h"
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

/// `source` in the compute type: itself, or a copy kept in `copy`.
template <class T>
const compute_type<T>* as_compute(const T* source, std::int64_t count,
                                  const Scratch<compute_type<T>>& copy) {
  if constexpr (std::is_same_v<T, compute_type<T>>) {
    return source;
  } else {
    std::transform(source, source + count, copy.data(),
                   [](T value) { return static_cast<compute_type<T>>(value); });
    return copy.data();
  }
}

/// How many elements a copy in the compute type takes: none where T is that type.
template <class T>
constexpr std::int64_t copy_size(std::int64_t count) {
  return std::is_same_v<T, compute_type<T>> ? 0 : count;
}

}  // namespace tenon::ops::cpu
