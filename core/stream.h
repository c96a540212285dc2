// Streams and events: the order of work on a device. On the CPU work is done when a call returns,
// so both are empty shells there and code can be written once.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "tenon/core/device.h"

namespace tenon {

/// A queue of work on one device. Work of one stream runs in order; that of two streams may
/// overlap. Cheap to copy.
class Stream {
 public:
  /// The stream that this thread sends work on `device` to. At first the device's default stream.
  static Stream current(Device device);
  /// A new stream that does not wait for the default one.
  static Stream create(Device device);

  Device device() const { return device_; }
  /// Waits until all work sent so far is done; throws `Error` when some of it failed.
  void synchronize() const;
  /// The `cudaStream_t`; null on the CPU. The default stream is one of Tenon's own, to which
  /// launches cost the host less than to CUDA's; each of the two waits for the other's work, as
  /// CUDA's streams do unless they are asked not to.
  void* handle() const;

  /// A stream of `device` that ends with the last owner of `handle`, a `cudaStream_t`. For core.
  static Stream own(Device device, std::shared_ptr<void> handle) {
    return {device, std::move(handle)};
  }
  /// What keeps it alive; null for the default stream. For core.
  const std::shared_ptr<void>& owner() const { return handle_; }

 private:
  friend class StreamGuard;
  Stream(Device device, std::shared_ptr<void> handle)
      : device_(device), handle_(std::move(handle)) {}

  Device device_;
  std::shared_ptr<void> handle_;  // null for the default stream
};

/// Makes `stream` the current one of its device on this thread for the guard's lifetime.
class StreamGuard {
 public:
  explicit StreamGuard(const Stream& stream);
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;
  StreamGuard& operator=(const StreamGuard&) = delete;

 private:
  Stream previous_;
};

/// A point in a stream: to wait for, or to measure time between.
class Event {
 public:
  explicit Event(Device device);

  /// Marks the work sent to the device's current stream so far. Throws `Error` while a
  /// `CapturedStep` is recorded there.
  void record();
  /// Makes later work of `stream` wait for the mark.
  void block(const Stream& stream) const;
  /// Waits on the host for the mark.
  void synchronize() const;
  /// Milliseconds from this mark to `end`'s; waits for `end`. By the device's clock, on the CPU by
  /// the steady clock at the time of `record`.
  double elapsed_ms(const Event& end) const;

 private:
  Device device_;
  std::shared_ptr<void> handle_;
  double host_ms_ = 0;
};

/// Waits for all work on `device`; throws `Error` when some of it failed.
void synchronize(Device device);

/// How often the host has waited for work on `device` since the program began: synchronisations,
/// copies to the host, copies from it that ran ahead too far, memory that had to be waited for. A
/// training step adds none once its kernels are loaded and its plans chosen. Always 0 for the CPU.
std::int64_t wait_count(Device device);

/// How many CUDA devices can be used; 0 in a build without CUDA and on a machine without a GPU.
int cuda_device_count();

}  // namespace tenon
