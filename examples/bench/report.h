// What is printed.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "paths.h"

namespace bench {

/// All that was measured of one problem.
struct Result {
  BlockShape shape;
  std::string precision;
  bool train = false;
  std::size_t input_sets = 1;
  std::int64_t floor_bytes = 0;
  std::vector<Row> rows;
};

/// One problem as an aligned table, a line a row. `copy` is the copy bandwidth in bytes a second.
/// "% of floor" is the time that the row's bytes take at copy bandwidth over the time it took.
void print_table(std::ostream& out, const Result& result, double copy);

/// Everything as one JSON object.
void print_json(std::ostream& out, const std::string& device, double copy,
                const std::vector<Result>& results);

}  // namespace bench
