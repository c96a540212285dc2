#include "tenon/graph/passes.h"

#include <algorithm>
#include <set>

#include "tenon/core/autograd.h"
#include "tenon/graph/pattern_nodes.h"
#include "tenon/graph/print_parts.h"
#include "tenon/graph/trace.h"

namespace tenon::graph {
namespace {

using tenon::detail::concat;

/// Bytes read and written by running a node, counting each tensor once a node.
std::int64_t traffic(const Graph& graph, const Node& node) {
  const std::set<ValueId> inputs(node.inputs.begin(), node.inputs.end());
  std::int64_t bytes = 0;
  for (const ValueId id : inputs) bytes += spec_bytes(graph.value(id).spec);
  for (const ValueId id : node.outputs) bytes += spec_bytes(graph.value(id).spec);
  return bytes;
}

/// The values that a node keeps for its backward when all gradients are wanted.
std::set<ValueId> kept(const Node& node) {
  if (node.no_grad || !node.op->differentiable()) return {};
  IndexMask all = 0;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) all |= index_bit(i);
  const Saved saved = node.op->saved(all);
  std::set<ValueId> values;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if ((saved.inputs & index_bit(i)) != 0) values.insert(node.inputs[i]);
  }
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if ((saved.outputs & index_bit(i)) != 0) values.insert(node.outputs[i]);
  }
  return values;
}

/// Traces `replacement` behind the graph and takes its nodes off again.
struct Replacement {
  std::vector<Node> nodes;
  ValueId result = 0;
  bool applies = false;
};

Replacement trace_replacement(Graph& graph, const Row& row, const Match& match) {
  const std::size_t first_new = graph.nodes().size();
  Replacement made;
  {
    Tracer tracer(graph);
    std::map<std::string, Tensor> tensors;
    for (const auto& [name, id] : match.values) tensors.emplace(name, tracer.tensor(id));
    const TraceGuard guard(tracer);
    const GradModeGuard gradients(!graph.nodes()[match.nodes.back()].no_grad);
    const Tensor result = row.replacement(Captured(match, std::move(tensors)));
    made.applies = result.defined();
    if (made.applies) made.result = tracer.value_of(result);
  }
  std::vector<Node>& nodes = graph.mutable_nodes();
  const auto first = nodes.begin() + static_cast<std::ptrdiff_t>(first_new);
  made.nodes.assign(std::make_move_iterator(first), std::make_move_iterator(nodes.end()));
  nodes.erase(first, nodes.end());
  return made;
}

/// Whether reading `replacement` where `root` was read would give the caller its own argument, or
/// one tensor twice, where it used to get a tensor of its own.
bool would_alias(const Graph& graph, ValueId root, ValueId replacement) {
  const auto is_output = [&](ValueId id) {
    return std::find(graph.outputs().begin(), graph.outputs().end(), id) != graph.outputs().end();
  };
  if (!is_output(root)) return false;
  return is_output(replacement) || graph.value(replacement).kind != ValueKind::Intermediate;
}

/// Whether `node`, which reads what `earlier` reads, may be dropped in its favour.
bool computes_the_same(const Graph& graph, const Node& earlier, const Node& node) {
  if (earlier.no_grad != node.no_grad || !same_op(*earlier.op, *node.op)) return false;
  for (std::size_t i = 0; i < node.outputs.size(); ++i) {
    if (would_alias(graph, node.outputs[i], earlier.outputs[i])) return false;
  }
  return true;
}

/// Whether the matched nodes may all run where the last of them does: they are pure, and no impure
/// op in between may have changed what they read.
bool may_move(const Graph& graph, const Match& match) {
  std::set<ValueId> read;
  for (std::size_t at = match.nodes.front(); at <= match.nodes.back(); ++at) {
    const Node& node = graph.nodes()[at];
    if (std::binary_search(match.nodes.begin(), match.nodes.end(), at)) {
      if (!node.op->pure()) return false;
      read.insert(node.inputs.begin(), node.inputs.end());
    } else if (!node.op->pure() && std::any_of(node.inputs.begin(), node.inputs.end(),
                                               [&](ValueId id) { return read.contains(id); })) {
      return false;
    }
  }
  return true;
}

/// What would go if `match` were replaced: all of its traffic and of the inner values it keeps.
Rewrite describe_match(const Graph& graph, const Row& row, const Match& match) {
  Rewrite rewrite{row.name, match.root, {}, {}, 0, 0};
  std::set<ValueId> activations;
  for (const std::size_t at : match.nodes) {
    const Node& node = graph.nodes()[at];
    rewrite.replaced.insert(rewrite.replaced.end(), node.outputs.begin(), node.outputs.end());
    rewrite.steps.push_back(step_text(node));
    rewrite.traffic_saved += traffic(graph, node);
    activations.merge(kept(node));
  }
  for (const ValueId id : rewrite.replaced) {
    if (id != match.root && activations.contains(id)) {
      rewrite.activations_saved += spec_bytes(graph.value(id).spec);
    }
  }
  return rewrite;
}

/// Applies `row` at `root` if it matches there.
std::optional<Rewrite> apply_row(Graph& graph, const UseIndex& uses, const Row& row, ValueId root) {
  const std::optional<Match> match = graph::match(row.pattern, graph, uses, root);
  if (!match.has_value()) return std::nullopt;
  const std::size_t position = uses.producer(root);
  if (!may_move(graph, *match)) return std::nullopt;
  Rewrite rewrite = describe_match(graph, row, *match);
  Replacement made = trace_replacement(graph, row, *match);
  if (!made.applies) return std::nullopt;
  TENON_CHECK(graph.value(made.result).spec == graph.value(root).spec, "graph: row \"", row.name,
              "\" replaces a ", graph.value(root).spec, " by a ", graph.value(made.result).spec);
  bool computes_result = false;
  for (Node& node : made.nodes) {
    rewrite.traffic_saved -= traffic(graph, node);
    const auto output = std::find(node.outputs.begin(), node.outputs.end(), made.result);
    if (output == node.outputs.end()) continue;
    computes_result = true;
    *output = root;
    if (row.fuses) node.replaced = rewrite.steps;
  }
  if (!computes_result) {
    if (would_alias(graph, root, made.result)) return std::nullopt;
    graph.replace_reads(root, made.result);
  }
  // The match's nodes go, the new ones stand where the root stood.
  std::vector<Node> nodes;
  for (std::size_t at = 0; at < graph.nodes().size(); ++at) {
    if (at == position) std::move(made.nodes.begin(), made.nodes.end(), std::back_inserter(nodes));
    if (std::binary_search(match->nodes.begin(), match->nodes.end(), at)) continue;
    nodes.push_back(std::move(graph.mutable_nodes()[at]));
  }
  graph.mutable_nodes() = std::move(nodes);
  return rewrite;
}

std::optional<Rewrite> apply_first(Graph& graph, const UseIndex& uses, const std::vector<Row>& rows,
                                   ValueId root) {
  for (const Row& row : rows) {
    if (std::optional<Rewrite> done = apply_row(graph, uses, row, root)) return done;
  }
  return std::nullopt;
}

/// One walk from the last node to the first.
std::vector<Rewrite> sweep(Graph& graph, const std::vector<Row>& rows) {
  std::vector<Rewrite> rewrites;
  UseIndex uses(graph);
  for (std::size_t position = graph.nodes().size(); position-- > 0;) {
    if (graph.nodes()[position].outputs.size() != 1) continue;
    const ValueId root = graph.nodes()[position].outputs[0];
    if (std::optional<Rewrite> done = apply_first(graph, uses, rows, root)) {
      rewrites.push_back(std::move(*done));
      uses = UseIndex(graph);
      position = std::min(position, graph.nodes().size());
    }
  }
  return rewrites;
}

}  // namespace

Tensor Captured::operator[](const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? Tensor() : found->second;
}

double Captured::scalar(const std::string& name, double absent) const {
  const auto found = match_.scalars.find(name);
  return found == match_.scalars.end() ? absent : found->second;
}

Pass table_pass(std::string name, std::vector<Row> rows) {
  const auto run = [name, rows = std::move(rows)](Graph& graph) {
    std::vector<Rewrite> all;
    // Every sweep that rewrites makes the graph smaller or more canonical; a table that does not
    // is a mistake that must not hang the user's program.
    const std::size_t limit = graph.nodes().size() + 10;
    for (std::size_t round = 0;; ++round) {
      TENON_CHECK(round < limit, "graph: the rows of pass \"", name, "\" undo one another");
      std::vector<Rewrite> rewrites = sweep(graph, rows);
      if (rewrites.empty()) return all;
      std::move(rewrites.begin(), rewrites.end(), std::back_inserter(all));
    }
  };
  return {name, run};
}

Pass dead_code() {
  const auto run = [](Graph& graph) {
    std::vector<bool> read(graph.value_count(), false);
    for (const ValueId id : graph.outputs()) read[id] = true;
    std::vector<Node> alive;
    for (std::size_t position = graph.nodes().size(); position-- > 0;) {
      Node& node = graph.mutable_nodes()[position];
      const bool wanted = std::any_of(node.outputs.begin(), node.outputs.end(),
                                      [&](ValueId id) { return read[id]; });
      if (!wanted && node.op->pure()) continue;
      for (const ValueId id : node.inputs) read[id] = true;
      alive.push_back(std::move(node));
    }
    std::reverse(alive.begin(), alive.end());
    graph.mutable_nodes() = std::move(alive);
    return std::vector<Rewrite>();
  };
  return {"dead code", run};
}

Pass common_subexpressions() {
  const auto run = [](Graph& graph) {
    std::vector<Node> unique;
    // What a node reads: its inputs, and how often each was seen by an op that may have changed it.
    using Reads = std::vector<std::pair<ValueId, std::size_t>>;
    std::multimap<Reads, std::size_t> by_reads;
    std::vector<std::size_t> changes(graph.value_count(), 0);
    for (std::size_t position = 0; position < graph.nodes().size(); ++position) {
      const Node node = graph.nodes()[position];
      if (!node.op->pure()) {
        for (const ValueId id : node.inputs) ++changes[id];
        unique.push_back(node);
        continue;
      }
      Reads reads;
      for (const ValueId id : node.inputs) reads.emplace_back(id, changes[id]);
      const auto same = [&](const auto& entry) {
        return computes_the_same(graph, unique[entry.second], node);
      };
      const auto [first, last] = by_reads.equal_range(reads);
      const auto found = std::find_if(first, last, same);
      if (found == last) {
        by_reads.emplace(std::move(reads), unique.size());
        unique.push_back(node);
        continue;
      }
      for (std::size_t i = 0; i < node.outputs.size(); ++i) {
        graph.replace_reads(node.outputs[i], unique[found->second].outputs[i]);
      }
    }
    graph.mutable_nodes() = std::move(unique);
    return std::vector<Rewrite>();
  };
  return {"common subexpressions", run};
}

std::vector<Pass> default_passes(bool fuse, bool gradients) {
  std::vector<Pass> passes = {dead_code(), table_pass("canonicalise", canonical_rows()),
                              common_subexpressions(), dead_code()};
  if (fuse) {
    passes.push_back(table_pass("fuse", fusion_rows(gradients)));
    passes.push_back(dead_code());
  }
  return passes;
}

std::vector<Snapshot> run_passes(const Graph& graph, std::span<const Pass> passes) {
  std::vector<Snapshot> snapshots = {{"trace", graph, {}}};
  for (const Pass& pass : passes) {
    Graph next = snapshots.back().graph;
    std::vector<Rewrite> rewrites = pass.run(next);
    next.verify();
    snapshots.push_back({pass.name, std::move(next), std::move(rewrites)});
  }
  return snapshots;
}

std::string step_text(const Node& node) {
  std::string text(node.op->name());
  if (const std::optional<NumberOperand> number = number_operand(*node.op)) {
    text = number->on_left ? concat(number->value, " ", text) : concat(text, " ", number->value);
  }
  const std::optional<double> min = detail::number_attribute(*node.op, "min");
  const std::optional<double> max = detail::number_attribute(*node.op, "max");
  if (min.has_value() || max.has_value()) {
    text += concat(" [", min ? detail::number_text(*min) : "-inf", ", ",
                   max ? detail::number_text(*max) : "inf", "]");
  }
  return text;
}

}  // namespace tenon::graph
