// Tracing: what a function becomes as a graph, and what cannot become one.
#include "tenon/graph/trace.h"

#include <gtest/gtest.h>

#include "graph_models.h"
#include "tenon/core/structural.h"
#include "tenon/ops/loss.h"

namespace tenon::graph {
namespace {

using namespace tenon::graph::testing;  // NOLINT

const std::vector<TensorSpec> kOneInput = {{{2, 3}, DType::Float64, Device::cpu()}};

TEST(Trace, RecordsOpsInOrderAndComputesNothing) {
  const std::int64_t allocations = memory_stats(Device::cpu()).allocations;
  const Graph graph = trace(
      [](std::span<const Tensor> in) {
        EXPECT_TRUE(in[0].is_traced());
        return std::vector<Tensor>{(ops::tanh(in[0]) + 1.0).transpose(0, 1)};
      },
      kOneInput);
  EXPECT_EQ(memory_stats(Device::cpu()).allocations, allocations);
  EXPECT_EQ(op_names(graph), "tanh add permute");
  EXPECT_EQ(graph.value(graph.outputs()[0]).spec.shape, (Shape{3, 2}));
}

TEST(Trace, RecordsALossOfADifferenceAsOneOp) {
  const std::vector<TensorSpec> specs = {kOneInput[0], kOneInput[0]};
  const Graph graph = trace(
      [](std::span<const Tensor> in) {
        return std::vector<Tensor>{ops::mse_loss(in[0], in[1]),
                                   ops::l1_loss(in[0], in[1], ops::Reduction::Sum)};
      },
      specs);
  EXPECT_EQ(op_names(graph), "mse_loss l1_loss");
  EXPECT_EQ(graph.value(graph.outputs()[0]).spec.shape, Shape{});
}

TEST(Trace, NamesSeveralInputsByTheirPositions) {
  const std::vector<TensorSpec> specs = {kOneInput[0], kOneInput[0]};
  const Graph graph =
      trace([](std::span<const Tensor> in) { return std::vector<Tensor>{in[0] * in[1]}; }, specs);
  EXPECT_EQ(value_label(graph, graph.inputs()[0]), "%x0");
  EXPECT_EQ(value_label(graph, graph.inputs()[1]), "%x1");
}

TEST(Trace, CapturesNamedTensorsAsParametersAndOthersAsConstantsOnce) {
  const Tensor weight = random({2, 3}, 1);
  const Tensor other = random({2, 3}, 2);
  const std::vector<NamedTensor> names = {{"layer.weight", weight}};
  const Graph graph = trace(
      [&](std::span<const Tensor> in) {
        return std::vector<Tensor>{(in[0] * weight + other) * weight + other};
      },
      kOneInput, names);
  const std::vector<ValueId> captured = graph.captured();
  ASSERT_EQ(captured.size(), 2u);
  EXPECT_EQ(graph.value(captured[0]).kind, ValueKind::Parameter);
  EXPECT_EQ(graph.value(captured[0]).name, "layer.weight");
  EXPECT_TRUE(graph.value(captured[0]).tensor.is_same(weight));
  EXPECT_EQ(graph.value(captured[1]).kind, ValueKind::Constant);
  EXPECT_TRUE(graph.value(captured[1]).tensor.is_same(other));
}

TEST(Trace, GivesAParameterCalledLikeTheInputAnotherName) {
  const Tensor weight = random({2, 3}, 1);
  const std::vector<NamedTensor> names = {{"x", weight}};
  const Graph graph =
      trace([&](std::span<const Tensor> in) { return std::vector<Tensor>{in[0] * weight}; },
            kOneInput, names);
  EXPECT_NE(to_text(graph).find("mul(%x, %x_)"), std::string::npos) << graph;
}

TEST(Trace, MayReturnAnInputOrAConstant) {
  const Tensor constant = random({4}, 3);
  const Graph graph = trace(
      [&](std::span<const Tensor> in) {
        return std::vector<Tensor>{in[0], constant};
      },
      kOneInput);
  EXPECT_TRUE(graph.nodes().empty());
  EXPECT_EQ(graph.outputs()[0], graph.inputs()[0]);
  EXPECT_EQ(graph.value(graph.outputs()[1]).kind, ValueKind::Constant);
}

TEST(Trace, FollowsABranchOfTheShapeOnce) {
  const auto function = [](std::span<const Tensor> in) {
    return std::vector<Tensor>{in[0].size(0) > 2 ? ops::tanh(in[0]) : ops::sigmoid(in[0])};
  };
  EXPECT_EQ(op_names(trace(function, kOneInput)), "sigmoid");
  const std::vector<TensorSpec> large = {{{5, 3}, DType::Float64, Device::cpu()}};
  EXPECT_EQ(op_names(trace(function, large)), "tanh");
}

TEST(Trace, MarksWhatRunsWithoutGradients) {
  const NoGradGuard outside;  // the caller's own choice is not the function's
  const Graph graph = trace(
      [](std::span<const Tensor> in) {
        const Tensor first = ops::tanh(in[0]);
        const NoGradGuard inside;
        return std::vector<Tensor>{ops::sigmoid(first)};
      },
      kOneInput);
  EXPECT_FALSE(graph.nodes()[0].no_grad);
  EXPECT_TRUE(graph.nodes()[1].no_grad);
}

/// Expects an `Error` whose message has `part` in it.
template <class Function>
void expect_error(const std::string& part, Function&& function) {
  try {
    function();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Trace, SaysThatElementsCannotBeRead) {
  expect_error("being traced has a shape but no values", [] {
    trace(
        [](std::span<const Tensor> in) {
          return std::vector<Tensor>{in[0] * in[0].select(0, 0).select(0, 0).item()};
        },
        kOneInput);
  });
  EXPECT_FALSE(is_tracing()) << "the trace must end with the exception";
}

TEST(Trace, SaysThatNothingCanBeChangedInPlace) {
  expect_error("cannot be changed in place", [] {
    trace(
        [](std::span<const Tensor> in) {
          in[0].zero_();
          return std::vector<Tensor>{in[0]};
        },
        kOneInput);
  });
}

TEST(Trace, RefusesATensorOfAnEarlierTrace) {
  Tensor kept;
  const auto function = [&](std::span<const Tensor> in) {
    if (!kept.defined()) kept = ops::tanh(in[0]);
    return std::vector<Tensor>{in[0] + kept};
  };
  trace(function, kOneInput);
  expect_error("from another trace", [&] { trace(function, kOneInput); });
}

TEST(Trace, RefusesAnUndefinedResult) {
  expect_error("undefined tensor", [] {
    trace([](std::span<const Tensor>) { return std::vector<Tensor>{Tensor()}; }, kOneInput);
  });
}

TEST(Trace, ReportsShapeErrorsInTheWordsOfTheOp) {
  const Tensor wrong = random({4, 5}, 4);
  expect_error("add: ", [&] {
    trace([&](std::span<const Tensor> in) { return std::vector<Tensor>{in[0] + wrong}; },
          kOneInput);
  });
}

// ---- the verifier -------------------------------------------------------------------------------

Graph chain_graph() {
  return trace(
      [](std::span<const Tensor> in) {
        return std::vector<Tensor>{ops::sigmoid(ops::tanh(in[0]))};
      },
      kOneInput);
}

TEST(Verify, AcceptsWhatTraceMakes) { EXPECT_NO_THROW(chain_graph().verify()); }

TEST(Verify, FindsAReadBeforeTheWrite) {
  Graph graph = chain_graph();
  std::swap(graph.mutable_nodes()[0], graph.mutable_nodes()[1]);
  expect_error("sigmoid reads %1, which is not computed before it", [&] { graph.verify(); });
}

TEST(Verify, FindsAValueComputedTwice) {
  Graph graph = chain_graph();
  graph.mutable_nodes().push_back(graph.nodes()[0]);
  expect_error("%1 is computed twice", [&] { graph.verify(); });
}

TEST(Verify, FindsASpecThatTheOpDoesNotGive) {
  Graph graph = chain_graph();
  graph.mutable_nodes()[1].op = std::make_shared<const ReshapeOp>(Shape{3, 2});
  expect_error("reshape gives float64[3, 2], but %2 is listed as float64[2, 3]",
               [&] { graph.verify(); });
}

TEST(Verify, FindsAnOutputThatNobodyComputes) {
  Graph graph = chain_graph();
  graph.mutable_nodes().pop_back();
  expect_error("output %2 is never computed", [&] { graph.verify(); });
}

TEST(UseIndex, KnowsProducersReadersAndOutputs) {
  const Graph graph = trace(
      [](std::span<const Tensor> in) {
        const Tensor a = ops::tanh(in[0]);
        return std::vector<Tensor>{a * a};
      },
      kOneInput);
  const UseIndex uses(graph);
  EXPECT_EQ(uses.producer(0), UseIndex::kNone);
  EXPECT_EQ(uses.producer(2), 1u);
  EXPECT_EQ(uses.readers(1), (std::vector<std::size_t>{1}));
  EXPECT_TRUE(uses.is_output(2));
  EXPECT_FALSE(uses.is_output(1));
}

}  // namespace
}  // namespace tenon::graph
