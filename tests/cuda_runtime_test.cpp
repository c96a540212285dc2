// What is particular to GPUs: memory, streams, copies between devices, large tensors.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "support/matchers.h"
#include "tenon/core/factories.h"
#include "tenon/core/stream.h"
#include "tenon/core/structural.h"
#include "tenon/ops/ops.h"

namespace tenon {
namespace {

using test::expect_error;

class CudaRuntime : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "no GPU: nothing of CUDA was run";
  }
};

TEST(DeviceCuda, AnIndexThatDoesNotExistSaysHowManyThereAre) {
  expect_error([] { Device::cuda(99); }, {"Device::cuda", "99"});
  expect_error([] { Device::parse("cuda:-1"); }, {"cuda:-1"});
}

TEST_F(CudaRuntime, CopiesThereAndBackKeepEveryDtypesValues) {
  const Device gpu = Device::cuda();
  const Tensor values = tensor(std::vector<double>{-2.5, 0, 1, 3, 77}, {5});
  for (DType dtype : {DType::Bool, DType::UInt8, DType::Int64, DType::Float16, DType::BFloat16,
                      DType::Float32, DType::Float64}) {
    const Tensor host = (dtype == DType::UInt8 ? values.slice(0, 1) : values).to(dtype);
    const Tensor there = host.to(gpu);
    EXPECT_EQ(there.device(), gpu);
    EXPECT_EQ(there.to_vector<double>(), host.to_vector<double>()) << dtype;
    EXPECT_EQ(there.to(Device::cpu()).to_vector<double>(), host.to_vector<double>()) << dtype;
  }
}

TEST_F(CudaRuntime, StridedCopiesBetweenDevices) {
  const Device gpu = Device::cuda();
  const Tensor host = test::counting({3, 5, 7});
  const Tensor there = host.permute({2, 0, 1}).to(gpu);
  EXPECT_EQ(there.to_vector<double>(), host.permute({2, 0, 1}).to_vector<double>());
  const Tensor view = there.slice(0, 1, 6, 2).transpose(1, 2);
  EXPECT_EQ(view.to(Device::cpu()).to_vector<double>(),
            host.permute({2, 0, 1}).slice(0, 1, 6, 2).transpose(1, 2).to_vector<double>());
  const Tensor target = zeros({7, 10, 3}, {.dtype = DType::Float64, .device = gpu});
  target.slice(1, 0, 10, 2).copy_(host.permute({2, 1, 0}));
  EXPECT_EQ(target.slice(1, 0, 10, 2).to_vector<double>(),
            host.permute({2, 1, 0}).to_vector<double>());
  EXPECT_EQ(ops::sum(target.slice(1, 1, 10, 2)).item<double>(), 0);
}

TEST_F(CudaRuntime, MixingDevicesIsRefusedWithBothNames) {
  const Tensor there = ones({2}, {.device = Device::cuda()});
  expect_error([&] { ops::add(there, ones({2})); }, {"add", "cuda:0", "cpu"});
}

TEST_F(CudaRuntime, MemoryIsCountedAndReturned) {
  const Device gpu = Device::cuda();
  const MemoryStats before = memory_stats(gpu);
  {
    const Tensor a = empty({1000, 1000}, {.device = gpu});
    EXPECT_EQ(memory_stats(gpu).in_use - before.in_use, 4'000'000);
    EXPECT_EQ(memory_stats(gpu).allocations - before.allocations, 1);
  }
  EXPECT_EQ(memory_stats(gpu).in_use, before.in_use);
}

TEST_F(CudaRuntime, SmallBlocksAreHandedOutAgainInTheOrderOfTheStream) {
  const Device gpu = Device::cuda();
  const Tensor kept = full({16}, 7, {.device = gpu});
  const void* place = empty({100}, {.device = gpu}).raw_data();
  // 300 bytes as 400 bytes are a block of 512; what was sent to it before is done before.
  const Tensor again = full({75}, 3, {.device = gpu});
  if (std::getenv("TENON_CUDA_KEEP_BLOCKS") == nullptr) {
    EXPECT_EQ(again.raw_data(), place);
  }
  Tensor sum = zeros({16}, {.device = gpu});
  for (int i = 0; i < 2000; ++i) sum = sum + kept;
  EXPECT_EQ(sum.to_vector<float>(), std::vector<float>(16, 14000));
  EXPECT_EQ(again.to_vector<float>(), std::vector<float>(75, 3));
  {
    const StreamGuard guard(Stream::create(gpu));
    const Tensor there = full({16}, 2, {.device = gpu});
    EXPECT_EQ((there * 3.0f).to_vector<float>(), std::vector<float>(16, 6));
  }
  EXPECT_EQ(kept.to_vector<float>(), std::vector<float>(16, 7));
}

void expect_everywhere(const Tensor& tensor, double value) {
  EXPECT_EQ(ops::amin(tensor, {0}).item<double>(), value);
  EXPECT_EQ(ops::amax(tensor, {0}).item<double>(), value);
}

/// Keeps the current stream busy for some milliseconds.
void delay(const Tensor& scratch) {
  for (int i = 0; i < 200; ++i) scratch.fill_(i);
}

TEST_F(CudaRuntime, MemoryIsNotReusedBeforeTheStreamThatItBelongsToIsDoneWithIt) {
  const Device gpu = Device::cuda();
  const Stream side = Stream::create(gpu);
  constexpr std::int64_t kCount = 1 << 25;
  {
    Tensor busy;
    {
      const StreamGuard guard(side);
      busy = empty({kCount}, {.device = gpu});
      delay(busy);
    }
    busy = Tensor();  // here the default stream is current
  }
  const Tensor next = full({kCount}, 1, {.device = gpu});
  synchronize(gpu);
  expect_everywhere(next, 1);
}

TEST_F(CudaRuntime, MemoryIsNotReusedBeforeRecordedStreamsAreDoneWithIt) {
  const Device gpu = Device::cuda();
  const Stream side = Stream::create(gpu);
  constexpr std::int64_t kCount = 1 << 25;
  Tensor source = full({kCount}, 1, {.device = gpu});
  const Tensor scratch = empty({kCount}, {.device = gpu});
  synchronize(gpu);
  Tensor result;
  {
    const StreamGuard guard(side);
    delay(scratch);
    result = ops::mul(source, 2);
  }
  source.record_stream(side);
  source = Tensor();
  const Tensor next = full({kCount}, 3, {.device = gpu});
  synchronize(gpu);
  expect_everywhere(result, 2);
  expect_everywhere(next, 3);
  expect_error([&] { next.record_stream(Stream::current(Device::cpu())); },
               {"record_stream", "cuda:0", "cpu"});
}

TEST_F(CudaRuntime, RunningOutOfMemoryNamesTheSizesAndLeavesEverythingUsable) {
  const Device gpu = Device::cuda();
  const Tensor kept = ones({16}, {.device = gpu});
  expect_error([&] { empty({std::int64_t{1} << 42}, {.device = gpu}); },
               {"no memory", "17592186044416", "cuda:0", "in use", "free"});
  EXPECT_EQ(ops::sum(kept + 1.0f).item<float>(), 32);
}

TEST_F(CudaRuntime, StreamsOrderWorkThroughEvents) {
  const Device gpu = Device::cuda();
  const void* const before = Stream::current(gpu).handle();
  const Stream side = Stream::create(gpu);
  const Tensor x = zeros({1 << 20}, {.device = gpu});
  Event ready(gpu);
  ready.record();
  ready.block(side);
  Event done(gpu);
  {
    const StreamGuard guard(side);
    x.fill_(3);
    done.record();
  }
  done.block(Stream::current(gpu));
  EXPECT_EQ(ops::sum(x).item<float>(), 3.0f * (1 << 20));
  EXPECT_EQ(Stream::current(gpu).handle(), before);
  EXPECT_NE(side.handle(), before);
}

TEST_F(CudaRuntime, WaitsAreCounted) {
  const Device gpu = Device::cuda();
  const Tensor x = ones({4}, {.device = gpu});
  const std::int64_t before = wait_count(gpu);
  const Tensor y = x + 1.0f;
  const Tensor z = y.clone();
  EXPECT_EQ(wait_count(gpu), before) << "kernels and copies within the device are only sent";
  EXPECT_EQ(z.to_vector<float>(), (std::vector<float>{2, 2, 2, 2}));
  EXPECT_EQ(wait_count(gpu), before + 1);
  synchronize(gpu);
  Stream::current(gpu).synchronize();
  Event event(gpu);
  event.record();
  event.synchronize();
  EXPECT_EQ(wait_count(gpu), before + 4);
  EXPECT_EQ(wait_count(Device::cpu()), 0);
}

TEST_F(CudaRuntime, CopiesToTheDeviceNeitherWaitNorSeeLaterChanges) {
  const Device gpu = Device::cuda();
  const Tensor large = empty({1 << 28}, {.device = gpu});
  const Tensor host = full({1000, 1000}, 0);
  host.to(gpu);                                 // makes the page-locked memory
  for (int i = 0; i < 50; ++i) large.fill_(i);  // tens of milliseconds that the copies come after
  const std::int64_t before = wait_count(gpu);
  std::vector<Tensor> copies;
  for (int i = 0; i < 5; ++i) {
    host.fill_(i);
    copies.push_back(host.to(gpu));
  }
  host.fill_(-1);
  EXPECT_EQ(wait_count(gpu), before);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(ops::amin(copies[static_cast<std::size_t>(i)]).item<int>(), i);
    EXPECT_EQ(ops::amax(copies[static_cast<std::size_t>(i)]).item<int>(), i);
  }
}

TEST_F(CudaRuntime, CopiesToTheDeviceThatGoRoundThePageLockedMemory) {
  const Device gpu = Device::cuda();
  std::vector<Tensor> copies;
  for (std::int64_t i = 0; i < 40; ++i) {  // 300 MB in sizes that no piece of the ring is
    copies.push_back(full({1'900'000 + 7919 * i}, static_cast<double>(i)).to(gpu));
  }
  for (std::size_t i = 0; i < copies.size(); ++i) {
    EXPECT_EQ(ops::amin(copies[i]).item<std::size_t>(), i);
    EXPECT_EQ(ops::amax(copies[i]).item<std::size_t>(), i);
  }
  const Tensor large = arange(0, 40'000'000, 1, {.dtype = DType::Float64});  // 320 MB in one copy
  const Tensor back = large.to(gpu).to(Device::cpu());
  EXPECT_EQ(ops::amax(ops::abs(back - large)).item(), 0);
}

TEST_F(CudaRuntime, EventsMeasureTime) {
  const Device gpu = Device::cuda();
  const Tensor x = zeros({1 << 24}, {.device = gpu});
  Event begin(gpu);
  Event end(gpu);
  begin.record();
  for (int i = 0; i < 10; ++i) x.fill_(i);
  end.record();
  EXPECT_GT(begin.elapsed_ms(end), 0);
}

TEST_F(CudaRuntime, SumsAreTheSameBitForBitFromRunToRun) {
  const Tensor x = randn({64, 33, 257}).to(Device::cuda());
  const float first = ops::sum(x).item<float>();
  const std::vector<float> columns = sum_to(x, {1, 33, 1}).to_vector<float>();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(ops::sum(x).item<float>(), first);
    EXPECT_EQ(sum_to(x, {1, 33, 1}).to_vector<float>(), columns);
  }
}

TEST_F(CudaRuntime, SumsOfEveryLayoutAgreeWithTheHost) {
  const Tensor x = randn({5, 37, 6, 129}, {.dtype = DType::Float64});
  const Tensor there = x.to(Device::cuda());
  for (const Shape& shape : {Shape{}, Shape{129}, Shape{1, 37, 1, 1}, Shape{5, 1, 6, 1},
                             Shape{5, 37, 1, 129}, Shape{1, 1, 1, 129}, Shape{5, 37, 6, 1}}) {
    for (const bool permuted : {false, true}) {
      const Tensor a = permuted ? x.transpose(0, 3).transpose(0, 3) : x;
      const std::vector<double> want = sum_to(a, shape).to_vector<double>();
      const std::vector<double> got = sum_to(there, shape).to_vector<double>();
      ASSERT_EQ(got.size(), want.size());
      for (std::size_t i = 0; i < want.size(); ++i) {
        EXPECT_NEAR(got[i], want[i], 1e-10) << shape << " at " << i;
      }
    }
  }
}

TEST_F(CudaRuntime, TensorsAboveTwoToThe31Elements) {
  const Device gpu = Device::cuda();
  const std::int64_t count = 2'500'000'000;
  const Tensor x = full({count}, 1, {.dtype = DType::Float16, .device = gpu});
  x.narrow(0, count - 3, 3).fill_(5);
  const Tensor y = x + 2.0f;
  EXPECT_EQ(y.narrow(0, count - 4, 4).to_vector<float>(), (std::vector<float>{3, 7, 7, 7}));
  EXPECT_EQ(y.narrow(0, (std::int64_t{1} << 31) - 1, 2).to_vector<float>(),
            (std::vector<float>{3, 3}));
  const Tensor copy = y.clone();
  EXPECT_EQ(copy.narrow(0, count - 2, 2).to_vector<float>(), (std::vector<float>{7, 7}));
  // The sum does not fit float16, so that each part is summed by itself and as float32.
  const Tensor thousandths = copy.reshape({2'500'000, 1000});
  const Tensor rows = ops::sum(thousandths, {1});
  EXPECT_EQ(rows.narrow(0, 0, 1).item<float>(), 3000);
  const double total = ops::sum(rows.to(DType::Float64)).item<double>();
  EXPECT_EQ(total, 3.0 * static_cast<double>(count) + 12);
}

}  // namespace
}  // namespace tenon
