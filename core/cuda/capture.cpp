#include "tenon/core/cuda/capture.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/error.h"

namespace tenon::cuda {
namespace {

/// Ends a captured stream, and with it the memory that was allocated there: its last owner is the
/// graph or a tensor that lies in that memory.
struct EndOfCapturedStream {
  std::shared_ptr<CapturePool> pool;

  void operator()(void* stream) noexcept {
    pool.reset();
    cudaStreamDestroy(static_cast<cudaStream_t>(stream));
  }
};

Stream make_captured_stream(Device device) {
  const DeviceGuard guard(device);
  cudaStream_t stream = nullptr;
  TENON_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream::own(
      device,
      std::shared_ptr<void>(stream, EndOfCapturedStream{std::make_shared<CapturePool>(device)}));
}

/// The recording of this thread; null where none is under way.
thread_local StreamCapture* active_capture = nullptr;

}  // namespace

// ---- memory -------------------------------------------------------------------------------------

std::size_t CapturePool::rounded(std::size_t bytes) {
  constexpr std::size_t kSmallest = 512;
  constexpr std::size_t kSmall = std::size_t{1} << 20;
  constexpr std::size_t kLargeStep = std::size_t{2} << 20;
  if (bytes <= kSmall) return std::max(kSmallest, std::bit_ceil(bytes));
  return (bytes + kLargeStep - 1) / kLargeStep * kLargeStep;
}

void* CapturePool::take(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  const std::lock_guard lock(mutex_);
  // A block that is much too large would be missed by what it fits.
  const auto found = free_.lower_bound(size);
  if (found != free_.end() && found->first <= size + size / 4) {
    void* const block = found->second;
    free_.erase(found);
    return block;
  }
  void* const block = allocate_while_capturing(size, device_);
  blocks_.emplace(block, size);
  return block;
}

void CapturePool::give(void* block) noexcept {
  const std::lock_guard lock(mutex_);
  free_.emplace(blocks_.at(block), block);
}

void CapturePool::use_on(const Stream& stream) {
  const std::lock_guard lock(mutex_);
  const auto same = [&](const Stream& user) { return user.handle() == stream.handle(); };
  if (std::any_of(users_.begin(), users_.end(), same)) return;
  // The blocks are the default stream's.
  order_after(static_cast<cudaStream_t>(stream.handle()), default_stream(device_));
  users_.push_back(stream);
}

CapturePool::~CapturePool() {
  for (const auto& [block, size] : blocks_) free_default(block, size, device_, users_);
}

CapturePool* capture_pool(const Stream& stream) {
  if (stream.owner() == nullptr) return nullptr;
  const auto* end = std::get_deleter<EndOfCapturedStream>(stream.owner());
  return end == nullptr ? nullptr : end->pool.get();
}

bool defer_free(void* data, std::size_t bytes, const Stream& home, std::span<const Stream> users) {
  if (active_capture == nullptr) [[likely]]
    return false;
  active_capture->deferred_.push_back({data, bytes, home, {users.begin(), users.end()}});
  return true;
}

// ---- the recording ------------------------------------------------------------------------------

StreamCapture::StreamCapture(Device device) : stream_(make_captured_stream(device)) {
  TENON_CHECK(active_capture == nullptr, "CapturedStep: another recording is under way");
  const DeviceGuard guard(device);
  // Relaxed: memory is allocated meanwhile, on another stream.
  TENON_CUDA_CHECK(cudaStreamBeginCapture(handle(), cudaStreamCaptureModeRelaxed));
  active_capture = this;
}

StreamCapture::~StreamCapture() {
  if (active_capture != this) return;
  cudaGraph_t graph = nullptr;
  end(&graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // why it failed was thrown already
}

std::unique_ptr<CapturedGraph> StreamCapture::finish() {
  cudaGraph_t graph = nullptr;
  check(end(&graph), "cudaStreamEndCapture of a CapturedStep");
  const std::unique_ptr<CUgraph_st, decltype(&cudaGraphDestroy)> owner(graph, &cudaGraphDestroy);
  return std::make_unique<CapturedGraph>(graph, stream_);
}

cudaError_t StreamCapture::end(cudaGraph_t* graph) noexcept {
  const cudaError_t status = cudaStreamEndCapture(handle(), graph);
  active_capture = nullptr;
  for (const DeferredFree& free : std::exchange(deferred_, {})) {
    deallocate(free.data, free.bytes, free.home, free.users);
  }
  return status;
}

CapturedGraph::CapturedGraph(cudaGraph_t graph, const Stream& stream) : stream_(stream) {
  const DeviceGuard guard(stream.device());
  TENON_CUDA_CHECK(cudaGraphInstantiate(&executable_, graph, 0));
  std::size_t count = 0;
  TENON_CUDA_CHECK(cudaGraphGetNodes(graph, nullptr, &count));
  node_count_ = static_cast<std::int64_t>(count);
}

CapturedGraph::~CapturedGraph() {
  // Statuses are not checked in a destructor; a graph that still runs is freed when it has ended.
  if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
}

void CapturedGraph::launch() {
  const Device device = stream_.device();
  const DeviceGuard guard(device);
  const Stream current = Stream::current(device);
  capture_pool(stream_)->use_on(current);
  TENON_CUDA_CHECK(cudaGraphLaunch(executable_, static_cast<cudaStream_t>(current.handle())));
}

}  // namespace tenon::cuda
