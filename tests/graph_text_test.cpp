// A graph as text and as Graphviz.
#include <gtest/gtest.h>

#include "graph_models.h"
#include "tenon/ops/reduce.h"

namespace tenon::graph {
namespace {

using namespace tenon::graph::testing;  // NOLINT

Graph block_graph() {
  const Block block([](const Tensor& y) { return ops::hardtanh(ops::mish(y) + 0.5) * 2.0; },
                    DType::Float32);
  const CompiledFunction fast = compile(block);
  fast(block_input(DType::Float32));
  return fast.graph_before();
}

TEST(GraphText, ReadsLikeCode) {
  EXPECT_EQ(to_text(block_graph()),
            "graph(%x: float32[2, 3, 5, 4]) {\n"
            "  %up.weight: parameter float32[3, 4, 3, 3]\n"
            "  %up.bias: parameter float32[4]\n"
            "  %3 = conv_transpose2d(%x, %up.weight, %up.bias, stride=[2, 2], padding=[1, 1], "
            "output_padding=[1, 1])  : float32[2, 4, 10, 8]\n"
            "  %4 = mish(%3)                     : float32[2, 4, 10, 8]\n"
            "  %5 = add(%4, 0.5)                 : float32[2, 4, 10, 8]\n"
            "  %6 = hardtanh(%5, min=-1, max=1)  : float32[2, 4, 10, 8]\n"
            "  %7 = mul(%6, 2)                   : float32[2, 4, 10, 8]\n"
            "  return %7\n"
            "}\n");
}

TEST(GraphText, PutsTheNumberOnItsSide) {
  const CompiledFunction fast = compile([](const Tensor& x) { return 1.0 / (2.5 - x); });
  fast(random({3}, 1));
  const std::string text = to_text(fast.graph_before());
  EXPECT_NE(text.find("%1 = sub(2.5, %x)"), std::string::npos) << text;
  EXPECT_NE(text.find("%2 = div(1, %1)"), std::string::npos) << text;
}

TEST(GraphText, ListsSeveralInputsAndOutputs) {
  const CompiledFunction fast = compile([](const Tensor& a, const Tensor& b) {
    const Tensor sum = a + b;
    return std::vector<Tensor>{sum, a};
  });
  const std::vector<Tensor> inputs = {random({3}, 1), random({2, 1}, 2)};
  fast(inputs);
  EXPECT_EQ(to_text(fast.graph_before()),
            "graph(%x0: float64[3], %x1: float64[2, 1]) {\n"
            "  %2 = add(%x0, %x1)  : float64[2, 3]\n"
            "  return %2, %x0\n"
            "}\n");
}

TEST(GraphText, MarksConstants) {
  const Tensor c = random({3}, 3);
  const CompiledFunction fast = compile([c](const Tensor& x) { return x * c; });
  fast(random({3}, 1));
  EXPECT_NE(to_text(fast.graph_before()).find("  %c1: constant float64[3]\n"), std::string::npos);
}

TEST(GraphText, StreamsLikeToText) {
  const Graph graph = block_graph();
  std::ostringstream out;
  out << graph;
  EXPECT_EQ(out.str(), to_text(graph));
}

TEST(GraphDot, HasEveryNodeAndEdge) {
  const std::string dot = to_dot(block_graph(), {.title = "a \"title\""});
  EXPECT_EQ(dot.substr(0, 15), "digraph tenon {");
  EXPECT_NE(dot.find("label=\"a \\\"title\\\"\""), std::string::npos) << dot;
  EXPECT_NE(dot.find("[label=\"add 0.5\"]"), std::string::npos) << dot;
  EXPECT_NE(dot.find("up.weight [3, 4, 3, 3]\\nup.bias [4]"), std::string::npos) << dot;
  EXPECT_NE(dot.find("v0 -> n0"), std::string::npos) << dot;
  EXPECT_NE(dot.find("n3 -> n4"), std::string::npos) << dot;
  EXPECT_NE(dot.find("n4 -> out0"), std::string::npos) << dot;
}

TEST(GraphDot, ColoursFusedNodesAndTintsHighlightedOnes) {
  const Block block([](const Tensor& y) { return ops::mish(y); });
  const CompiledFunction fast = compile(block);
  fast(block_input());
  EXPECT_NE(to_dot(fast.graph_after()).find("penwidth=2"), std::string::npos);
  EXPECT_EQ(to_dot(fast.graph_before()).find("#fff4e6"), std::string::npos);
  EXPECT_NE(to_dot(fast.graph_before(), {.highlight = {4}}).find("#fff4e6"), std::string::npos);
}

}  // namespace
}  // namespace tenon::graph
