// Tenon's own ways to compute the block.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "problem.h"
#include "timing.h"

namespace bench {

inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// One line of the result.
struct Row {
  std::string path;
  std::string configuration;  ///< which kernels ran, and how they were set up
  Timing timing;
  std::int64_t bytes = 0;        ///< the fewest that this row's work can move: its floor
  double flop = 0;               ///< 0 for a pointwise pass
  std::int64_t peak_bytes = -1;  ///< beyond the inputs; -1 when not measured
  /// ‖result − Tenon's‖ / ‖Tenon's‖ for a peer whose result was compared.
  double error = kUnknown;
  bool whole = true;  ///< false for a part of the block, such as a convolution alone
  bool peer = false;  ///< true where not Tenon's but cuDNN's ways are measured
};

/// What is done with a path.
enum class Purpose { Time, Profile, Turns };

/// Times `path`, calls it once for a profiler, or lets it take turns with another program: "auto"
/// is the five ops as `graph::compile` runs them, "fused" the fused op called directly, "unfused"
/// the five ops one after another.
Row run_path(const Problem& problem, const std::string& path, Purpose purpose);

}  // namespace bench
