// Canonicalisation, dead code, common subexpressions, and tables of rows.
#include "tenon/graph/passes.h"

#include <gtest/gtest.h>

#include <limits>

#include "graph_models.h"
#include "tenon/graph/executor.h"
#include "tenon/graph/trace.h"

namespace tenon::graph {
namespace {

using namespace tenon::graph::testing;  // NOLINT

using Function = std::function<Tensor(const Tensor&)>;

Graph traced(const Function& function, DType dtype = DType::Float64) {
  const std::vector<TensorSpec> inputs = {{{2, 3}, dtype, Device::cpu()}};
  return trace([&](std::span<const Tensor> in) { return std::vector<Tensor>{function(in[0])}; },
               inputs);
}

Graph after(const std::vector<Pass>& passes, const Graph& graph) {
  return run_passes(graph, passes).back().graph;
}

/// The calls of the canonical graph, one after another: "add(%x, 3) tanh(%1)".
std::string canonical(const Function& function, DType dtype = DType::Float64) {
  const Graph graph = after(default_passes(false), traced(function, dtype));
  std::string calls;
  for (const Node& node : graph.nodes()) {
    if (!calls.empty()) calls += ' ';
    calls += call_text(graph, node);
  }
  return calls;
}

TEST(Canonicalise, MovesConstantsToTheRight) {
  const Tensor c = random({2, 3}, 1);
  EXPECT_EQ(canonical([&](const Tensor& x) { return ops::add(c, x); }), "add(%x, %c1)");
  EXPECT_EQ(canonical([&](const Tensor& x) { return ops::mul(c, x); }), "mul(%x, %c1)");
  EXPECT_EQ(canonical([&](const Tensor& x) { return ops::sub(c, x); }), "sub(%c1, %x)");
}

TEST(Canonicalise, FoldsSumsOfOneSign) {
  EXPECT_EQ(canonical([](const Tensor& x) { return x + 1.0 + 2.0 + 3.5; }), "add(%x, 6.5)");
  EXPECT_EQ(canonical([](const Tensor& x) { return x - 1.0 - 2.0; }), "add(%x, -3)");
}

TEST(Canonicalise, KeepsASumThatRoundsOnPurpose) {
  // (x + 2^52) - 2^52 rounds to whole numbers; folded to x + 0 it would do nothing.
  const double shift = 4503599627370496.0;
  const Function round = [=](const Tensor& x) { return x + shift - shift; };
  EXPECT_EQ(op_names(after(default_passes(), traced(round))), "add add");
}

TEST(Canonicalise, FoldsProducts) {
  EXPECT_EQ(canonical([](const Tensor& x) { return 2.0 * x * 3.0; }), "mul(%x, 6)");
  EXPECT_EQ(canonical([](const Tensor& x) { return -(-x); }), "mul(%x, 1)")
      << "the result must not be the input itself";
  EXPECT_EQ(canonical([](const Tensor& x) { return ops::tanh(-(-x)); }), "tanh(%x)");
  EXPECT_EQ(canonical([](const Tensor& x) { return -x * 3.0 / 2.0; }), "mul(%x, -1.5)");
}

TEST(Canonicalise, KeepsProductsThatWouldOverflowOrVanish) {
  EXPECT_EQ(canonical([](const Tensor& x) { return x * 1e30 * 1e30; }, DType::Float32),
            "mul(%x, 1e+30) mul(%1, 1e+30)");
  EXPECT_EQ(canonical([](const Tensor& x) { return x * 1e-30 * 1e-30; }, DType::Float32),
            "mul(%x, 1e-30) mul(%1, 1e-30)");
  EXPECT_EQ(canonical([](const Tensor& x) { return x * 0.0 * 2.0; }), "mul(%x, 0) mul(%1, 2)");
  EXPECT_EQ(canonical([](const Tensor& x) { return x * 300.0 * 300.0; }, DType::Float16),
            "mul(%x, 300) mul(%1, 300)");
}

TEST(Canonicalise, LeavesIntegersAlone) {
  EXPECT_EQ(canonical([](const Tensor& x) { return x + 1 + 2; }, DType::Int64),
            "add(%x, 1) add(%1, 2)");
  EXPECT_EQ(canonical([](const Tensor& x) { return x - 1; }, DType::UInt8), "sub(%x, 1)");
}

TEST(Canonicalise, TurnsDivisionByAPowerOfTwoIntoAProduct) {
  EXPECT_EQ(canonical([](const Tensor& x) { return x / 8.0; }), "mul(%x, 0.125)");
  EXPECT_EQ(canonical([](const Tensor& x) { return x / -0.5; }), "mul(%x, -2)");
  EXPECT_EQ(canonical([](const Tensor& x) { return x / 3.0; }), "div(%x, 3)");
  EXPECT_EQ(canonical([](const Tensor& x) { return x / 0.0; }), "div(%x, 0)");
}

TEST(Canonicalise, RemovesAProductWithOne) {
  EXPECT_EQ(canonical([](const Tensor& x) { return ops::tanh(x * 1.0); }), "tanh(%x)");
  EXPECT_EQ(canonical([](const Tensor& x) { return ops::tanh(x / 1.0); }), "tanh(%x)");
  EXPECT_EQ(canonical([](const Tensor& x) { return ops::tanh(x) * 1; }), "tanh(%x)");
}

TEST(Canonicalise, RemovesOnlyTheZeroThatChangesNothing) {
  EXPECT_EQ(canonical([](const Tensor& x) { return ops::tanh(x + 0.0); }), "add(%x, 0) tanh(%1)")
      << "-0 + 0 is 0";
  EXPECT_EQ(canonical([](const Tensor& x) { return ops::tanh(x - 0.0); }), "tanh(%x)");
  EXPECT_EQ(canonical([](const Tensor& x) { return ops::tanh(x + -0.0); }), "tanh(%x)");
  EXPECT_EQ(canonical([](const Tensor& x) { return ops::relu(x + 0); }, DType::Int64), "relu(%x)");
}

TEST(Canonicalise, KeepsAnOutputThatWouldBecomeTheInput) {
  EXPECT_EQ(canonical([](const Tensor& x) { return x * 1.0; }), "mul(%x, 1)");
  const Tensor x = random({2, 3}, 1);
  const CompiledFunction fast = compile([](const Tensor& t) { return t * 1.0; });
  fast(x).zero_();
  EXPECT_NE(x.to_vector<double>()[0], 0) << "the caller's argument was overwritten";
}

TEST(Canonicalise, WritesMishAsOneOp) {
  EXPECT_EQ(canonical([](const Tensor& x) { return ops::mul(ops::tanh(ops::softplus(x)), x); }),
            "mish(%x)");
}

TEST(Canonicalise, JoinsReshapes) {
  EXPECT_EQ(canonical([](const Tensor& x) {
              return x.reshape({6}).reshape({3, 2});
            }),
            "reshape(%x, shape=[3, 2])");
  EXPECT_EQ(canonical([](const Tensor& x) {
              return ops::tanh(x.reshape({6}).reshape({2, 3}));
            }),
            "tanh(%x)");
}

TEST(Canonicalise, ChangesNoElementForAwkwardNumbers) {
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor x = tensor<double>({-0.0, 0.0, infinity, -infinity, nan, 1e-310, -1e308, 3.0});
  const std::vector<Function> functions = {
      [](const Tensor& t) { return 1.0 / (t * 1.0); },   // 1 / -0 is -infinity
      [](const Tensor& t) { return 1.0 / (t - 0.0); },   //
      [](const Tensor& t) { return 1.0 / (t + 0.0); },   //
      [](const Tensor& t) { return 1.0 / -(-t); },       //
      [](const Tensor& t) { return 1.0 / (t / -4.0); },  //
      [](const Tensor& t) { return t + 1.0 + 2.0; },     //
  };
  for (const Function& function : functions) {
    const Tensor expected = function(x);
    const CompiledFunction fast = compile(function);
    const Tensor result = fast(x);
    EXPECT_EQ(distance(expected, result), 0) << expected << result << fast.graph_after();
  }
}

// ---- structural passes --------------------------------------------------------------------------

/// Adds one; impure, as an op that draws random numbers is.
class ImpureOp : public Op {
 public:
  std::string_view name() const override { return "impure"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override {
    return {inputs[0]};
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    return {inputs[0] + 1.0};
  }
  bool pure() const override { return false; }
};

/// x -> (x + 1, x - 1): an op of two outputs.
class BothOp : public Op {
 public:
  std::string_view name() const override { return "both"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override {
    return {inputs[0], inputs[0]};
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    return {inputs[0] + 1.0, inputs[0] - 1.0};
  }
  bool differentiable() const override { return false; }
};

TEST(DeadCode, GoesWithAllThatOnlyItNeeds) {
  const Graph graph = traced([](const Tensor& x) {
    ops::tanh(ops::sigmoid(x));
    return ops::mish(x);
  });
  EXPECT_EQ(op_names(after({dead_code()}, graph)), "mish");
}

TEST(DeadCode, KeepsImpureOpsAndWhatTheyRead) {
  const Graph graph = traced([](const Tensor& x) {
    apply(ImpureOp(), {ops::sigmoid(x)});
    return ops::mish(x);
  });
  EXPECT_EQ(op_names(after(default_passes(), graph)), "sigmoid impure mish");
}

TEST(DeadCode, KeepsAnOpOfWhichOneOutputIsRead) {
  const Graph graph = traced([](const Tensor& x) {
    const std::vector<Tensor> inputs = {x};
    return call(std::make_shared<const BothOp>(), inputs)[1];
  });
  EXPECT_EQ(op_names(after(default_passes(), graph)), "both");
}

TEST(CommonSubexpressions, AreComputedOnce) {
  const Graph graph = traced([](const Tensor& x) {
    const Tensor a = ops::tanh(ops::sigmoid(x));
    const Tensor b = ops::tanh(ops::sigmoid(x));
    return a + b;
  });
  const Graph merged = after({common_subexpressions()}, graph);
  EXPECT_EQ(op_names(merged), "sigmoid tanh add");
  EXPECT_EQ(call_text(merged, merged.nodes()[2]), "add(%2, %2)");
}

TEST(CommonSubexpressions, DifferByAttributesOperandsAndGradients) {
  const Graph graph = traced([](const Tensor& x) {
    const Tensor a = ops::hardtanh(x, -1, 1);
    const Tensor b = ops::hardtanh(x, -1, 2);
    const Tensor c = ops::hardtanh(a, -1, 1);
    const NoGradGuard no_gradients;
    const Tensor d = ops::hardtanh(x, -1, 1);
    return a + b + c + d;
  });
  EXPECT_EQ(op_names(after({common_subexpressions()}, graph)),
            "hardtanh hardtanh hardtanh hardtanh add add add");
}

TEST(CommonSubexpressions, LeaveImpureOpsAlone) {
  const Graph graph = traced([](const Tensor& x) {
    const Tensor a = apply(ImpureOp(), {x});
    const Tensor b = apply(ImpureOp(), {x});
    return a + b;
  });
  EXPECT_EQ(op_names(after(default_passes(), graph)), "impure impure add");
}

/// Adds one to its input in place, as a running statistic is updated.
class IncrementOp : public ImpureOp {
 public:
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    inputs[0].copy_(inputs[0] + 1.0);
    return {inputs[0].clone()};
  }
};

TEST(CommonSubexpressions, AreNotMergedAcrossAChangeOfWhatTheyRead) {
  const Tensor state = zeros({3}, {.dtype = DType::Float64});
  const auto function = [&](const Tensor& x) {
    const Tensor before = x * state;
    apply(IncrementOp(), {state});
    const Tensor after_change = x * state;
    return before + after_change;
  };
  const CompiledFunction fast = compile(function);
  const Tensor x = random({3}, 1);
  EXPECT_EQ(distance(fast(x), x), 0) << "0·x + 1·x";
  EXPECT_EQ(op_names(fast.graph_after()), "mul impure mul add");
}

TEST(TablePass, DoesNotMoveAReadBehindAChange) {
  const Tensor weight = random({3, 4, 3, 3}, 2);
  const CompiledFunction fast = compile([&](const Tensor& x) {
    const Tensor y = ops::conv_transpose2d(x, weight);
    apply(IncrementOp(), {weight});
    return ops::mish(y);
  });
  const Tensor x = block_input();
  const Tensor expected = ops::mish(ops::conv_transpose2d(x, weight));
  EXPECT_LT(distance(fast(x), expected), 1e-12);
  EXPECT_EQ(op_names(fast.graph_after()), "conv_transpose2d impure mish");
}

TEST(CommonSubexpressions, KeepTwoOutputsTwoTensors) {
  const CompiledFunction fast = compile([](const Tensor& x) {
    const Tensor a = ops::tanh(x);
    const Tensor b = ops::tanh(x);
    const Tensor c = ops::tanh(x);
    return std::vector<Tensor>{a, b, c + 0.5};
  });
  const std::vector<Tensor> inputs = {random({3}, 1)};
  const std::vector<Tensor> results = fast(inputs);
  EXPECT_FALSE(results[0].is_same(results[1]));
  EXPECT_EQ(op_names(fast.graph_after()), "tanh tanh add");
}

// ---- tables -------------------------------------------------------------------------------------

TEST(TablePass, AppliesTheFirstRowThatMatchesUntilNoneDoes) {
  const Pattern x = any("x");
  const std::vector<Row> rows = {
      {"a", tanh(x), [](const Captured& c) { return ops::sigmoid(c["x"]); }},
      {"b", op("sigmoid", {x}), [](const Captured& c) { return ops::mish(c["x"]); }},
  };
  const std::vector<Pass> passes = {table_pass("test", rows)};
  const std::vector<Snapshot> snapshots =
      run_passes(traced([](const Tensor& t) { return ops::tanh(ops::tanh(t)); }), passes);
  EXPECT_EQ(op_names(snapshots.back().graph), "mish mish");
  EXPECT_EQ(snapshots.back().rewrites.size(), 4u);
  EXPECT_EQ(snapshots.back().graph.outputs(), snapshots.front().graph.outputs())
      << "a rewritten value keeps its number";
}

TEST(TablePass, DoesNotReplaceImpureOps) {
  const std::vector<Pass> passes = {table_pass(
      "test", {{"drop", op("impure", {any("x")}), [](const Captured& c) { return c["x"]; }}})};
  const Graph graph = traced([](const Tensor& x) { return ops::tanh(apply(ImpureOp(), {x})); });
  EXPECT_EQ(op_names(after(passes, graph)), "impure tanh");
}

TEST(TablePass, RefusesAReplacementOfAnotherShape) {
  const std::vector<Pass> passes = {table_pass(
      "test",
      {{"flatten", tanh(any("x")), [](const Captured& c) { return c["x"].reshape({-1}); }}})};
  EXPECT_THROW(after(passes, traced([](const Tensor& x) { return ops::tanh(x); })), Error);
}

TEST(TablePass, EndsWhenRowsUndoOneAnother) {
  const Pattern x = any("x");
  const std::vector<Pass> passes = {table_pass(
      "test", {{"there", tanh(x), [](const Captured& c) { return ops::sigmoid(c["x"]); }},
               {"back", op("sigmoid", {x}), [](const Captured& c) { return ops::tanh(c["x"]); }}})};
  EXPECT_THROW(after(passes, traced([](const Tensor& t) { return ops::tanh(t); })), Error);
}

TEST(Passes, KeepTheGraphAfterEachPass) {
  const std::vector<Pass> passes = default_passes();
  const std::vector<Snapshot> snapshots =
      run_passes(traced([](const Tensor& x) { return x + 1.0 + 2.0; }), passes);
  ASSERT_EQ(snapshots.size(), passes.size() + 1);
  EXPECT_EQ(snapshots[0].pass, "trace");
  EXPECT_EQ(op_names(snapshots[0].graph), "add add");
  EXPECT_EQ(op_names(snapshots.back().graph), "add");
}

TEST(Passes, HandleGraphsOfTwoHundredNodes) {
  const auto function = [](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 50; ++i) y = ops::tanh(y * 1.5 * 0.5 + 0.25 + 0.25) + ops::sigmoid(y);
    return y;
  };
  const CompiledFunction fast = compile(function);
  const Tensor x = random({4}, 1);
  x.requires_grad_();
  const Tensor expected = function(x);
  const Tensor result = fast(x);
  EXPECT_LT(distance(expected, result), 1e-12);
  EXPECT_EQ(fast.graph_before().nodes().size(), 350u);
  EXPECT_EQ(fast.graph_after().nodes().size(), 250u);
  const Tensor seed = ones({4}, {.dtype = DType::Float64});
  EXPECT_LT(
      distance(
          grad(std::vector<Tensor>{expected}, std::vector<Tensor>{x}, std::vector<Tensor>{seed})[0],
          grad(std::vector<Tensor>{result}, std::vector<Tensor>{x}, std::vector<Tensor>{seed})[0]),
      1e-12);
}

}  // namespace
}  // namespace tenon::graph
