// What the text, Graphviz and SVG writers share. Internal to graph.
#pragma once

#include <string>
#include <vector>

#include "tenon/graph/ir.h"

namespace tenon::graph::detail {

/// The words in a node's box: the op and its number operand ("add 0.5"), then a line of attributes
/// and one for each parameter.
struct NodeWords {
  std::string title;
  std::vector<std::string> lines;
};
NodeWords node_words(const Graph& graph, const Node& node);

/// `text` with its markup characters escaped for XML.
std::string escape_xml(const std::string& text);

/// A number as a person would write it: "0.5", "-2", "1e-05", "inf".
std::string number_text(double value);

/// "float32[8, 64, 28, 28]".
std::string spec_text(const TensorSpec& spec);

}  // namespace tenon::graph::detail
