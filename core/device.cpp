#include "tenon/core/device.h"

#include <charconv>
#include <ostream>

#include "tenon/core/error.h"
#include "tenon/core/stream.h"

namespace tenon {

Device Device::cuda(int index) {
#ifdef TENON_WITH_CUDA
  const int count = cuda_device_count();
  TENON_CHECK(index >= 0 && index < count, "Device::cuda: no GPU ", index, "; this machine has ",
              count, " that CUDA can use");
  return Device(Type::Cuda, index);
#else
  detail::fail(
      detail::concat("Device::cuda: this build of Tenon has no CUDA, so no GPU ", index,
                     "; configure with -DTENON_CUDA=ON on a machine with the CUDA toolkit"));
#endif
}

Device Device::parse(std::string_view text) {
  if (text == "cpu") return cpu();
  if (text == "cuda") return cuda();
  constexpr std::string_view prefix = "cuda:";
  if (text.starts_with(prefix)) {
    const std::string_view digits = text.substr(prefix.size());
    int index = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (error == std::errc{} && end == digits.data() + digits.size() && index >= 0) {
      return cuda(index);
    }
  }
  detail::fail(detail::concat("Device: '", text, "' is not one of cpu, cuda, cuda:<index>"));
}

std::string Device::to_string() const {
  return is_cpu() ? "cpu" : "cuda:" + std::to_string(index_);
}

std::ostream& operator<<(std::ostream& out, Device device) { return out << device.to_string(); }

}  // namespace tenon
