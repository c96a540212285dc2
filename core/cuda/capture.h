// Work of a stream recorded as a CUDA graph, and the memory that it works in; see
// core/captured_step.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "tenon/core/device.h"
#include "tenon/core/stream.h"

namespace tenon::cuda {

/// The memory of a recording. A graph has the addresses of its tensors in it, so their memory is
/// its alone; within the recording, whose work runs in order, freed memory serves again. All of it
/// goes back to the device's pool at the end.
class CapturePool {
 public:
  explicit CapturePool(Device device) : device_(device) {}
  ~CapturePool();
  CapturePool(const CapturePool&) = delete;
  CapturePool& operator=(const CapturePool&) = delete;

  /// `bytes` at least. Throws `Error` when the device has no more.
  void* take(std::size_t bytes);
  void give(void* block) noexcept;
  /// Work of `stream` uses the memory from now on.
  void use_on(const Stream& stream);

 private:
  /// What is allocated for `bytes`, so that the block can serve others.
  static std::size_t rounded(std::size_t bytes);

  Device device_;
  std::mutex mutex_;
  std::unordered_map<void*, std::size_t> blocks_;  // all of them, and their sizes
  std::multimap<std::size_t, void*> free_;
  std::vector<Stream> users_;
};

/// The pool that memory allocated on `stream` comes from, or null when that is the device's.
CapturePool* capture_pool(const Stream& stream);

/// A recorded graph.
class CapturedGraph {
 public:
  CapturedGraph(cudaGraph_t graph, const Stream& stream);
  ~CapturedGraph();
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;

  /// Sends it to the device's current stream.
  void launch();
  std::int64_t node_count() const { return node_count_; }

 private:
  Stream stream_;  // that was captured; has the memory
  cudaGraphExec_t executable_ = nullptr;
  std::int64_t node_count_ = 0;
};

/// Records what is sent to a stream of its own, from its construction to `finish`.
class StreamCapture {
 public:
  explicit StreamCapture(Device device);
  /// Drops what was recorded unless it was finished.
  ~StreamCapture();
  StreamCapture(const StreamCapture&) = delete;
  StreamCapture& operator=(const StreamCapture&) = delete;

  /// The stream, to be made the current one for what is to be recorded.
  const Stream& stream() const { return stream_; }
  /// The recorded work. Throws `Error` when something in it could not be recorded.
  std::unique_ptr<CapturedGraph> finish();

 private:
  friend bool defer_free(void*, std::size_t, const Stream&, std::span<const Stream>);

  struct DeferredFree {
    void* data;
    std::size_t bytes;
    Stream home;
    std::vector<Stream> users;
  };

  cudaStream_t handle() const { return static_cast<cudaStream_t>(stream_.handle()); }
  cudaError_t end(cudaGraph_t* graph) noexcept;

  Stream stream_;
  std::vector<DeferredFree> deferred_;
};

/// Takes memory of the device's pool that is freed on a thread that records: it goes back when the
/// recording has ended, for freeing is work of a stream too. False where nothing is recorded.
bool defer_free(void* data, std::size_t bytes, const Stream& home, std::span<const Stream> users);

}  // namespace tenon::cuda
