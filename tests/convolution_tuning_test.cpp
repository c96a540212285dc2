// Tuning of convolutions on a GPU: the fastest plan is kept on disk and taken from there again.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "support/devices.h"
#include "support/temporary_directory.h"
#include "tenon/core/factories.h"
#include "tenon/core/precision.h"
#include "tenon/core/tuning.h"
#include "tenon/ops/ops.h"

namespace tenon {
namespace {

/// A transposed convolution on the GPU, brought back to the host.
std::vector<double> convolve(const Tensor& x, const Tensor& weight, bool tune) {
  const TuningGuard tuning(tune);
  const Float32PrecisionGuard exact(Float32Precision::Float32);
  const Tensor y =
      ops::conv_transpose2d(x.to(Device::cuda()), weight.to(Device::cuda()), {}, {.stride = 2});
  return y.to_vector<double>();
}

TEST(ConvolutionTuning, KeepsTheFastestPlanOnDiskAndTakesItFromThere) {
  TENON_SKIP_WITHOUT_GPU();
  const test::TemporaryDirectory folder;
  const std::string file = folder / "cudnn_plans.json";
  setenv("TENON_CACHE_DIR", (folder / "").c_str(), 1);
  unsetenv("TENON_CUDNN_TUNE");

  const Tensor x = randn({3, 5, 7, 9});
  const Tensor weight = randn({5, 8, 3, 3});
  const std::vector<double> expected =
      ops::conv_transpose2d(x, weight, {}, {.stride = 2}).to_vector<double>();
  const auto expect_right = [&](const std::vector<double>& values) {
    ASSERT_EQ(values.size(), expected.size());
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(values[i], expected[i], 1e-4) << i;
  };

  const std::string damaged = "{\"format\": ";
  test::write_file(file, damaged);
  expect_right(convolve(x, weight, /*tune=*/false));
  EXPECT_EQ(test::read_file(file), damaged) << "without tuning the file is left alone";

  const std::vector<double> tuned = convolve(x, weight, /*tune=*/true);
  expect_right(tuned);
  const std::string kept = test::read_file(file);
  const auto entries = nlohmann::json::parse(kept).at("entries");
  ASSERT_EQ(entries.size(), 1U) << kept;
  ASSERT_EQ(entries.begin()->size(), 1U) << kept;
  EXPECT_NE(entries.begin()->begin().key().find("data_gradient float32/float32"),
            std::string::npos);

  // Another thread has no plans of its own and takes the one on disk: the same kernel, so the same
  // bits, and no new measurement.
  std::vector<double> again;
  std::thread([&] { again = convolve(x, weight, /*tune=*/true); }).join();
  EXPECT_EQ(again, tuned);
  EXPECT_EQ(test::read_file(file), kept);
}

}  // namespace
}  // namespace tenon
