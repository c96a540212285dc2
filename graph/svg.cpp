#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <utility>

#include "tenon/graph/layout.h"
#include "tenon/graph/print.h"
#include "tenon/graph/print_parts.h"

namespace tenon::graph {
namespace {

constexpr double kMargin = 24;
constexpr double kLabelLetter = 5.4;
constexpr double kLineHeight = 15;
constexpr double kTitleLetter = 8.0;  // widths of one letter; the monospaced one is exact
constexpr double kLineLetter = 6.65;
constexpr std::size_t kWrap = 46;

/// How a box is drawn.
struct Look {
  const char* fill;
  const char* stroke;
  double stroke_width;
};
constexpr Look kPlain{"#f5f6f8", "#98a2b3", 1};
constexpr Look kTinted{"#fff4e6", "#f08c00", 1.5};
constexpr Look kFused{"#ffd8a8", "#e8590c", 2.5};
constexpr Look kInput{"#e3f0ff", "#4c8bf5", 1.2};
constexpr Look kOutput{"#e6f6ea", "#37a05c", 1.2};

struct Drawn {
  detail::NodeWords words;
  Look look;
  bool pill = false;
};

/// Breaks `line` at spaces so that no piece is longer than kWrap where that can be.
void wrap(const std::string& line, std::vector<std::string>& lines) {
  std::string piece;
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (!piece.empty() && piece.size() + 1 + word.size() > kWrap) {
      lines.push_back(piece);
      piece.clear();
    }
    piece += (piece.empty() ? "" : " ") + word;
  }
  if (!piece.empty()) lines.push_back(piece);
}

/// Letters in UTF-8 text.
double letters(const std::string& text) {
  return static_cast<double>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string number(double value) {
  std::ostringstream out;
  out << std::round(value * 10) / 10;
  return out.str();
}

/// Collects the boxes and links of a graph, then writes them where the layout put them.
class SvgWriter {
 public:
  SvgWriter(const Graph& graph, const DrawOptions& options) : graph_(graph), options_(options) {
    source_.assign(graph.value_count(), kNone);
    for (const ValueId id : graph.inputs()) add_source(id);
    for (const Node& node : graph.nodes()) add_node(node);
    for (const ValueId id : graph.outputs()) {
      if (source_[id] == kNone) add_source(id);
    }
    for (const ValueId id : graph.outputs()) {
      const std::size_t box = add_box({{"return", {}}, kOutput, true});
      add_link(id, box);
    }
    layout_ = detail::place(boxes_, links_);
  }

  double width() const {
    double right = std::max(layout_.width, letters(options_.title) * 9);
    for (std::size_t i = 0; i < labels_.size(); ++i) {
      const double end = label_place(i).first + letters(labels_[i]) * kLabelLetter;
      right = std::max(right, end);
    }
    return right + 2 * kMargin;
  }
  double height() const { return layout_.height + 2 * kMargin + title_height(); }

  /// The graph's elements, moved to the right by `left`.
  std::string write(double left) {
    if (!options_.title.empty()) {
      out_ << "<text x=\"" << number(left + kMargin) << "\" y=\"" << kMargin + 10
           << "\" font-size=\"16\" font-weight=\"bold\" fill=\"#1d2939\">"
           << detail::escape_xml(options_.title) << "</text>\n";
    }
    out_ << "<g transform=\"translate(" << number(left + kMargin) << ' '
         << number(kMargin + title_height()) << ")\">\n";
    for (const detail::Link& link : layout_.links) write_link(link);
    for (std::size_t i = 0; i < drawn_.size(); ++i) write_box(i);
    for (std::size_t i = 0; i < labels_.size(); ++i) write_label(i);
    out_ << "</g>\n";
    return out_.str();
  }

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  double title_height() const { return options_.title.empty() ? 0 : 30; }

  std::size_t add_box(Drawn drawn) {
    double width = letters(drawn.words.title) * kTitleLetter;
    for (const std::string& line : drawn.words.lines) {
      width = std::max(width, letters(line) * kLineLetter);
    }
    detail::Box box;
    box.width = std::max(width + 24, 64.0);
    box.height = 26 + kLineHeight * static_cast<double>(drawn.words.lines.size());
    boxes_.push_back(box);
    drawn_.push_back(std::move(drawn));
    return boxes_.size() - 1;
  }

  void add_source(ValueId id) {
    source_[id] = add_box({{graph_.value(id).name, {}}, kInput, true});
  }

  void add_node(const Node& node) {
    const detail::NodeWords words = detail::node_words(graph_, node);
    Drawn drawn{{words.title, {}}, kPlain};
    for (const std::string& line : words.lines) wrap(line, drawn.words.lines);
    for (const ValueId id : node.outputs) {
      if (options_.highlight.contains(id)) drawn.look = kTinted;
    }
    if (!node.replaced.empty()) drawn.look = kFused;
    const std::size_t box = add_box(std::move(drawn));
    for (const ValueId id : node.inputs) add_link(id, box);
    for (const ValueId id : node.outputs) source_[id] = box;
  }

  /// Parameters are written inside their readers and have no box of their own to come from.
  void add_link(ValueId id, std::size_t to) {
    if (source_[id] == kNone) return;
    links_.push_back({source_[id], to});
    labels_.push_back(graph_.value(id).spec.shape.to_string());
    boxes_[source_[id]].label = 8 + letters(labels_.back()) * kLabelLetter;
  }

  void write_link(const detail::Link& link) {
    const detail::Box& from = layout_.boxes[link.from];
    const detail::Box& to = layout_.boxes[link.to];
    double x = from.x;
    double y = from.y + from.height;
    std::ostringstream path;
    path << 'M' << number(x) << ',' << number(y);
    const auto curve = [&](double next_x, double next_y) {
      const double middle = (y + next_y) / 2;
      path << " C" << number(x) << ',' << number(middle) << ' ' << number(next_x) << ','
           << number(middle) << ' ' << number(next_x) << ',' << number(next_y);
      x = next_x;
      y = next_y;
    };
    for (const std::size_t bend : link.bends) {
      curve(layout_.boxes[bend].x, layout_.boxes[bend].y);
    }
    curve(to.x, to.y - 1);
    out_ << "<path d=\"" << path.str()
         << "\" fill=\"none\" stroke=\"#667085\" stroke-width=\"1.3\" "
            "marker-end=\"url(#arrow)\"/>\n";
  }

  /// Where the shape of link `i` is written: beside an edge that runs straight down, beside the
  /// box where the edges fork.
  std::pair<double, double> label_place(std::size_t i) const {
    const std::size_t source = layout_.links[i].from;
    const detail::Box& from = layout_.boxes[source];
    const auto runs_straight = [&](const detail::Link& link) {
      const std::size_t next = link.bends.empty() ? link.to : link.bends.front();
      return link.from != source || std::abs(layout_.boxes[next].x - from.x) < 2;
    };
    if (std::all_of(layout_.links.begin(), layout_.links.end(), runs_straight)) {
      return {from.x + 8, from.y + from.height + 14};
    }
    return {from.x + from.width / 2 + 8, from.y + from.height - 9};
  }

  void write_label(std::size_t i) {
    if (!labelled_.insert({layout_.links[i].from, labels_[i]}).second) return;
    const auto [x, y] = label_place(i);
    out_ << "<text x=\"" << number(x) << "\" y=\"" << number(y)
         << "\" font-size=\"10\" fill=\"#667085\">" << detail::escape_xml(labels_[i])
         << "</text>\n";
  }

  void write_box(std::size_t i) {
    const detail::Box& box = layout_.boxes[i];
    const Drawn& drawn = drawn_[i];
    out_ << "<rect x=\"" << number(box.x - box.width / 2) << "\" y=\"" << number(box.y)
         << "\" width=\"" << number(box.width) << "\" height=\"" << number(box.height) << "\" rx=\""
         << (drawn.pill ? number(box.height / 2) : "6") << "\" fill=\"" << drawn.look.fill
         << "\" stroke=\"" << drawn.look.stroke << "\" stroke-width=\"" << drawn.look.stroke_width
         << "\"/>\n";
    double y = box.y + 17.5;
    out_ << "<text x=\"" << number(box.x) << "\" y=\"" << number(y)
         << "\" font-size=\"13\" font-weight=\"bold\" text-anchor=\"middle\" fill=\"#1d2939\">"
         << detail::escape_xml(drawn.words.title) << "</text>\n";
    for (const std::string& line : drawn.words.lines) {
      y += kLineHeight;
      out_ << "<text x=\"" << number(box.x) << "\" y=\"" << number(y)
           << "\" font-size=\"11\" text-anchor=\"middle\" fill=\"#475467\" "
              "font-family=\"'DejaVu Sans Mono', Menlo, Consolas, monospace\">"
           << detail::escape_xml(line) << "</text>\n";
    }
  }

  const Graph& graph_;
  const DrawOptions& options_;
  std::vector<detail::Box> boxes_;
  std::vector<detail::Link> links_;
  std::vector<std::string> labels_;
  std::set<std::pair<std::size_t, std::string>> labelled_;  // a value's shape is written once
  std::vector<Drawn> drawn_;
  std::vector<std::size_t> source_;  // the box that a value leaves from
  detail::Layout layout_;
  std::ostringstream out_;
};

}  // namespace

std::string to_svg(const Graph& graph, const DrawOptions& options) {
  const Picture picture{graph, options};
  return to_svg(std::span<const Picture>(&picture, 1));
}

std::string to_svg(std::span<const Picture> pictures) {
  std::ostringstream body;
  double width = 0;
  double height = 0;
  for (const Picture& picture : pictures) {
    SvgWriter writer(picture.graph, picture.options);
    body << writer.write(width);
    width += writer.width();
    height = std::max(height, writer.height());
  }
  std::ostringstream out;
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" << number(width) << "\" height=\""
      << number(height) << "\" viewBox=\"0 0 " << number(width) << ' ' << number(height)
      << "\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n"
      << "<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" "
         "markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">"
         "<path d=\"M0,0.5 L8,4 L0,7.5 Z\" fill=\"#667085\"/></marker></defs>\n"
      << "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
      << body.str() << "</svg>\n";
  return out.str();
}

}  // namespace tenon::graph
