#include "tenon/graph/executor.h"

#include <algorithm>
#include <optional>

#include "tenon/core/autograd.h"

namespace tenon::graph {

Executor::Executor(const Graph& graph) : inputs_(graph.inputs()), outputs_(graph.outputs()) {
  constexpr std::size_t kNever = static_cast<std::size_t>(-1);
  std::vector<std::size_t> last_reader(graph.value_count(), kNever);
  for (std::size_t position = 0; position < graph.nodes().size(); ++position) {
    for (const ValueId id : graph.nodes()[position].inputs) last_reader[id] = position;
  }
  std::vector<bool> stays(graph.value_count(), false);
  for (const ValueId id : outputs_) stays[id] = true;
  fixed_.resize(graph.value_count());
  for (const ValueId id : graph.captured()) {
    fixed_[id] = graph.value(id).tensor;
    stays[id] = true;
  }
  for (const ValueId id : inputs_) input_specs_.push_back(graph.value(id).spec);
  for (std::size_t position = 0; position < graph.nodes().size(); ++position) {
    const Node& node = graph.nodes()[position];
    Step step{node.op, node.inputs, node.outputs, {}, node.no_grad};
    for (const ValueId id : node.inputs) {
      if (last_reader[id] == position && !stays[id]) step.spent.push_back(id);
    }
    for (const ValueId id : node.outputs) {
      if (last_reader[id] == kNever && !stays[id]) step.spent.push_back(id);
    }
    steps_.push_back(std::move(step));
  }
}

std::vector<Tensor> Executor::run(std::span<const Tensor> inputs) const {
  TENON_CHECK(inputs.size() == inputs_.size(), "graph: takes ", inputs_.size(), " inputs, got ",
              inputs.size());
  std::vector<Tensor> values = fixed_;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    TENON_CHECK(inputs[i].spec() == input_specs_[i], "graph: input ", i, " must be ",
                input_specs_[i], ", got ", inputs[i].spec());
    values[inputs_[i]] = inputs[i];
  }
  std::vector<Tensor> operands;
  for (const Step& step : steps_) {
    for (const ValueId id : step.inputs) operands.push_back(values[id]);
    std::optional<NoGradGuard> no_history;
    if (step.no_grad) no_history.emplace();
    std::vector<Tensor> results = call(step.op, operands);
    operands.clear();
    for (std::size_t i = 0; i < results.size(); ++i) {
      values[step.outputs[i]] = std::move(results[i]);
    }
    for (const ValueId id : step.spent) values[id] = Tensor();
  }
  std::vector<Tensor> outputs;
  for (const ValueId id : outputs_) outputs.push_back(values[id]);
  return outputs;
}

}  // namespace tenon::graph
