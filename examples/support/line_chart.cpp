#include "tenon/examples/support/line_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace examples {
namespace {

constexpr double kWidth = 860;
constexpr double kHeight = 480;
constexpr double kLeft = 84;
constexpr double kRight = 24;
constexpr double kTop = 52;
constexpr double kBottom = 62;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

bool drawable(double y) { return std::isfinite(y) && y > 0; }

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

/// Where values of the data lie on the paper.
struct Axes {
  Range x;
  Range y;

  explicit Axes(const std::vector<Series>& series) {
    for (const Series& line : series) {
      for (std::size_t i = 0; i < line.x.size(); ++i) {
        if (!drawable(line.y[i])) continue;
        x.include(line.x[i]);
        y.include(line.y[i]);
      }
    }
    if (!(x.low < x.high)) x = {0, std::isfinite(x.high) ? std::max(x.high, 1.0) : 1.0};
    if (!(y.low <= y.high)) y = {0.1, 1};
    // Room above and below, so that no line runs along the frame.
    const double margin = std::max(std::pow(y.high / y.low, 0.06), 1.05);
    y.low /= margin;
    y.high *= margin;
  }

  double across(double value) const {
    return kLeft + (value - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight);
  }
  double down(double value) const {
    const double share = std::log(value / y.low) / std::log(y.high / y.low);
    return kHeight - kBottom - share * (kHeight - kTop - kBottom);
  }
};

void draw_frame(std::ostream& out, const Axes& axes, const ChartText& text) {
  const double bottom = kHeight - kBottom;
  const double right = kWidth - kRight;
  out << "<g stroke=\"#e2e2e2\">\n";
  for (const double tick : logarithmic_ticks(axes.y.low, axes.y.high)) {
    out << "<path d=\"M" << kLeft << ' ' << axes.down(tick) << "H" << right << "\"/>\n";
  }
  for (const double tick : linear_ticks(axes.x.low, axes.x.high, 8)) {
    out << "<path d=\"M" << axes.across(tick) << ' ' << kTop << "V" << bottom << "\"/>\n";
  }
  out << "</g>\n<path d=\"M" << kLeft << ' ' << kTop << "V" << bottom << "H" << right
      << "\" fill=\"none\" stroke=\"#333\"/>\n<g text-anchor=\"end\" font-size=\"13\">\n";
  for (const double tick : logarithmic_ticks(axes.y.low, axes.y.high)) {
    out << "<text x=\"" << kLeft - 8 << "\" y=\"" << axes.down(tick) + 4 << "\">" << tick
        << "</text>\n";
  }
  out << "</g>\n<g text-anchor=\"middle\" font-size=\"13\">\n";
  for (const double tick : linear_ticks(axes.x.low, axes.x.high, 8)) {
    out << "<text x=\"" << axes.across(tick) << "\" y=\"" << bottom + 20 << "\">" << tick
        << "</text>\n";
  }
  const double middle_x = (kLeft + right) / 2;
  const double middle_y = (kTop + bottom) / 2;
  out << "<text x=\"" << middle_x << "\" y=\"" << kHeight - 16 << "\">" << escaped(text.x_label)
      << "</text>\n<text transform=\"translate(22 " << middle_y << ") rotate(-90)\">"
      << escaped(text.y_label) << "</text>\n<text x=\"" << middle_x
      << "\" y=\"28\" font-size=\"17\" font-weight=\"bold\">" << escaped(text.title)
      << "</text>\n</g>\n";
}

void draw_line(std::ostream& out, const Axes& axes, const Series& line) {
  out << "<path fill=\"none\" stroke-width=\"2\" stroke-linejoin=\"round\" stroke=\"" << line.colour
      << '"' << (line.dashed ? " stroke-dasharray=\"7 5\"" : "") << " d=\"";
  bool pen_down = false;
  for (std::size_t i = 0; i < line.x.size(); ++i) {
    if (drawable(line.y[i])) {
      out << (pen_down ? 'L' : 'M') << axes.across(line.x[i]) << ' ' << axes.down(line.y[i]);
    }
    pen_down = drawable(line.y[i]);
  }
  out << "\"/>\n";
  if (!line.markers) return;
  for (std::size_t i = 0; i < line.x.size(); ++i) {
    if (!drawable(line.y[i])) continue;
    out << "<circle r=\"4\" cx=\"" << axes.across(line.x[i]) << "\" cy=\"" << axes.down(line.y[i])
        << "\" fill=\"" << line.colour << "\"/>\n";
  }
}

/// In the upper right corner, where falling curves leave room.
void draw_legend(std::ostream& out, const std::vector<Series>& series) {
  std::size_t longest = 0;
  for (const Series& line : series) longest = std::max(longest, line.name.size());
  const double width = 60 + 7.4 * static_cast<double>(longest);
  const double left = kWidth - kRight - width - 12;
  const double height = 12 + 22 * static_cast<double>(series.size());
  out << "<rect x=\"" << left << "\" y=\"" << kTop + 8 << "\" width=\"" << width << "\" height=\""
      << height << "\" rx=\"4\" fill=\"#fff\" stroke=\"#ccc\"/>\n<g font-size=\"13\">\n";
  double y = kTop + 26;
  for (const Series& line : series) {
    out << "<path stroke-width=\"2\" stroke=\"" << line.colour << '"'
        << (line.dashed ? " stroke-dasharray=\"7 5\"" : "") << " d=\"M" << left + 10 << ' ' << y
        << "h30\"/>\n";
    if (line.markers) {
      out << "<circle r=\"4\" cx=\"" << left + 25 << "\" cy=\"" << y << "\" fill=\"" << line.colour
          << "\"/>\n";
    }
    out << "<text x=\"" << left + 48 << "\" y=\"" << y + 4 << "\">" << escaped(line.name)
        << "</text>\n";
    y += 22;
  }
  out << "</g>\n";
}

}  // namespace

std::vector<double> linear_ticks(double low, double high, int count) {
  const double rough = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  const double lead = rough / power;
  const double step = power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
  std::vector<double> ticks;
  const double last = std::floor(high / step + 1e-9);
  for (double i = std::ceil(low / step - 1e-9); i <= last; ++i) ticks.push_back(i * step + 0.0);
  return ticks;
}

std::vector<double> logarithmic_ticks(double low, double high) {
  std::vector<double> ticks;
  for (double power = std::floor(std::log10(low)); power <= std::log10(high); ++power) {
    for (const double lead : {1.0, 2.0, 5.0}) {
      const double tick = lead * std::pow(10.0, power);
      if (tick >= low && tick <= high) ticks.push_back(tick);
    }
  }
  return ticks;
}

std::string line_chart(const ChartText& text, const std::vector<Series>& series) {
  const Axes axes(series);
  std::ostringstream out;
  out << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" << kWidth << "\" height=\"" << kHeight
      << "\" viewBox=\"0 0 " << kWidth << ' ' << kHeight
      << "\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" fill=\"#222\">\n"
      << "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
  draw_frame(out, axes, text);
  for (const Series& line : series) draw_line(out, axes, line);
  draw_legend(out, series);
  out << "</svg>\n";
  return out.str();
}

}  // namespace examples
