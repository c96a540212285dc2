#include "tenon/core/stream.h"

#include <chrono>
#include <utility>
#include <vector>

#ifdef TENON_WITH_CUDA
#include "tenon/core/cuda/fault.h"
#include "tenon/core/cuda/runtime.h"
#endif
#include "tenon/core/error.h"
#include "tenon/core/recording.h"

namespace tenon {
namespace {

double steady_ms() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

/// The current streams of this thread that are not the default one, by device index.
std::vector<std::shared_ptr<void>>& current_handles() {
  thread_local std::vector<std::shared_ptr<void>> handles;
  return handles;
}

}  // namespace

Stream Stream::current(Device device) {
  const auto& handles = current_handles();
  const auto index = static_cast<std::size_t>(device.index());
  if (device.is_cpu() || index >= handles.size()) return {device, nullptr};
  return {device, handles[index]};
}

StreamGuard::StreamGuard(const Stream& stream) : previous_(Stream::current(stream.device())) {
  if (stream.device().is_cpu()) return;
  auto& handles = current_handles();
  const auto index = static_cast<std::size_t>(stream.device().index());
  if (index >= handles.size()) handles.resize(index + 1);
  handles[index] = stream.handle_;
}

StreamGuard::~StreamGuard() {
  if (previous_.device().is_cpu()) return;
  current_handles()[static_cast<std::size_t>(previous_.device().index())] = previous_.handle_;
}

#ifdef TENON_WITH_CUDA

void* Stream::handle() const {
  if (handle_ != nullptr || device_.is_cpu()) return handle_.get();
  return cuda::default_stream(device_);
}

namespace {

cudaEvent_t event_of(const std::shared_ptr<void>& handle) {
  return static_cast<cudaEvent_t>(handle.get());
}

}  // namespace

Stream Stream::create(Device device) {
  if (device.is_cpu()) return {device, nullptr};
  const cuda::DeviceGuard guard(device);
  cudaStream_t stream = nullptr;
  TENON_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return {device, std::shared_ptr<void>(stream, [](void* handle) {
            cudaStreamDestroy(static_cast<cudaStream_t>(handle));
          })};
}

void Stream::synchronize() const {
  if (device_.is_cpu()) return;
  const cuda::DeviceGuard guard(device_);
  cuda::wait_for(static_cast<cudaStream_t>(handle()), device_);
  cuda::throw_pending_fault(device_);
}

Event::Event(Device device) : device_(device) {
  if (device.is_cpu()) return;
  const cuda::DeviceGuard guard(device);
  cudaEvent_t event = nullptr;
  TENON_CUDA_CHECK(cudaEventCreate(&event));
  handle_ = std::shared_ptr<void>(
      event, [](void* handle) { cudaEventDestroy(static_cast<cudaEvent_t>(handle)); });
}

void Event::record() {
  host_ms_ = steady_ms();
  if (device_.is_cpu()) return;
  detail::refuse_while_recording(device_, "Event::record", "record it outside the step");
  const cuda::DeviceGuard guard(device_);
  TENON_CUDA_CHECK(cudaEventRecord(event_of(handle_), cuda::current_stream(device_)));
}

void Event::block(const Stream& stream) const {
  if (device_.is_cpu()) return;
  TENON_CUDA_CHECK(
      cudaStreamWaitEvent(static_cast<cudaStream_t>(stream.handle()), event_of(handle_)));
}

void Event::synchronize() const {
  if (device_.is_cuda()) cuda::wait_for(event_of(handle_), device_);
}

double Event::elapsed_ms(const Event& end) const {
  if (device_.is_cpu()) return end.host_ms_ - host_ms_;
  end.synchronize();
  float milliseconds = 0;
  TENON_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, event_of(handle_), event_of(end.handle_)));
  return milliseconds;
}

void synchronize(Device device) {
  if (device.is_cpu()) return;
  cuda::wait_for_all(device);
  cuda::throw_pending_fault(device);
}

std::int64_t wait_count(Device device) { return device.is_cpu() ? 0 : cuda::wait_count(device); }

int cuda_device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver, or no GPU
    return 0;
  }
  return count;
}

#else

void* Stream::handle() const { return nullptr; }
Stream Stream::create(Device device) { return {device, nullptr}; }
void Stream::synchronize() const {}
Event::Event(Device device) : device_(device) {}
void Event::record() { host_ms_ = steady_ms(); }
void Event::block(const Stream&) const {}
void Event::synchronize() const {}
double Event::elapsed_ms(const Event& end) const { return end.host_ms_ - host_ms_; }
void synchronize(Device) {}
std::int64_t wait_count(Device) { return 0; }
int cuda_device_count() { return 0; }

#endif

}  // namespace tenon
