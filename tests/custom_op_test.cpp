// The op of docs/architecture.md, "How to add an op": defined outside the library, it is
// differentiated, traced and compiled like any other.
#include <gtest/gtest.h>

#include "tenon/core/gradcheck.h"
#include "tenon/graph/graph.h"
#include "tenon/ops/cpu/map.h"
#include "tenon/ops/dispatch.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::ops {

namespace cpu {

void cube(const Tensor& x, const Tensor& y) {
  map_floating<1>({x}, y, [](const auto& a, auto& out) { out = a.cube(); });
}

}  // namespace cpu

class CubeOp : public Op {
 public:
  std::string_view name() const override { return "cube"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override {
    TENON_CHECK(is_floating(inputs[0].dtype), "cube: needs a floating dtype, got ",
                inputs[0].dtype);
    return {inputs[0]};
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    const Tensor y = empty_like(inputs[0]);
    TENON_DISPATCH_CPU(y.device(), cube(inputs[0], y));
    return {y};
  }
  Saved saved(IndexMask) const override { return {.inputs = index_bit(0)}; }
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override {
    return {grad_outputs[0] * square(context.input(0)) * 3.0};
  }
};

Tensor cube(const Tensor& x) { return apply(CubeOp(), {x}); }

}  // namespace tenon::ops

namespace tenon {
namespace {

TEST(CustomOpTest, ComputesEveryFloatingDtype) {
  for (const DType dtype : {DType::Float64, DType::Float32, DType::BFloat16, DType::Float16}) {
    const Tensor x = tensor({-2.0, 0.0, 1.5}).to(dtype);
    EXPECT_EQ(ops::cube(x).to_vector<double>(), (std::vector<double>{-8.0, 0.0, 3.375}));
  }
  test::expect_error([] { ops::cube(zeros({2}, {.dtype = DType::Int64})); }, {"cube", "int64"});
}

TEST(CustomOpTest, HasFirstAndSecondDerivatives) {
  const Tensor x = test::random_leaf({3, 5});
  const auto function = [](std::span<const Tensor> in) {
    return ops::cube(in[0].transpose(0, 1).slice(0, 0, 5, 2));
  };
  EXPECT_TRUE(gradcheck(function, {x}));
  EXPECT_TRUE(gradgradcheck(function, {x}));
}

TEST(CustomOpTest, IsTracedAndCompiled) {
  const auto compiled = graph::compile([](const Tensor& x) { return ops::cube(x) + 1.0; });
  EXPECT_EQ(compiled(tensor({2.0, -1.0})).to_vector<double>(), (std::vector<double>{9.0, 0.0}));
  EXPECT_NE(graph::to_text(compiled.graph_after()).find("cube(%x)"), std::string::npos);
}

}  // namespace
}  // namespace tenon
