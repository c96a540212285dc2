#include "tenon/graph/ir.h"

#include <algorithm>
#include <utility>

#include "tenon/core/autograd.h"

namespace tenon::graph {

ValueId Graph::add_value(ValueKind kind, std::string name, const TensorSpec& spec,
                         const Tensor& tensor) {
  if (kind != ValueKind::Intermediate) {
    const auto taken = [&](const Value& value) { return value.name == name; };
    while (std::any_of(values_.begin(), values_.end(), taken)) name += "_";
  }
  values_.push_back({kind, std::move(name), spec, tensor});
  return values_.size() - 1;
}

ValueId Graph::add_input(std::string name, const TensorSpec& spec) {
  const ValueId id = add_value(ValueKind::Input, std::move(name), spec, {});
  inputs_.push_back(id);
  return id;
}

ValueId Graph::add_parameter(std::string name, const Tensor& tensor) {
  return add_value(ValueKind::Parameter, std::move(name), tensor.spec(), tensor);
}

ValueId Graph::add_constant(std::string name, const Tensor& tensor) {
  return add_value(ValueKind::Constant, std::move(name), tensor.spec(), tensor);
}

std::vector<ValueId> Graph::append(std::shared_ptr<const Op> op, std::span<const ValueId> inputs) {
  std::vector<TensorSpec> specs;
  for (const ValueId id : inputs) specs.push_back(value(id).spec);
  Node node{std::move(op), {inputs.begin(), inputs.end()}, {}, {}, !grad_enabled()};
  for (const TensorSpec& spec : node.op->infer(specs)) {
    const std::string number = std::to_string(values_.size());
    node.outputs.push_back(add_value(ValueKind::Intermediate, number, spec, {}));
  }
  nodes_.push_back(std::move(node));
  return nodes_.back().outputs;
}

const Value& Graph::value(ValueId id) const {
  TENON_CHECK(id < values_.size(), "graph: there is no value ", id, " among ", values_.size());
  return values_[id];
}

std::vector<ValueId> Graph::captured() const {
  std::vector<bool> read(values_.size(), false);
  for (const Node& node : nodes_) {
    for (const ValueId id : node.inputs) read[id] = true;
  }
  for (const ValueId id : outputs_) read[id] = true;
  std::vector<ValueId> result;
  for (ValueId id = 0; id < values_.size(); ++id) {
    if (read[id] && values_[id].tensor.defined()) result.push_back(id);
  }
  return result;
}

void Graph::replace_reads(ValueId from, ValueId to) {
  for (Node& node : nodes_) std::replace(node.inputs.begin(), node.inputs.end(), from, to);
  std::replace(outputs_.begin(), outputs_.end(), from, to);
}

void Graph::verify() const {
  std::vector<bool> ready(values_.size(), false);
  for (ValueId id = 0; id < values_.size(); ++id) {
    ready[id] = values_[id].kind != ValueKind::Intermediate;
  }
  for (const Node& node : nodes_) {
    std::vector<TensorSpec> specs;
    for (const ValueId id : node.inputs) {
      TENON_CHECK(id < values_.size() && ready[id], "graph: ", node.op->name(), " reads %", id,
                  ", which is not computed before it");
      specs.push_back(values_[id].spec);
    }
    const std::vector<TensorSpec> inferred = node.op->infer(specs);
    TENON_CHECK(inferred.size() == node.outputs.size(), "graph: ", node.op->name(), " has ",
                inferred.size(), " outputs, its node lists ", node.outputs.size());
    for (std::size_t i = 0; i < inferred.size(); ++i) {
      const ValueId id = node.outputs[i];
      TENON_CHECK(id < values_.size() && !ready[id], "graph: %", id, " is computed twice, by ",
                  node.op->name(), " again");
      TENON_CHECK(values_[id].spec == inferred[i], "graph: ", node.op->name(), " gives ",
                  inferred[i], ", but %", id, " is listed as ", values_[id].spec);
      ready[id] = true;
    }
  }
  for (const ValueId id : outputs_) {
    TENON_CHECK(id < values_.size() && ready[id], "graph: output %", id, " is never computed");
  }
}

UseIndex::UseIndex(const Graph& graph)
    : producers_(graph.value_count(), kNone),
      readers_(graph.value_count()),
      is_output_(graph.value_count(), false) {
  for (std::size_t position = 0; position < graph.nodes().size(); ++position) {
    const Node& node = graph.nodes()[position];
    for (const ValueId id : node.outputs) producers_[id] = position;
    for (const ValueId id : node.inputs) {
      if (readers_[id].empty() || readers_[id].back() != position) readers_[id].push_back(position);
    }
  }
  for (const ValueId id : graph.outputs()) is_output_[id] = true;
}

std::int64_t spec_bytes(const TensorSpec& spec) {
  return spec.shape.numel() * static_cast<std::int64_t>(item_size(spec.dtype));
}

std::string value_label(const Graph& graph, ValueId id) {
  return tenon::detail::concat("%", graph.value(id).name);
}

std::string node_label(const Graph& graph, const Node& node) {
  const std::string name(node.op->name());
  return node.outputs.empty() ? name : name + " (" + value_label(graph, node.outputs[0]) + ")";
}

}  // namespace tenon::graph
