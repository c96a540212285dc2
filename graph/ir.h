// The graph: operations in the order in which they run, on numbered values.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tenon/core/op.h"

namespace tenon::graph {

/// A value's number in its graph. Numbers are never given twice, and a rewrite that replaces the
/// producer of a value keeps its number: `%9` before a pass is `%9` after it.
using ValueId = std::size_t;

/// Where a value comes from.
enum class ValueKind {
  Input,         ///< an argument of the traced function
  Parameter,     ///< a named tensor of the traced module, held by its live handle
  Constant,      ///< another tensor that the function used, likewise
  Intermediate,  ///< an output of a node
};

struct Value {
  ValueKind kind = ValueKind::Intermediate;
  std::string name;  ///< "x", "up1.weight"; an intermediate's is its number
  TensorSpec spec;
  Tensor tensor;  ///< of a parameter or constant
};

/// One call of an op.
struct Node {
  std::shared_ptr<const Op> op;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  /// For a fused node: the ops it stands for, in their order: "mish", "add 0.5".
  std::vector<std::string> replaced = {};
  /// Traced inside a NoGradGuard of the function: runs without history.
  bool no_grad = false;
};

/// A function of tensors as data. Value-typed: a copy shares the ops and the parameters' handles.
class Graph {
 public:
  ValueId add_input(std::string name, const TensorSpec& spec);
  ValueId add_parameter(std::string name, const Tensor& tensor);
  ValueId add_constant(std::string name, const Tensor& tensor);
  /// Appends a node; its outputs' specs are those that `op->infer` gives, which checks the inputs.
  /// The node has `no_grad` when gradients are switched off on this thread now.
  std::vector<ValueId> append(std::shared_ptr<const Op> op, std::span<const ValueId> inputs);
  void set_outputs(std::vector<ValueId> outputs) { outputs_ = std::move(outputs); }

  const Value& value(ValueId id) const;
  std::size_t value_count() const { return values_.size(); }
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<ValueId>& inputs() const { return inputs_; }
  const std::vector<ValueId>& outputs() const { return outputs_; }
  /// Parameters and constants that some node or the output list reads, in the order of capture.
  std::vector<ValueId> captured() const;

  /// For passes: nodes may be moved, changed and removed; call `verify` afterwards.
  std::vector<Node>& mutable_nodes() { return nodes_; }
  /// Makes every reader of `from`, and the output list, read `to`.
  void replace_reads(ValueId from, ValueId to);

  /// Throws `Error` naming the node when an operand is not computed before it is read, a value is
  /// computed twice, or a spec is not what the op infers.
  void verify() const;

 private:
  ValueId add_value(ValueKind kind, std::string name, const TensorSpec& spec, const Tensor& tensor);

  std::vector<Value> values_;
  std::vector<Node> nodes_;
  std::vector<ValueId> inputs_;
  std::vector<ValueId> outputs_;
};

/// Who computes and who reads each value; valid until the graph is changed.
class UseIndex {
 public:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  explicit UseIndex(const Graph& graph);
  /// Position in `graph.nodes()` of the node that computes `id`, or kNone.
  std::size_t producer(ValueId id) const { return producers_[id]; }
  /// Positions of the nodes that read `id`, each once, in order.
  const std::vector<std::size_t>& readers(ValueId id) const { return readers_[id]; }
  bool is_output(ValueId id) const { return is_output_[id]; }

 private:
  std::vector<std::size_t> producers_;
  std::vector<std::vector<std::size_t>> readers_;
  std::vector<bool> is_output_;
};

/// Bytes that a tensor of this spec takes.
std::int64_t spec_bytes(const TensorSpec& spec);
/// "%up1.weight" or "%7".
std::string value_label(const Graph& graph, ValueId id);
/// "mish (%5)": a node called by its op and its first output.
std::string node_label(const Graph& graph, const Node& node);

}  // namespace tenon::graph
