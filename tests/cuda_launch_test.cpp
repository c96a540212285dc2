// How kernels are launched: errors are named, any thread can launch, and kernels that are set up
// while the one ahead runs see all that it wrote.
#include <gtest/gtest.h>

#include <thread>

#include "support/matchers.h"
#include "tenon/core/autograd.h"
#include "tenon/core/cuda/kernels.h"
#include "tenon/core/factories.h"
#include "tenon/core/stream.h"
#include "tenon/core/structural.h"
#include "tenon/ops/ops.h"

namespace tenon {
namespace {

class CudaLaunch : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU: nothing of CUDA was run";
  }
};

/// Largest |a - b|.
double difference(const Tensor& a, const Tensor& b) {
  return ops::max(ops::abs(a - b)).item<double>();
}

#ifdef TENON_WITH_CUDA
TEST_F(CudaLaunch, AnErrorNamesTheKernelAndItsShapeAndDoesNotLast) {
  const Device gpu = Device::cuda();
  test::expect_error(
      [&] { cuda::launch_nothing(gpu, 4096); },
      {"cuda: launch of", "empty_kernel", "1 x 1 x 1 blocks of 4096 threads", "failed: cudaError"});
  cuda::launch_nothing(gpu);
  synchronize(gpu);
}
#endif

TEST_F(CudaLaunch, AThreadThatChoseNoDeviceCanLaunch) {
  const Tensor x = zeros({16}, {.device = Device::cuda()});
  std::thread other([&] { x.fill_(3); });
  other.join();
  EXPECT_EQ(x.to_vector<float>(), std::vector<float>(16, 3.0f));
}

// Every step reads what other blocks of the step before wrote, in memory that steps before it used.
TEST_F(CudaLaunch, AChainOfKernelsSeesWhatOtherBlocksWrote) {
  constexpr int kSteps = 250;
  const NoGradGuard no_grad;
  const Tensor start = test::counting({2048, 2048}).to(DType::Float32).to(Device::cuda());
  Tensor x = start;
  for (int i = 0; i < kSteps; ++i) x = x.transpose(0, 1).contiguous() + 1;
  EXPECT_EQ(difference(x, start + kSteps), 0);
}

TEST_F(CudaLaunch, AChainThroughReductionsAndChangesInPlace) {
  constexpr int kSteps = 250;
  constexpr std::int64_t kElements = 1 << 21;
  const NoGradGuard no_grad;
  const Tensor x = ones({kElements}, {.dtype = DType::Float64, .device = Device::cuda()});
  for (int i = 0; i < kSteps; ++i) {
    // All elements are alike: the sum over their number is each.
    x.copy_(ops::sum(x) / kElements + 1);
  }
  EXPECT_EQ(difference(x, full_like(x, 1 + kSteps)), 0);
}

TEST_F(CudaLaunch, AChainThroughTheKernelsOfALibrary) {
  constexpr int kSteps = 100;
  constexpr std::int64_t kSize = 1024;
  const NoGradGuard no_grad;
  const TensorOptions options{.dtype = DType::Float64, .device = Device::cuda()};
  // Turns rows by one place: column j of the product is column j - 1.
  const Tensor turn = zeros({kSize, kSize}, options);
  for (std::int64_t j = 0; j < kSize; ++j) {
    turn.narrow(0, j, 1).narrow(1, (j + 1) % kSize, 1).fill_(1);
  }
  const Tensor start = test::counting({kSize, kSize}).to(Device::cuda());
  Tensor x = start;
  for (int i = 0; i < kSteps; ++i) x = ops::matmul(x, turn) + 1;
  EXPECT_EQ(difference(x.slice(1, kSteps), start.slice(1, 0, kSize - kSteps) + kSteps), 0);
  EXPECT_EQ(difference(x.slice(1, 0, kSteps), start.slice(1, kSize - kSteps) + kSteps), 0);
}

TEST_F(CudaLaunch, AChainOfSmallKernelsAndItsBackward) {
  constexpr int kSteps = 1000;
  const TensorOptions options{.dtype = DType::Float64, .device = Device::cuda()};
  const Tensor x = zeros({16}, options);
  const Tensor minus = full({16}, -1, options);
  x.requires_grad_();
  Tensor value = x;
  for (int i = 0; i < kSteps; ++i) value = value * minus + 1;
  // 0, 1, 0, 1, ...
  EXPECT_EQ(value.detach().to_vector<double>(), std::vector<double>(16, 0.0));
  value.backward(ones({16}, options));
  EXPECT_EQ(x.grad().to_vector<double>(), std::vector<double>(16, 1.0));
}

}  // namespace
}  // namespace tenon
