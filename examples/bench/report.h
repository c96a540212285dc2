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
  double flop = 0;
  std::vector<Row> rows;
};

/// What bounds a time from below.
struct Roofs {
  double copy = 0;  ///< bytes a second
  double flop = 0;  ///< operations a second; 0 where they bound nothing

  double milliseconds(std::int64_t bytes, double operations) const;
};

/// One problem as an aligned table, a line a row. "% of floor" is the time that the row's bytes and
/// operations take at the roofs, whichever is more, over the time it took.
void print_table(std::ostream& out, const Result& result, const Roofs& roofs);

/// Everything as one JSON object.
void print_json(std::ostream& out, const std::string& device, const Roofs& roofs,
                const std::vector<Result>& results);

}  // namespace bench
