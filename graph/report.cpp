#include "tenon/graph/report.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>

#include "tenon/graph/pattern_nodes.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"

namespace tenon::graph {
namespace {

using tenon::detail::concat;

/// Why the block that ends with `end` does not go on, or never began.
/// `not_worth_it` is the reason for leaving a block that matches as it is.
std::string why_no_further(const Graph& graph, const UseIndex& uses, ValueId end, bool fused,
                           const std::string& not_worth_it) {
  const Pattern pattern = epilogue_block();
  std::vector<std::string> other_readers;
  for (const std::size_t position : uses.readers(end)) {
    const Node& reader = graph.nodes()[position];
    Explanation why;
    if (reader.outputs.size() == 1) {
      const bool matches = match(pattern, graph, uses, reader.outputs[0], &why).has_value();
      if (!matches && why.came_past_root()) return why.reason();
      if (matches && !not_worth_it.empty()) return not_worth_it;
    }
    const DType dtype = graph.value(reader.outputs[0]).spec.dtype;
    if (reader.op->name() == "copy" && dtype != graph.value(end).spec.dtype) {
      return concat(node_label(graph, reader), " converts to ", dtype);
    }
    other_readers.push_back(node_label(graph, reader));
  }
  if (fused) return "";
  if (other_readers.empty()) return "nothing reads it but the caller";
  std::string readers;
  for (const std::string& reader : other_readers) readers += (readers.empty() ? "" : ", ") + reader;
  return concat("what reads it is no step of the block: ", readers);
}

std::string kernel_of(const Node& node, const Graph& graph) {
  const TensorSpec& result = graph.value(node.outputs[0]).spec;
  if (const auto* block = dynamic_cast<const ops::ConvTranspose2dEpilogueOp*>(node.op.get())) {
    return block->kernel(graph.value(node.inputs[0]).spec, graph.value(node.inputs[1]).spec,
                         result);
  }
  return result.device.is_cpu() ? "cpu kernel" : "cuda kernel";
}

std::string joined(const std::vector<std::string>& steps) {
  std::string text;
  for (const std::string& step : steps) text += (text.empty() ? "" : " \u2192 ") + step;
  return text;
}

/// "up1" for "up1.weight".
std::string layer_name(const std::string& weight) {
  const std::string suffix = ".weight";
  const bool ends = weight.size() > suffix.size() &&
                    weight.compare(weight.size() - suffix.size(), suffix.size(), suffix) == 0;
  return ends ? weight.substr(0, weight.size() - suffix.size()) : weight;
}

}  // namespace

std::string bytes_text(std::int64_t bytes) {
  constexpr std::array<const char*, 4> kUnits{"B", "kB", "MB", "GB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.3g %s", value, kUnits[unit]);
  return text.data();
}

std::vector<BlockDecision> decide_blocks(const Graph& before, std::span<const Rewrite> rewrites,
                                         const Graph& after, bool gradients) {
  const UseIndex uses(before);
  const UseIndex uses_after(after);
  std::vector<BlockDecision> decisions;
  for (const Node& node : before.nodes()) {
    if (node.op->name() != "conv_transpose2d") continue;
    BlockDecision decision;
    decision.convolution = node.outputs[0];
    const Value& weight = before.value(node.inputs[1]);
    decision.weight =
        weight.kind == ValueKind::Parameter ? weight.name : value_label(before, node.inputs[1]);
    ValueId end = decision.convolution;
    for (const Rewrite& rewrite : rewrites) {
      const std::vector<ValueId>& gone = rewrite.replaced;
      if (std::find(gone.begin(), gone.end(), decision.convolution) == gone.end()) continue;
      end = rewrite.result;
      decision.fused = true;
      decision.row = rewrite.row;
      decision.result = rewrite.result;
      decision.steps = rewrite.steps;
      decision.traffic_saved = rewrite.traffic_saved;
      decision.activations_saved = rewrite.activations_saved;
      const std::size_t position = uses_after.producer(rewrite.result);
      if (position != UseIndex::kNone) {
        const Node& made = after.nodes()[position];
        decision.op = std::string(made.op->name());
        decision.kernel = kernel_of(made, after);
      }
    }
    std::string not_worth_it;
    if (gradients && !node.no_grad) {
      const auto& convolution = dynamic_cast<const ops::ConvTranspose2dOp&>(*node.op);
      not_worth_it = why_training_would_lose(before.value(node.inputs[0]).spec, weight.spec,
                                             convolution.options());
    }
    decision.reason = why_no_further(before, uses, end, decision.fused, not_worth_it);
    decisions.push_back(std::move(decision));
  }
  return decisions;
}

std::string report_text(const std::string& heading, std::size_t ops_before, std::size_t ops_after,
                        std::span<const BlockDecision> decisions) {
  std::int64_t traffic = 0;
  std::int64_t activations = 0;
  std::int64_t fused = 0;
  for (const BlockDecision& decision : decisions) {
    traffic += decision.traffic_saved;
    activations += decision.activations_saved;
    fused += decision.fused ? 1 : 0;
  }
  std::ostringstream out;
  out << heading << ": " << ops_before << " ops -> " << ops_after << ", ";
  if (decisions.empty()) {
    out << "no transposed convolution to fuse";
  } else {
    out << fused << " of " << decisions.size() << " blocks fused";
  }
  if (fused > 0) {
    out << "; a run moves " << bytes_text(traffic) << " less and keeps " << bytes_text(activations)
        << " less for the backward";
  }
  out << "\n";
  for (const BlockDecision& decision : decisions) {
    out << (decision.fused ? "  fused      " : "  not fused  ") << layer_name(decision.weight);
    if (decision.fused) {
      out << ": " << joined(decision.steps) << "\n             %" << decision.result << " = "
          << decision.op << ", " << decision.kernel << ": " << bytes_text(decision.traffic_saved)
          << " less traffic, " << bytes_text(decision.activations_saved) << " less kept\n";
      if (!decision.reason.empty()) out << "             ends there: " << decision.reason << "\n";
    } else {
      out << ": %" << decision.convolution << " = conv_transpose2d\n             because "
          << decision.reason << "\n";
    }
  }
  return out.str();
}

}  // namespace tenon::graph
