// Who asks for tuning: a guard, the environment, and a compiled function for itself and for the
// backward of what it ran.
#include "tenon/core/tuning.h"

#include <gtest/gtest.h>

#include <vector>

#include "support/environment.h"
#include "support/test_ops.h"
#include "tenon/core/autograd.h"
#include "tenon/graph/compile.h"
#include "tenon/ops/ops.h"

namespace tenon {
namespace {

using test::EnvironmentGuard;

/// What `tuning_enabled` said in the calls of an op.
struct Calls {
  std::vector<bool> forward;
  std::vector<bool> backward;
};

/// The same tensor; notes how it is called.
class WatchOp : public Op {
 public:
  explicit WatchOp(Calls& calls) : calls_(calls) {}
  std::string_view name() const override { return "test_watch"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override {
    return {inputs[0]};
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    calls_.forward.push_back(tuning_enabled());
    return {test::map(inputs[0], [](double value) { return value; })};
  }
  std::vector<Tensor> backward(const BackwardContext&,
                               std::span<const Tensor> grad_outputs) const override {
    calls_.backward.push_back(tuning_enabled());
    return {grad_outputs[0]};
  }

 private:
  Calls& calls_;
};

class Tuning : public testing::Test {
 protected:
  Tensor watched(const Tensor& x) { return apply(WatchOp(calls), {x}); }

  EnvironmentGuard unset{"TENON_CUDNN_TUNE", ""};
  Calls calls;
  Tensor x = ones({2}).requires_grad_();
};

TEST_F(Tuning, IsOffUnlessAGuardOrTheEnvironmentAsksForIt) {
  EXPECT_FALSE(tuning_enabled());
  {
    const TuningGuard on(true);
    EXPECT_TRUE(tuning_enabled());
    const EnvironmentGuard never("TENON_CUDNN_TUNE", "0");
    EXPECT_FALSE(tuning_enabled());
    EXPECT_TRUE(tuning_requested());
  }
  EXPECT_FALSE(tuning_enabled());
  const EnvironmentGuard always("TENON_CUDNN_TUNE", "1");
  EXPECT_TRUE(tuning_enabled());
  EXPECT_FALSE(tuning_requested());
}

TEST_F(Tuning, TheBackwardTunesWhereTheForwardDid) {
  Tensor tuned;
  {
    const TuningGuard on(true);
    tuned = watched(x);
  }
  const Tensor plain = watched(tuned);
  ops::sum(plain).backward();
  EXPECT_EQ(calls.forward, (std::vector<bool>{true, false}));
  EXPECT_EQ(calls.backward, (std::vector<bool>{false, true})) << "the last op goes first";
  EXPECT_FALSE(tuning_enabled());
}

TEST_F(Tuning, ACompiledFunctionTunesUnlessToldNotTo) {
  const auto f = [this](const Tensor& input) { return watched(input) * 2.0; };
  for (const bool tune : {true, false}) {
    SCOPED_TRACE(tune);
    calls = {};
    const auto compiled = graph::compile(f, {.tune = tune});
    ops::sum(compiled(x)).backward();
    ASSERT_FALSE(calls.forward.empty());
    EXPECT_EQ(calls.forward.back(), tune);
    EXPECT_EQ(calls.backward, std::vector<bool>{tune});
  }
}

}  // namespace
}  // namespace tenon
