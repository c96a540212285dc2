// The op protocol: attributes, equality of ops, and what `call` hands to an active trace.
#include <gtest/gtest.h>

#include <sstream>
#include <thread>

#include "tenon/core/autograd.h"
#include "tenon/core/tensor_body.h"
#include "tenon/tests/support/matchers.h"
#include "tenon/tests/support/test_ops.h"

namespace tenon {
namespace {

using test::expect_error;
using test::expect_values;

/// Records the names of the ops, their inputs' shapes and which inputs were traced.
class Recorder : public TraceSink {
 public:
  struct Value : TracedValue {
    explicit Value(int number) : number(number) {}
    int number;
  };

  std::vector<Tensor> record(std::shared_ptr<const Op> op, std::span<const Tensor> inputs,
                             std::span<const TensorSpec> outputs) override {
    std::ostringstream line;
    line << op->name() << '(' << op->attributes() << ')';
    for (const Tensor& input : inputs)
      line << ' ' << (input.is_traced() ? "" : "const ") << input.spec();
    lines.push_back(line.str());
    std::vector<Tensor> results;
    for (const TensorSpec& spec : outputs) results.push_back(argument(spec));
    return results;
  }

  /// A new shape-only tensor.
  Tensor argument(const TensorSpec& spec) {
    return detail::make_traced(spec, std::make_shared<const Value>(next_++));
  }

  std::vector<std::string> lines;

 private:
  int next_ = 0;
};

TEST(OpProtocol, AttributesPrintAsNameEqualsValue) {
  std::ostringstream out;
  out << Attributes{{"flag", true},
                    {"count", std::int64_t{3}},
                    {"slope", 0.5},
                    {"mode", std::string("same")},
                    {"dims", std::vector<std::int64_t>{1, -2}}};
  EXPECT_EQ(out.str(), "flag=true, count=3, slope=0.5, mode=same, dims=[1, -2]");
}

TEST(OpProtocol, OpsAreTheSameWhenNameAndAttributesAre) {
  EXPECT_TRUE(same_op(test::ScaleOp(2), test::ScaleOp(2)));
  EXPECT_FALSE(same_op(test::ScaleOp(2), test::ScaleOp(3)));
  EXPECT_FALSE(same_op(test::ExpOp(), test::MulOp()));
  EXPECT_FALSE(same_op(ReshapeOp({2, 3}), ReshapeOp({3, 2})));
  EXPECT_TRUE(same_op(SliceOp(0, 1, 2, 1), SliceOp(0, 1, 2, 1)));
  EXPECT_FALSE(same_op(CopyOp(DType::Float32, Device::cpu()), CopyOp(DType::Int64, Device::cpu())));
}

TEST(OpProtocol, IndexMasksNameUpTo64Positions) {
  EXPECT_EQ(index_bit(0), 1u);
  EXPECT_EQ(index_bit(63), IndexMask{1} << 63);
  EXPECT_EQ(index_bit(64), 0u);
  EXPECT_EQ(kAllIndices & index_bit(17), index_bit(17));
}

TEST(OpProtocol, AnOpThatReturnsItsInputGivesATensorOfItsOwn) {
  const Tensor x = test::counting({2}).requires_grad_();
  const Tensor y =
      apply(test::CustomBackwardOp([](const BackwardContext&, std::span<const Tensor> gradients) {
              return std::vector<Tensor>{gradients[0]};
            }),
            {x});
  EXPECT_FALSE(y.is_same(x));
  EXPECT_TRUE(x.is_leaf());
  EXPECT_FALSE(y.is_leaf());
  EXPECT_EQ(y.raw_data(), x.raw_data());
}

TEST(OpProtocol, OutputsOfOpsWithoutGradientHaveNoHistory) {
  const Tensor x = test::counting({2}).requires_grad_();
  EXPECT_FALSE(x.detach().requires_grad());
  EXPECT_FALSE(x.to(DType::Bool).requires_grad());
}

TEST(Tracing, RecordsEveryCallAndComputesNothing) {
  Recorder recorder;
  const std::int64_t allocations = memory_stats(Device::cpu()).allocations;
  const Tensor x = recorder.argument({{2, 3}, DType::Float32, Device::cpu()});
  {
    const TraceGuard guard(recorder);
    EXPECT_TRUE(is_tracing());
    const Tensor y = test::scale(x.transpose(0, 1), 2).reshape({-1});
    EXPECT_EQ(y.shape(), Shape{6});
    EXPECT_TRUE(y.is_traced());
    EXPECT_EQ(test::powers(y).size(), 2u);
  }
  EXPECT_FALSE(is_tracing());
  EXPECT_EQ(recorder.lines,
            (std::vector<std::string>{
                "permute(dims=[1, 0]) float32[2, 3]", "test_scale(factor=2) float32[3, 2]",
                "reshape(shape=[-1]) float32[3, 2]", "test_powers() float32[6]"}));
  EXPECT_EQ(memory_stats(Device::cpu()).allocations, allocations);
}

TEST(Tracing, SeesConcreteTensorsAsConstants) {
  Recorder recorder;
  const Tensor weight = ones({2});
  const TraceGuard guard(recorder);
  const Tensor x = recorder.argument(weight.spec());
  EXPECT_TRUE(test::mul(x, weight).is_traced());
  EXPECT_TRUE(test::mul(weight, weight).is_traced());
  EXPECT_EQ(recorder.lines,
            (std::vector<std::string>{"test_mul() float32[2] const float32[2]",
                                      "test_mul() const float32[2] const float32[2]"}));
}

TEST(Tracing, ReadingAndMakingConcreteTensorsLeavesNoMark) {
  Recorder recorder;
  const TraceGuard guard(recorder);
  const Tensor made = arange(0, 4, 1, {.dtype = DType::Float32}).detach().is_traced()
                          ? arange(0, 4, 1, {.dtype = DType::Float32})
                          : Tensor();
  recorder.lines.clear();
  EXPECT_FALSE(made.is_traced());
  EXPECT_EQ(made.to_vector<double>(), (std::vector<double>{0, 1, 2, 3}));
  EXPECT_EQ(full({}, 2.5).item(), 2.5);
  EXPECT_EQ(rand({3}).numel(), 3);
  EXPECT_EQ(eye(2).to_vector<float>(), (std::vector<float>{1, 0, 0, 1}));
  std::ostringstream out;
  out << made;
  EXPECT_EQ(out.str(), "tensor([0., 1., 2., 3.])");
  EXPECT_TRUE(recorder.lines.empty());
}

TEST(Tracing, ChecksShapesAsEagerExecutionDoes) {
  Recorder recorder;
  const TraceGuard guard(recorder);
  const Tensor x = recorder.argument({{2, 3}, DType::Float32, Device::cpu()});
  expect_error([&] { x.reshape({4}); }, {"reshape", "[2, 3]", "[4]"});
  expect_error([&] { test::mul(x, x.transpose(0, 1)); }, {"test_mul", "[2, 3]", "[3, 2]"});
  EXPECT_EQ(recorder.lines.size(), 1u) << "only the transpose was right";
}

TEST(Tracing, TracedTensorsHaveNoElements) {
  Recorder recorder;
  const TraceGuard guard(recorder);
  const Tensor x = recorder.argument({{1}, DType::Float32, Device::cpu()});
  expect_error([&] { x.item(); }, {"traced"});
  expect_error([&] { x.data<float>(); }, {"traced"});
  expect_error([&] { x.to_vector<float>(); }, {"traced"});
  expect_error([&] { x.fill_(1); }, {"fill_", "traced"});
  expect_error([&] { x.copy_(ones({1})); }, {"copy_", "traced"});
  expect_error([&] { ones({1}).copy_(x); }, {"copy_", "traced"});
  expect_error([&] { x.set_data(ones({1})); }, {"set_data", "trace"});
  expect_error([&] { uniform_(x, 0, 1); }, {"trace"});
  std::ostringstream out;
  out << x;
  EXPECT_EQ(out.str(), "tensor(traced, float32[1])");
}

TEST(Tracing, RefusesBackward) {
  Recorder recorder;
  const Tensor loss = test::sum(ones({2}, {.requires_grad = true}));
  const TraceGuard guard(recorder);
  expect_error([&] { loss.backward(); }, {"backward", "compile"});
}

TEST(Tracing, TracedTensorsAreOfNoUseAfterwards) {
  Recorder recorder;
  const Tensor x = recorder.argument({{2}, DType::Float32, Device::cpu()});
  expect_error([&] { test::exp(x); }, {"test_exp", "input 0", "trace that has ended"});
}

TEST(Tracing, BelongsToTheThreadAndNests) {
  Recorder outer;
  Recorder inner;
  const Tensor x = ones({2});
  {
    const TraceGuard guard(outer);
    {
      const TraceGuard nested(inner);
      test::scale(x, 1);
    }
    test::scale(x, 2);
    std::thread([&] {
      EXPECT_FALSE(is_tracing());
      expect_values(test::scale(x, 3), {2}, {3, 3});
    }).join();
  }
  EXPECT_EQ(inner.lines, (std::vector<std::string>{"test_scale(factor=1) const float32[2]"}));
  EXPECT_EQ(outer.lines, (std::vector<std::string>{"test_scale(factor=2) const float32[2]"}));
}

}  // namespace
}  // namespace tenon
