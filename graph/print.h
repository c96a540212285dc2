// A graph as text that reads like code, as Graphviz and as a picture.
#pragma once

#include <iosfwd>
#include <set>
#include <span>
#include <string>

#include "tenon/graph/ir.h"

namespace tenon::graph {

/// One line a node, with the shapes in a column:
///
///     graph(%x: float32[8, 16, 7, 7]) {
///       %up.weight: parameter float32[16, 8, 3, 3]
///       %2 = conv_transpose2d(%x, %up.weight, stride=[2, 2])  : float32[8, 8, 15, 15]
///       %3 = mish(%2)                                         : float32[8, 8, 15, 15]
///       return %3
///     }
std::string to_text(const Graph& graph);
std::ostream& operator<<(std::ostream& out, const Graph& graph);

/// "conv_transpose2d(%x, %up.weight, stride=[2, 2])"; an op of a tensor and a number shows the
/// number as an operand, "add(%3, 0.5)". A convolution's settings are left out where they are the
/// usual ones.
std::string call_text(const Graph& graph, const Node& node);

/// How the pictures look. Fused nodes are always coloured.
struct DrawOptions {
  std::string title = {};            ///< written above the graph; may be empty
  std::set<ValueId> highlight = {};  ///< nodes that compute one of these are tinted
};

/// The graph in the DOT language: `dot -Tsvg`.
std::string to_dot(const Graph& graph, const DrawOptions& options = {});

/// The graph as a self-contained SVG, laid out in layers from top to bottom. Parameters are written
/// inside the nodes that read them.
std::string to_svg(const Graph& graph, const DrawOptions& options = {});

/// A graph and how to draw it; the graph must outlive this.
struct Picture {
  const Graph& graph;
  DrawOptions options = {};
};

/// Several graphs next to one another in one SVG: before and after.
std::string to_svg(std::span<const Picture> pictures);

}  // namespace tenon::graph
