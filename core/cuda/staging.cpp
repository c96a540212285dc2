#include "tenon/core/cuda/staging.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/error.h"

namespace tenon::cuda {
namespace {

constexpr int kMaxDevices = 16;
constexpr std::size_t kRingBytes = std::size_t{64} << 20;
/// A larger copy goes in pieces: while the device reads one, the host fills the next.
constexpr std::size_t kPieceBytes = kRingBytes / 8;
/// Pieces begin at multiples of this, a cache line of host and device.
constexpr std::size_t kPieceAlignment = 128;

/// Page-locked memory that is filled round and round. Positions count on for ever; the byte of
/// position p lies at p modulo the ring's size, and a piece never crosses the ring's end.
class StagingRing {
 public:
  void send(const std::byte* source, std::byte* target, std::size_t bytes, Device device) {
    const DeviceGuard guard(device);
    const cudaStream_t stream = current_stream(device);
    const std::lock_guard lock(mutex_);
    for (std::size_t sent = 0; sent < bytes; sent += kPieceBytes) {
      const std::size_t count = std::min(bytes - sent, kPieceBytes);
      std::byte* const piece = reserve(count, device);
      std::memcpy(piece, source + sent, count);
      TENON_CUDA_CHECK(
          cudaMemcpyAsync(target + sent, piece, count, cudaMemcpyHostToDevice, stream));
      TENON_CUDA_CHECK(cudaEventRecord(under_way_.back().read, stream));
    }
  }

 private:
  /// A part of the ring that the device may not have read yet.
  struct Piece {
    std::uint64_t begin;
    cudaEvent_t read;
  };

  /// Room for `bytes`, at most kPieceBytes, whose event is the last of `under_way_`.
  std::byte* reserve(std::size_t bytes, Device device) {
    if (memory_ == nullptr) {
      void* memory = nullptr;
      TENON_CUDA_CHECK(cudaHostAlloc(&memory, kRingBytes, cudaHostAllocPortable));
      memory_ = static_cast<std::byte*>(memory);
    }
    const std::size_t left = kRingBytes - next_ % kRingBytes;
    const std::uint64_t begin = bytes <= left ? next_ : next_ + left;
    const std::uint64_t end =
        begin + (bytes + kPieceAlignment - 1) / kPieceAlignment * kPieceAlignment;
    while (!under_way_.empty() && end - under_way_.front().begin > kRingBytes) {
      const cudaEvent_t read = under_way_.front().read;
      if (cudaEventQuery(read) != cudaSuccess) {
        cudaGetLastError();  // "not ready" would be blamed on a later call
        wait_for(read, device);
      }
      spare_.push_back(read);
      under_way_.pop_front();
    }
    if (spare_.empty()) {
      cudaEvent_t made = nullptr;
      TENON_CUDA_CHECK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
      spare_.push_back(made);
    }
    under_way_.push_back({begin, spare_.back()});
    spare_.pop_back();
    next_ = end;
    return memory_ + begin % kRingBytes;
  }

  std::mutex mutex_;
  std::byte* memory_ = nullptr;  // never freed: the device may read it until the program ends
  std::uint64_t next_ = 0;
  std::deque<Piece> under_way_;  // oldest first
  std::vector<cudaEvent_t> spare_;
};

}  // namespace

void send_staged(const void* source, void* target, std::size_t bytes, Device device) {
  static std::array<StagingRing, kMaxDevices> rings;
  TENON_CHECK(device.is_cuda() && device.index() < kMaxDevices, "cuda: no device ", device);
  rings[static_cast<std::size_t>(device.index())].send(
      static_cast<const std::byte*>(source), static_cast<std::byte*>(target), bytes, device);
}

}  // namespace tenon::cuda
