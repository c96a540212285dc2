#include "report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <ostream>

namespace bench {
namespace {

using Line = std::vector<std::string>;

std::string number(double value, int digits) {
  if (!std::isfinite(value)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

double tera_flop(const Row& row) {
  return row.flop > 0 ? row.flop / (row.timing.milliseconds * 1e-3) / 1e12 : kUnknown;
}

Line line_of(const Row& row, const Roofs& roofs, double first_ms) {
  const double ms = row.timing.milliseconds;
  const double giga_bytes = static_cast<double>(row.bytes) / (ms * 1e-3) / 1e9;
  const bool on_device = row.timing.host_microseconds > 0;
  char error[32] = "-";
  if (std::isfinite(row.error)) std::snprintf(error, sizeof error, "%.1e", row.error);
  return {row.path,
          number(ms, ms < 10 ? 4 : 2),
          number(ms / first_ms, 3),
          number(roofs.milliseconds(row.bytes, row.flop), 4),
          number(100 * roofs.milliseconds(row.bytes, row.flop) / ms, 1),
          number(giga_bytes, giga_bytes < 100 ? 1 : 0),
          number(tera_flop(row), 2),
          on_device ? number(row.timing.host_microseconds, 1) : "-",
          row.peak_bytes >= 0 ? number(static_cast<double>(row.peak_bytes) / (1 << 20), 1) : "-",
          error,
          row.configuration};
}

/// The first and the last column to the left, numbers to the right.
void print_aligned(std::ostream& out, const std::vector<Line>& lines) {
  std::vector<std::size_t> widths(lines[0].size());
  for (const Line& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const Line& line : lines) {
    for (std::size_t i = 0; i < line.size(); ++i) {
      const std::string space(widths[i] - line[i].size(), ' ');
      if (i == 0) {
        out << line[i] << space;
      } else if (i + 1 == line.size()) {
        out << "  " << line[i];
      } else {
        out << "  " << space << line[i];
      }
    }
    out << '\n';
  }
}

nlohmann::json known(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

nlohmann::json json_of(const Row& row, const Roofs& roofs) {
  return {{"path", row.path},
          {"configuration", row.configuration},
          {"whole", row.whole},
          {"peer", row.peer},
          {"milliseconds", row.timing.milliseconds},
          {"host_microseconds", row.timing.host_microseconds},
          {"floor_bytes", row.bytes},
          {"floor_milliseconds", roofs.milliseconds(row.bytes, row.flop)},
          {"fraction_of_floor", roofs.milliseconds(row.bytes, row.flop) / row.timing.milliseconds},
          {"tflop_per_second", known(tera_flop(row))},
          {"peak_bytes", row.peak_bytes >= 0 ? nlohmann::json(row.peak_bytes) : nlohmann::json()},
          {"relative_error", known(row.error)}};
}

/// The first row over the best of the peers that compute the whole block.
void print_summary(std::ostream& out, const std::vector<Row>& rows) {
  const Row* best = nullptr;
  for (const Row& row : rows) {
    if (!row.peer || !row.whole || !std::isfinite(row.timing.milliseconds)) continue;
    if (best == nullptr || row.timing.milliseconds < best->timing.milliseconds) best = &row;
  }
  if (best == nullptr) return;
  out << rows[0].path << " takes "
      << number(rows[0].timing.milliseconds / best->timing.milliseconds, 3)
      << " of the expert's time (" << best->path << ")\n";
}

}  // namespace

double Roofs::milliseconds(std::int64_t bytes, double operations) const {
  const double by_bytes = static_cast<double>(bytes) / copy;
  return 1e3 * (flop > 0 ? std::max(by_bytes, operations / flop) : by_bytes);
}

void print_table(std::ostream& out, const Result& result, const Roofs& roofs) {
  out << result.shape.name;
  if (result.shape.name != result.shape.numbers()) out << " (" << result.shape.numbers() << ")";
  out << ", " << result.precision << ", " << (result.train ? "forward + backward" : "forward")
      << ": floor " << number(roofs.milliseconds(result.floor_bytes, result.flop), 4) << " ms, "
      << number(static_cast<double>(result.floor_bytes) / 1e6, 1) << " MB, " << result.input_sets
      << (result.input_sets == 1 ? " set" : " sets") << " of inputs\n";
  std::vector<Line> lines{{"path", "ms", "/ first", "floor ms", "% of floor", "GB/s", "TFLOP/s",
                           "host us", "peak MiB", "error", "configuration"}};
  for (const Row& row : result.rows) {
    lines.push_back(line_of(row, roofs, result.rows[0].timing.milliseconds));
  }
  print_aligned(out, lines);
  print_summary(out, result.rows);
}

void print_json(std::ostream& out, const std::string& device, const Roofs& roofs,
                const std::vector<Result>& results) {
  nlohmann::json all = nlohmann::json::array();
  for (const Result& result : results) {
    nlohmann::json rows = nlohmann::json::array();
    for (const Row& row : result.rows) rows.push_back(json_of(row, roofs));
    all.push_back({{"shape", result.shape.name},
                   {"numbers", result.shape.numbers()},
                   {"precision", result.precision},
                   {"mode", result.train ? "train" : "forward"},
                   {"input_sets", result.input_sets},
                   {"floor_bytes", result.floor_bytes},
                   {"floor_milliseconds", roofs.milliseconds(result.floor_bytes, result.flop)},
                   {"rows", rows}});
  }
  out << nlohmann::json{{"device", device},
                        {"copy_gigabytes_per_second", roofs.copy / 1e9},
                        {"gflop_per_second", known(roofs.flop > 0 ? roofs.flop / 1e9 : kUnknown)},
                        {"results", all}}
             .dump(1)
      << '\n';
}

}  // namespace bench
