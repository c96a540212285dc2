#include "tenon/core/error.h"

#include <gtest/gtest.h>

#include "tenon/core/stream.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/test_ops.h"

namespace tenon {
namespace {

using test::expect_error;

TEST(Error, CheckStreamsItsArguments) {
  expect_error(
      [] {
        TENON_CHECK(1 > 2, "op: ", 3, " is not ", 4.5, " for ", Shape{1, 2});
      },
      {"op: 3 is not 4.5 for [1, 2]"});
}

TEST(Error, CheckEvaluatesTheMessageOnlyOnFailureAndTheConditionOnce) {
  int conditions = 0;
  int messages = 0;
  const auto message = [&] {
    ++messages;
    return "message";
  };
  TENON_CHECK(++conditions > 0, message());
  EXPECT_EQ(conditions, 1);
  EXPECT_EQ(messages, 0);
  EXPECT_THROW(TENON_CHECK(++conditions < 0, message()), Error);
  EXPECT_EQ(conditions, 2);
  EXPECT_EQ(messages, 1);
}

TEST(Error, CheckIsOneStatement) {
  bool reached = false;
  if (reached)
    TENON_CHECK(false, "not reached");
  else
    reached = true;
  EXPECT_TRUE(reached);
}

TEST(Error, IsARuntimeError) {
  try {
    detail::fail("what happened");
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "what happened");
  }
}

TEST(Error, LeavesTensorsAsTheyWere) {
  const Tensor x = test::counting({2, 3});
  EXPECT_THROW(x.copy_(zeros({5})), Error);
  EXPECT_THROW(x.reshape({7}), Error);
  EXPECT_THROW(x.set_grad(zeros({1})), Error);
  test::expect_values(x, {2, 3}, {0, 1, 2, 3, 4, 5});
  EXPECT_FALSE(x.grad().defined());
}

TEST(Error, OfAnOpNamesItAndItsInputs) {
  expect_error([] { test::mul(zeros({2}), zeros({3})); }, {"test_mul", "float32[2]", "float32[3]"});
  expect_error([] { test::mul(zeros({2}), zeros({2}, {.dtype = DType::Int64})); },
               {"test_mul", "float32[2]", "int64[2]"});
}

TEST(Error, ADeviceThatIsNotThereIsNamedWithAWayToGetIt) {
  if (cuda_device_count() > 0) GTEST_SKIP() << "this machine has the device";
  expect_error([] { Device::cuda(0); }, {"Device::cuda", "CUDA"});
  expect_error([] { Device::parse("cuda:1"); }, {"Device::cuda", "CUDA"});
}

}  // namespace
}  // namespace tenon
