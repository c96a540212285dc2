// Line charts as SVG files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace examples {

/// Points joined by a line, in one colour.
struct Series {
  std::string name;  ///< for the legend
  std::vector<double> x;
  std::vector<double> y;
  std::string colour = "#1f6fb4";
  bool dashed = false;
  bool markers = false;  ///< a dot at each point
};

/// What stands around the lines.
struct ChartText {
  std::string title;
  std::string x_label;
  std::string y_label;
};

/// The chart as an SVG document: linear x axis, logarithmic y axis, ticks, grid and legend. Points
/// whose y is not positive and finite are left out.
std::string line_chart(const ChartText& text, const std::vector<Series>& series);

/// Positions of about `count` round numbers (1, 2 or 5 times a power of ten apart) in [low, high].
std::vector<double> linear_ticks(double low, double high, int count);
/// 1, 2 and 5 times the powers of ten in [low, high].
std::vector<double> logarithmic_ticks(double low, double high);

}  // namespace examples
