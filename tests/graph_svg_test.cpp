// A graph as a picture: well-formed XML, boxes that do not overlap, edges that run downward.
#include <gtest/gtest.h>

#include <regex>

#include "graph_models.h"
#include "tenon/graph/layout.h"

namespace tenon::graph {
namespace {

using namespace tenon::graph::testing;  // NOLINT

/// Checks that every element is closed and every "&" begins an entity.
void expect_well_formed(const std::string& xml) {
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z]+)([^<>]*?)(/?)>");
  std::size_t end_of_last = 0;
  for (std::sregex_iterator it(xml.begin(), xml.end(), tag), last; it != last; ++it) {
    const std::string between =
        xml.substr(end_of_last, static_cast<std::size_t>(it->position()) - end_of_last);
    EXPECT_EQ(between.find_first_of("<>"), std::string::npos) << between;
    end_of_last = static_cast<std::size_t>(it->position() + it->length());
    if ((*it)[1].length() > 0) {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ(open.back(), (*it)[2].str());
      open.pop_back();
    } else if ((*it)[4].length() == 0) {
      open.push_back((*it)[2].str());
    }
  }
  EXPECT_TRUE(open.empty());
  const std::regex entity("&(?!amp;|lt;|gt;|quot;|#39;)");
  EXPECT_FALSE(std::regex_search(xml, entity));
}

CompiledFunction compiled_block() {
  Block block([](const Tensor& y) { return ops::hardtanh(ops::mish(y) + 0.5) * 2.0; });
  CompiledFunction fast = compile(std::move(block));
  fast(block_input());
  return fast;
}

TEST(GraphSvg, IsWellFormedWhateverTheNames) {
  const Tensor odd = random({3}, 1);
  const std::vector<NamedTensor> names = {{"<w> & \"co\" 'x'", odd}};
  const std::vector<TensorSpec> inputs = {odd.spec()};
  const Graph graph = trace(
      [&](std::span<const Tensor> in) { return std::vector<Tensor>{in[0] * odd}; }, inputs, names);
  const std::string svg = to_svg(graph, {.title = "a < b && c > \"d\""});
  expect_well_formed(svg);
  EXPECT_NE(svg.find("&lt;w&gt; &amp; &quot;co&quot; &#39;x&#39;"), std::string::npos) << svg;
}

TEST(GraphSvg, ShowsOpsParametersAndShapes) {
  const std::string svg = compiled_block().svg_before();
  expect_well_formed(svg);
  for (const char* part : {">conv_transpose2d<", ">mish<", ">add 0.5<", ">mul 2<",
                           ">up.weight [3, 4, 3, 3]<", ">[2, 4, 10, 8]<", ">as traced<"}) {
    EXPECT_NE(svg.find(part), std::string::npos) << part;
  }
}

TEST(GraphSvg, ColoursTheFusedNodeAndTintsWhatWillFuse) {
  const CompiledFunction fast = compiled_block();
  EXPECT_NE(fast.svg_after().find("#ffd8a8"), std::string::npos);
  EXPECT_NE(fast.svg_before().find("#fff4e6"), std::string::npos);
  EXPECT_EQ(fast.svg_before().find("#ffd8a8"), std::string::npos);
}

TEST(GraphSvg, ComparesBeforeAndAfterInOnePicture) {
  const std::string svg = compiled_block().svg_comparison();
  expect_well_formed(svg);
  EXPECT_NE(svg.find(">as traced<"), std::string::npos);
  EXPECT_NE(svg.find(">as it runs<"), std::string::npos);
  EXPECT_NE(svg.find(">conv_transpose2d_epilogue<"), std::string::npos);
}

TEST(GraphSvg, DrawsAGraphWithoutNodes) {
  Graph graph;
  graph.set_outputs({graph.add_input("x", {{2}, DType::Float32, Device::cpu()})});
  expect_well_formed(to_svg(graph));
}

TEST(Layout, PutsReadersBelowAndKeepsBoxesApart) {
  std::vector<detail::Box> boxes(40);
  std::vector<detail::Link> links;
  Generator generator(7);
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    boxes[i].width = 40 + 10.0 * (generator.next() % 8);
    boxes[i].height = 20 + 10.0 * (generator.next() % 3);
    for (int k = 0; k < 2 && i > 0; ++k) links.push_back({generator.next() % i, i});
  }
  const detail::Layout layout = detail::place(boxes, links);
  for (const detail::Link& link : layout.links) {
    EXPECT_GT(layout.boxes[link.to].y, layout.boxes[link.from].y + layout.boxes[link.from].height);
    EXPECT_EQ(link.bends.size() + 1, layout.boxes[link.to].layer - layout.boxes[link.from].layer);
  }
  for (std::size_t a = 0; a < layout.boxes.size(); ++a) {
    const detail::Box& left = layout.boxes[a];
    EXPECT_GE(left.x - left.width / 2, -1e-9);
    EXPECT_LE(left.x + left.width / 2, layout.width + 1e-9);
    EXPECT_LE(left.y + left.height, layout.height + 1e-9);
    for (std::size_t b = a + 1; b < layout.boxes.size(); ++b) {
      const detail::Box& right = layout.boxes[b];
      if (left.layer != right.layer) continue;
      EXPECT_GE(std::abs(left.x - right.x), (left.width + right.width) / 2) << a << " and " << b;
    }
  }
}

}  // namespace
}  // namespace tenon::graph
