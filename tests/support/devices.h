// The devices that tests run on.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tenon/core/precision.h"
#include "tenon/core/stream.h"

namespace tenon::test {

/// The CPU, and the first GPU where there is one.
inline std::vector<Device> test_devices() {
  std::vector<Device> devices{Device::cpu()};
  if (cuda_device_count() > 0) devices.push_back(Device::cuda());
  return devices;
}

/// A test that `TENON_DEVICE_TESTS` runs on each device, with true float32 in convolutions and
/// matrix products.
class DeviceTest : public testing::TestWithParam<Device> {
 protected:
  Device device() const { return GetParam(); }

 private:
  Float32PrecisionGuard strict_{Float32Precision::Float32};
};

inline std::string device_name(const testing::TestParamInfo<Device>& info) {
  return info.param.is_cuda() ? "cuda" : "cpu";
}

}  // namespace tenon::test

/// Ends a test that needs a GPU where there is none.
#define TENON_SKIP_WITHOUT_GPU() \
  if (tenon::cuda_device_count() == 0) GTEST_SKIP() << "no GPU: the CUDA half was not run"

/// Runs the tests of `Suite`, a class derived from DeviceTest, on every device.
#define TENON_DEVICE_TESTS(Suite)                                                           \
  TEST(Suite##Cuda, TakesPart) { TENON_SKIP_WITHOUT_GPU(); }                                \
  INSTANTIATE_TEST_SUITE_P(Device, Suite, ::testing::ValuesIn(tenon::test::test_devices()), \
                           tenon::test::device_name)
