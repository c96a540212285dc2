#include <algorithm>
#include <sstream>

#include "tenon/graph/print.h"
#include "tenon/graph/print_parts.h"

namespace tenon::graph {
namespace {

/// `text` as a quoted DOT string; "\n" stays a line break.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (c == '\n') {
      result += "\\n";
    } else {
      result += c;
    }
  }
  return result + "\"";
}

bool drawn_apart(const Value& value) {
  return value.kind == ValueKind::Input || value.kind == ValueKind::Intermediate;
}

}  // namespace

std::string to_dot(const Graph& graph, const DrawOptions& options) {
  std::ostringstream out;
  out << "digraph tenon {\n"
         "  node [shape=box, style=\"rounded,filled\", fillcolor=\"#f5f6f8\", "
         "fontname=\"Helvetica\", fontsize=11];\n"
         "  edge [fontname=\"Helvetica\", fontsize=9, color=\"#667085\"];\n";
  if (!options.title.empty()) out << "  label=" << quoted(options.title) << "; labelloc=t;\n";
  std::vector<std::string> source(graph.value_count());  // the DOT node that a value leaves from
  for (const ValueId id : graph.inputs()) {
    source[id] = tenon::detail::concat("v", id);
    out << "  " << source[id]
        << " [shape=oval, fillcolor=\"#e3f0ff\", label=" << quoted(value_label(graph, id))
        << "];\n";
  }
  for (const ValueId id : graph.outputs()) {
    const Value& value = graph.value(id);
    if (drawn_apart(value) || !source[id].empty()) continue;
    source[id] = tenon::detail::concat("v", id);
    out << "  " << source[id] << " [shape=oval, label=" << quoted(value_label(graph, id)) << "];\n";
  }
  for (std::size_t position = 0; position < graph.nodes().size(); ++position) {
    const Node& node = graph.nodes()[position];
    const std::string name = tenon::detail::concat("n", position);
    detail::NodeWords words = detail::node_words(graph, node);
    std::string label = words.title;
    for (const std::string& line : words.lines) label += "\n" + line;
    const bool tinted = std::any_of(node.outputs.begin(), node.outputs.end(),
                                    [&](ValueId id) { return options.highlight.contains(id); });
    out << "  " << name << " [label=" << quoted(label);
    if (!node.replaced.empty()) {
      out << ", fillcolor=\"#ffd8a8\", color=\"#e8590c\", penwidth=2";
    } else if (tinted) {
      out << ", fillcolor=\"#fff4e6\", color=\"#f08c00\"";
    }
    out << "];\n";
    for (const ValueId id : node.inputs) {
      if (!drawn_apart(graph.value(id))) continue;
      out << "  " << source[id] << " -> " << name
          << " [label=" << quoted(graph.value(id).spec.shape.to_string()) << "];\n";
    }
    for (const ValueId id : node.outputs) source[id] = name;
  }
  for (std::size_t i = 0; i < graph.outputs().size(); ++i) {
    const ValueId id = graph.outputs()[i];
    out << "  out" << i << " [shape=oval, fillcolor=\"#e6f6ea\", label=\"return\"];\n  "
        << source[id] << " -> out" << i
        << " [label=" << quoted(graph.value(id).spec.shape.to_string()) << "];\n";
  }
  out << "}\n";
  return out.str();
}

}  // namespace tenon::graph
