#include "tenon/core/cuda/launch.h"

#include <cudaTypedefs.h>
#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "tenon/core/cuda/runtime.h"
#include "tenon/core/error.h"

namespace tenon::cuda {
namespace {

/// The driver's launch. Looked up when the program runs, so that it also starts on a machine that
/// has no driver.
PFN_cuLaunchKernelEx_v11060 driver_launch() {
  static const auto function = [] {
    constexpr unsigned kVersion = 11060;
    void* address = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    TENON_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuLaunchKernelEx", &address, kVersion,
                                                      cudaEnableLegacyStream, &result));
#else
    TENON_CUDA_CHECK(
        cudaGetDriverEntryPoint("cuLaunchKernelEx", &address, cudaEnableLegacyStream, &result));
#endif
    TENON_CHECK(result == cudaDriverEntryPointSuccess,
                "cuda: the driver has no cuLaunchKernelEx of ", kVersion);
    return reinterpret_cast<PFN_cuLaunchKernelEx_v11060>(address);
  }();
  return function;
}

/// "tenon::cuda::fill_kernel<float>(float*, float)"
std::string kernel_name(const void* entry) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, entry) != cudaSuccess) return "a kernel";
  const std::unique_ptr<char, decltype(&std::free)> plain(
      abi::__cxa_demangle(mangled, nullptr, nullptr, nullptr), &std::free);
  return plain != nullptr ? plain.get() : mangled;
}

[[noreturn, gnu::noinline]] void fail_launch(const void* entry, const LaunchShape& shape,
                                             CUresult result) {
  const std::string call =
      tenon::detail::concat("launch of ", kernel_name(entry), " with ", shape.blocks.x, " x ",
                            shape.blocks.y, " x ", shape.blocks.z, " blocks of ", shape.threads,
                            " threads and ", shape.shared_bytes, " bytes of shared memory");
  // The runtime's numbers for errors are the driver's.
  check(static_cast<cudaError_t>(result), call);
  tenon::detail::fail(call);
}

}  // namespace

Kernel::Kernel(const void* entry, bool waits, Device device) : entry_(entry) {
  TENON_CUDA_CHECK(cudaGetKernel(&handle_, entry));
  if (!waits) return;
  // Which code the device runs is a matter of what was compiled: code for 8.0 runs on 9.0, too, and
  // has no wait in it. Devices of one capability run the same.
  constexpr int kFirstThatWaits = 90;
  cudaFuncAttributes attributes{};
  TENON_CUDA_CHECK(cudaFuncGetAttributes(&attributes, entry));
  const int capability = properties(device).compute_capability;
  if (capability >= kFirstThatWaits && attributes.ptxVersion >= kFirstThatWaits) {
    waits_on_ = capability;
  }
}

CUfunction Kernel::function_on(Device device) const {
  // The driver takes a kernel of all devices in place of a function of one.
  if (device.index() >= kDevices) return reinterpret_cast<CUfunction>(handle_);
  std::atomic<CUfunction>& known = functions_[device.index()];
  CUfunction function = known.load(std::memory_order_relaxed);
  if (function == nullptr) [[unlikely]] {
    TENON_CUDA_CHECK(cudaGetFuncBySymbol(&function, entry_));
    known.store(function, std::memory_order_relaxed);
  }
  return function;
}

void Kernel::allow_all_shared_memory(Device device) const {
  const std::uint64_t bit = device.index() < 64 ? std::uint64_t{1} << device.index() : 0;
  if ((allowed_.load(std::memory_order_relaxed) & bit) != 0) return;
  // The limit is the kernel's, not the launch's: one as low as this launch needs, set by another
  // thread, would make a larger one fail.
  TENON_CUDA_CHECK(
      cudaFuncSetAttribute(entry_, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(properties(device).shared_memory_a_block)));
  allowed_.fetch_or(bit, std::memory_order_relaxed);
}

void Kernel::launch(const LaunchShape& shape, Device device, void** arguments) const {
  constexpr std::size_t kWithoutLeave = 48 * 1024;
  if (shape.shared_bytes > kWithoutLeave) allow_all_shared_memory(device);
  CUlaunchAttribute overlap{};
  overlap.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
  overlap.value.programmaticStreamSerializationAllowed = 1;
  CUlaunchConfig config{};
  config.gridDimX = shape.blocks.x;
  config.gridDimY = shape.blocks.y;
  config.gridDimZ = shape.blocks.z;
  config.blockDimX = shape.threads;
  config.blockDimY = 1;
  config.blockDimZ = 1;
  config.sharedMemBytes = static_cast<unsigned>(shape.shared_bytes);
  config.hStream = current_stream(device);
  config.attrs = &overlap;
  config.numAttrs = properties(device).compute_capability == waits_on_ ? 1 : 0;
  const CUfunction function = function_on(device);
  const auto send = driver_launch();
  CUresult result = send(&config, function, arguments, nullptr);
  if (result == CUDA_ERROR_INVALID_CONTEXT) [[unlikely]] {
    // The driver, unlike the runtime, does not choose a device for a thread that has chosen none.
    TENON_CUDA_CHECK(cudaSetDevice(device.index()));
    result = send(&config, function, arguments, nullptr);
  }
  if (result != CUDA_SUCCESS) [[unlikely]]
    fail_launch(entry_, shape, result);
}

}  // namespace tenon::cuda
