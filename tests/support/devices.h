// The devices that tests run on.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "tenon/core/stream.h"

namespace tenon::test {

/// The CPU, and the first GPU where there is one.
inline std::vector<Device> test_devices() {
  std::vector<Device> devices{Device::cpu()};
  if (cuda_device_count() > 0) devices.push_back(Device::cuda());
  return devices;
}

}  // namespace tenon::test

/// Ends a test that needs a GPU where there is none.
#define TENON_SKIP_WITHOUT_GPU() \
  if (tenon::cuda_device_count() == 0) GTEST_SKIP() << "no GPU: the CUDA half was not run"
