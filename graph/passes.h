// Passes: named tables of (pattern, replacement), and the few rewrites that are not local.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tenon/graph/pattern.h"
#include "tenon/ops/conv.h"

namespace tenon::graph {

/// What a replacement may use: the tensors and numbers that its pattern bound.
class Captured {
 public:
  Captured(const Match& match, std::map<std::string, Tensor> tensors)
      : match_(match), tensors_(std::move(tensors)) {}

  /// The tensor bound as `name`; undefined when the operand was missing.
  Tensor operator[](const std::string& name) const;
  /// The number bound as `name`, `absent` when its step was.
  double scalar(const std::string& name, double absent) const;
  bool has_scalar(const std::string& name) const { return match_.scalars.contains(name); }
  /// Whether an op of that name was matched.
  bool has(const std::string& op_name) const { return match_.ops.contains(op_name); }
  /// The op of that name that was matched.
  template <class OpType>
  const OpType& op(const std::string& op_name) const {
    return dynamic_cast<const OpType&>(*match_.ops.at(op_name));
  }

 private:
  const Match& match_;
  std::map<std::string, Tensor> tensors_;
};

/// One rewrite: where `pattern` matches, what `replacement` calls takes its place. The replacement
/// is written with ops, like a model; an undefined result means that it does not apply after all.
struct Row {
  std::string name;
  Pattern pattern;
  std::function<Tensor(const Captured&)> replacement;
  /// Marks the new node as standing for those that it replaces, for reports and pictures.
  bool fuses = false;
};

/// What one application of a row did.
struct Rewrite {
  std::string row;
  ValueId result = 0;                  ///< keeps its number
  std::vector<ValueId> replaced;       ///< outputs of the nodes that are gone, in their order
  std::vector<std::string> steps;      ///< those nodes in words: "mish", "add 0.5"
  std::int64_t traffic_saved = 0;      ///< bytes that need no longer be read or written, forward
  std::int64_t activations_saved = 0;  ///< bytes that need no longer be kept for the backward
};

/// A named rewrite of the whole graph.
struct Pass {
  std::string name;
  std::function<std::vector<Rewrite>(Graph&)> run;
};

/// Applies `rows` until none matches, to the last nodes first, so that the longest of overlapping
/// matches wins. Of several rows the first that matches is taken.
Pass table_pass(std::string name, std::vector<Row> rows);
/// Removes nodes whose outputs nobody reads, unless they are impure.
Pass dead_code();
/// Computes equal pure ops of equal operands once.
Pass common_subexpressions();

/// Constants to the right, chains of numbers folded, steps that change nothing removed: what keeps
/// the number of patterns small. Only rewrites after which no element differs but by rounding, also
/// for NaN, infinities and -0.
std::vector<Row> canonical_rows();
/// The fused blocks. With `gradients`, blocks that record their history stay as they are where
/// `why_training_would_lose` has a reason.
std::vector<Row> fusion_rows(bool gradients = true);
/// Why a training step through a fused block with this convolution would take longer than through
/// its steps; empty when it would not.
std::string why_training_would_lose(const TensorSpec& x, const TensorSpec& weight,
                                    const ops::ConvTranspose2dOptions& options);
/// The pattern of the fused block: a transposed convolution, then mish, a number added, limits, a
/// scale, each of which may be absent.
Pattern epilogue_block();

/// Canonicalisation, and fusion when asked for, for runs with or without gradients.
std::vector<Pass> default_passes(bool fuse = true, bool gradients = true);

/// A graph and the pass that made it.
struct Snapshot {
  std::string pass;
  Graph graph;
  std::vector<Rewrite> rewrites;
};

/// Runs the passes in order and keeps the graph after each; the first snapshot is the graph as it
/// was ("trace"). Every graph is verified.
std::vector<Snapshot> run_passes(const Graph& graph, std::span<const Pass> passes);

/// A node as a step of a fused block: "conv_transpose2d", "add 0.5", "hardtanh [-1, 1]".
std::string step_text(const Node& node);

}  // namespace tenon::graph
