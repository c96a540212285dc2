// Why each block fused or did not, for people to read.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tenon/graph/passes.h"

namespace tenon::graph {

/// What became of one transposed convolution.
struct BlockDecision {
  ValueId convolution = 0;  ///< its result in the graph before fusion
  std::string weight;       ///< its weight: "up1.weight", or "%3" when it is no parameter
  bool fused = false;
  std::string row;                 ///< of the table that fused it
  std::string op;                  ///< the node it became
  std::string kernel;              ///< what that node runs: "cpu fused kernel"
  ValueId result = 0;              ///< what that node computes
  std::vector<std::string> steps;  ///< what that node does: "conv_transpose2d", "mish", …
  /// Not fused: why. Fused: why the block ends where it does, when the next op looked like a step.
  std::string reason;
  std::int64_t traffic_saved = 0;
  std::int64_t activations_saved = 0;
};

/// What became of each transposed convolution of `before`, given the rewrites that fused some of
/// them and the graph `after`, made for runs with or without gradients.
std::vector<BlockDecision> decide_blocks(const Graph& before, std::span<const Rewrite> rewrites,
                                         const Graph& after, bool gradients = true);

/// The decisions of one compilation in a few lines, under a heading that says what it was for.
std::string report_text(const std::string& heading, std::size_t ops_before, std::size_t ops_after,
                        std::span<const BlockDecision> decisions);

/// "1.53 MB"
std::string bytes_text(std::int64_t bytes);

}  // namespace tenon::graph
