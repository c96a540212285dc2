// Memory: reference-counted buffers, and the counters that say how much is in use.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "tenon/core/device.h"
#include "tenon/core/stream.h"

namespace tenon {

namespace detail {
class DerivedTensors;
}

/// Alignment of every CPU buffer in bytes: one cache line, one AVX-512 register.
inline constexpr std::size_t kAlignment = 64;

/// What a device's allocator has handed out, in bytes.
struct MemoryStats {
  std::int64_t in_use = 0;       ///< allocated and not yet freed
  std::int64_t peak = 0;         ///< largest `in_use` since the last `reset_peak_memory`
  std::int64_t allocations = 0;  ///< how many buffers were ever allocated
  std::int64_t reserved = 0;     ///< held of the system: `in_use`, and what a pool keeps for reuse
};

/// Counters of `device` since the program began (buffers of `from_blob` are not counted).
MemoryStats memory_stats(Device device);
/// Sets `peak` to what is in use now.
void reset_peak_memory(Device device);

/// An order of elements in memory that a tensor's strides do not describe, in which kernels of a
/// kind work and hand each other their results.
class ElementOrder {
 public:
  virtual ~ElementOrder() = default;
  /// Writes the elements at `source`, which are in this order, to `target` in that of the strides.
  virtual void restore(const std::byte* source, std::byte* target) const = 0;
};

/// A block of memory on one device, freed with its last owner. Tensors that are views of one
/// another share one. Also what kernels take their scratch space from, so that it is counted.
///
/// On a GPU memory belongs to the stream that was current when it was allocated: only work sent
/// there later can get it again. It is free as soon as its last owner is gone and the work sent so
/// far to that stream, and to the one then current on the thread of the last owner, is done. Where
/// other streams work with it, `record_stream` must say so.
class Storage {
 public:
  /// `bytes` of uninitialised memory. Throws `Error` naming the size when there is none.
  static std::shared_ptr<Storage> allocate(std::size_t bytes, Device device);
  /// Memory that somebody else owns; `deleter` (may be empty) is called with `data` at the end.
  static std::shared_ptr<Storage> adopt(void* data, std::size_t bytes, Device device,
                                        std::function<void(void*)> deleter);

  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  ~Storage();

  /// Where the elements are, in the order of the tensors' strides: `set_order` comes to its end.
  /// Then this takes a while and works on all threads, so that kernels call it before they hand out
  /// work.
  std::byte* data() const {
    std::byte* const data = data_.load(std::memory_order_acquire);
    return data != nullptr ? data : restored();
  }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  /// The stream that it was allocated on.
  const Stream& home() const { return home_; }
  /// True for memory of our own allocator, which nobody else writes to.
  bool owned() const { return owned_; }

  /// How often the contents were changed in place. Autograd compares it with the number it saw
  /// when it saved a tensor.
  std::uint32_t version() const { return version_.load(std::memory_order_relaxed); }
  void bump_version() { version_.fetch_add(1, std::memory_order_relaxed); }

  /// Says that the elements just written are in `order`. They stay so until somebody asks for
  /// `data`: kernels that know the order ask for `reordered` first. For memory of our own on the
  /// CPU, which nobody else has a pointer to.
  void set_order(std::shared_ptr<const ElementOrder> order);
  struct Reordered {
    std::shared_ptr<Storage> memory;
    std::shared_ptr<const ElementOrder> order;
  };
  /// The elements in the order that was set; null when they are in that of the strides. What is
  /// returned stays as it is while others restore the order.
  std::shared_ptr<const Reordered> reordered() const;

  /// Keeps the memory from being used for something else until the work that `stream` has been sent
  /// when the last owner goes is done. Any thread may call.
  void record_stream(const Stream& stream);

  /// The tensors computed from the contents (core/derived.h), freed with this.
  detail::DerivedTensors& derived();

 private:
  struct Key {};

 public:
  /// For `allocate` and `adopt`, which alone have a key.
  Storage(Key, std::byte* data, std::size_t bytes, Device device,
          std::function<void(void*)> deleter)
      : data_(data),
        bytes_(bytes),
        device_(device),
        home_(Stream::current(device)),
        deleter_(std::move(deleter)) {}

 private:
  std::byte* restored() const;

  mutable std::atomic<std::byte*> data_;  // null while the elements are reordered
  std::size_t bytes_;
  Device device_;
  Stream home_;                                         // that the memory was allocated on
  mutable std::mutex mutex_;                            // guards the next two
  std::vector<Stream> users_;                           // others that work with it
  mutable std::shared_ptr<const Reordered> reordered_;  // null once restored
  std::function<void(void*)> deleter_;                  // empty for memory of our own allocator
  bool owned_ = false;
  std::atomic<std::uint32_t> version_{0};
  std::atomic<detail::DerivedTensors*> derived_{nullptr};  // owned; null until asked for
};

}  // namespace tenon
