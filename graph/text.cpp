#include <algorithm>
#include <array>
#include <sstream>

#include "tenon/graph/print.h"
#include "tenon/graph/print_parts.h"

namespace tenon::graph {
namespace {

/// Position of the attribute that holds an op's number operand, or -1.
std::ptrdiff_t number_operand(const Attributes& attributes) {
  const auto found = std::find_if(attributes.begin(), attributes.end(),
                                  [](const Attribute& a) { return a.name == "scalar"; });
  return found == attributes.end() ? -1 : found - attributes.begin();
}

bool is_true(const Attribute& attribute) {
  const bool* flag = std::get_if<bool>(&attribute.value);
  return flag != nullptr && *flag;
}

std::string value_text(const Attribute& attribute) {
  if (const double* number = std::get_if<double>(&attribute.value)) {
    return detail::number_text(*number);
  }
  const std::string named = tenon::detail::concat(Attributes{attribute});
  return named.substr(attribute.name.size() + 1);
}

std::string join(const std::vector<std::string>& parts, const std::string& separator) {
  std::string text;
  for (const std::string& part : parts) {
    if (!text.empty()) text += separator;
    text += part;
  }
  return text;
}

/// Settings that say nothing because they are the usual ones.
bool is_usual(const std::string& attribute) {
  constexpr std::array<const char*, 5> kUsual{"groups=1", "dilation=[1, 1]", "padding=[0, 0]",
                                              "output_padding=[0, 0]", "stride=[1, 1]"};
  return std::find(kUsual.begin(), kUsual.end(), attribute) != kUsual.end();
}

/// The attributes worth reading but for the number operand and its side, as "name=value".
std::vector<std::string> attribute_texts(const Attributes& attributes) {
  const bool has_number = number_operand(attributes) >= 0;
  std::vector<std::string> texts;
  for (const Attribute& attribute : attributes) {
    if (has_number && (attribute.name == "scalar" || attribute.name == "reversed")) continue;
    std::string text = tenon::detail::concat(attribute.name, "=", value_text(attribute));
    if (!is_usual(text)) texts.push_back(std::move(text));
  }
  return texts;
}

}  // namespace

namespace detail {

std::string number_text(double value) {
  std::ostringstream out;
  out.precision(9);
  out << value;
  return out.str();
}

std::string spec_text(const TensorSpec& spec) { return tenon::detail::concat(spec); }

std::string escape_xml(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

NodeWords node_words(const Graph& graph, const Node& node) {
  NodeWords words;
  const Attributes attributes = node.op->attributes();
  words.title = std::string(node.op->name());
  const std::ptrdiff_t number = number_operand(attributes);
  if (number >= 0) words.title += tenon::detail::concat(" ", value_text(attributes[number]));
  if (!node.replaced.empty()) {
    words.lines.push_back(join(node.replaced, " \u2192 "));
  } else {
    const std::string texts = join(attribute_texts(attributes), ", ");
    if (!texts.empty()) words.lines.push_back(texts);
  }
  for (const ValueId id : node.inputs) {
    const Value& value = graph.value(id);
    if (value.kind == ValueKind::Parameter || value.kind == ValueKind::Constant) {
      words.lines.push_back(tenon::detail::concat(value.name, " ", value.spec.shape));
    }
  }
  return words;
}

}  // namespace detail

std::string call_text(const Graph& graph, const Node& node) {
  const Attributes attributes = node.op->attributes();
  std::vector<std::string> parts;
  for (const ValueId id : node.inputs) parts.push_back(value_label(graph, id));
  const std::ptrdiff_t number = number_operand(attributes);
  if (number >= 0) {
    const bool reversed = std::any_of(attributes.begin(), attributes.end(), [](const Attribute& a) {
      return a.name == "reversed" && is_true(a);
    });
    parts.insert(reversed ? parts.begin() : parts.end(), value_text(attributes[number]));
  }
  for (std::string& text : attribute_texts(attributes)) parts.push_back(std::move(text));
  return std::string(node.op->name()) + "(" + join(parts, ", ") + ")";
}

std::string to_text(const Graph& graph) {
  std::ostringstream out;
  std::vector<std::string> inputs;
  for (const ValueId id : graph.inputs()) {
    inputs.push_back(value_label(graph, id) + ": " + detail::spec_text(graph.value(id).spec));
  }
  out << "graph(" << join(inputs, ", ") << ") {\n";
  for (const ValueId id : graph.captured()) {
    const Value& value = graph.value(id);
    out << "  %" << value.name << ": "
        << (value.kind == ValueKind::Parameter ? "parameter " : "constant ") << value.spec << "\n";
  }
  constexpr std::size_t kWidestColumn = 72;  // longer lines stick out instead of moving the column
  std::vector<std::string> lines;
  std::size_t column = 0;
  for (const Node& node : graph.nodes()) {
    std::vector<std::string> results;
    for (const ValueId id : node.outputs) results.push_back(value_label(graph, id));
    lines.push_back(tenon::detail::concat("  ", join(results, ", "), " = ",
                                          node.no_grad ? "no_grad " : "", call_text(graph, node)));
    if (lines.back().size() <= kWidestColumn) column = std::max(column, lines.back().size());
  }
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::vector<std::string> specs;
    for (const ValueId id : graph.nodes()[i].outputs) {
      specs.push_back(detail::spec_text(graph.value(id).spec));
    }
    lines[i].resize(std::max(lines[i].size(), column), ' ');
    out << lines[i] << "  : " << join(specs, ", ") << "\n";
  }
  std::vector<std::string> outputs;
  for (const ValueId id : graph.outputs()) outputs.push_back(value_label(graph, id));
  out << "  return " << join(outputs, ", ") << "\n}\n";
  return out.str();
}

std::ostream& operator<<(std::ostream& out, const Graph& graph) { return out << to_text(graph); }

}  // namespace tenon::graph
