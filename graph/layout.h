// Layered drawing of a graph: which box goes where. Internal to graph.
#pragma once

#include <cstddef>
#include <vector>

namespace tenon::graph::detail {

/// A box to place, or a bend of a long edge (then of width 0).
struct Box {
  double width = 0;
  double height = 0;
  double label = 0;       // width of the words that may stand at its right
  std::size_t layer = 0;  // 0 at the top
  double x = 0;           // centre
  double y = 0;           // top
};

struct Link {
  std::size_t from = 0;
  std::size_t to = 0;
  std::vector<std::size_t> bends = {};  // boxes that the edge passes on its way
};

struct Layout {
  std::vector<Box> boxes;
  std::vector<Link> links;
  double width = 0;
  double height = 0;
};

/// Places `boxes` (their sizes are read) so that every link runs downward, after Sugiyama, Tagawa
/// and Toda, "Methods for visual understanding of hierarchical system structures" (1981): layers by
/// longest path, order within a layer by barycentres, then positions near the neighbours' mean.
/// Boxes must be given in topological order. Bends are appended behind the given boxes.
Layout place(std::vector<Box> boxes, std::vector<Link> links);

}  // namespace tenon::graph::detail
