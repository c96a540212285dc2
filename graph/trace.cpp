#include "tenon/graph/trace.h"

#include "tenon/core/autograd.h"
#include "tenon/core/tensor_body.h"

namespace tenon::graph {
namespace {

class GraphValue : public TracedValue {
 public:
  GraphValue(std::shared_ptr<const int> trace, ValueId id) : trace_(std::move(trace)), id_(id) {}
  const std::shared_ptr<const int>& trace() const { return trace_; }
  ValueId id() const { return id_; }

 private:
  std::shared_ptr<const int> trace_;
  ValueId id_;
};

}  // namespace

Tracer::Tracer(Graph& graph, std::span<const NamedTensor> names)
    : graph_(graph), identity_(std::make_shared<const int>(0)) {
  for (const NamedTensor& named : names) {
    if (named.tensor.defined()) names_.emplace(named.tensor.body().get(), named.name);
  }
  for (ValueId id = 0; id < graph.value_count(); ++id) {
    const Tensor& tensor = graph.value(id).tensor;
    if (tensor.defined()) captured_.emplace(tensor.body().get(), id);
  }
}

Tensor Tracer::input(std::string name, const TensorSpec& spec) {
  return tensor(graph_.add_input(std::move(name), spec));
}

Tensor Tracer::tensor(ValueId id) const {
  return detail::make_traced(graph_.value(id).spec, std::make_shared<GraphValue>(identity_, id));
}

ValueId Tracer::value_of(const Tensor& tensor) {
  TENON_CHECK(tensor.defined(), "trace: the function uses or returns an undefined tensor");
  const void* body = tensor.body().get();
  if (tensor.is_traced()) {
    const auto* traced = dynamic_cast<const GraphValue*>(tensor.body()->traced.get());
    TENON_CHECK(traced != nullptr && traced->trace() == identity_, "trace: a ", tensor.spec(),
                " from another trace is used here; it was kept in a variable that outlives the "
                "traced function, which should return it instead");
    return traced->id();
  }
  const auto known = captured_.find(body);
  if (known != captured_.end()) return known->second;
  const auto name = names_.find(body);
  const ValueId id =
      name != names_.end()
          ? graph_.add_parameter(name->second, tensor)
          : graph_.add_constant(tenon::detail::concat("c", graph_.value_count()), tensor);
  captured_.emplace(body, id);
  return id;
}

std::vector<Tensor> Tracer::record(std::shared_ptr<const Op> op, std::span<const Tensor> inputs,
                                   std::span<const TensorSpec> /*outputs: inferred again*/) {
  std::vector<ValueId> operands;
  for (const Tensor& tensor : inputs) operands.push_back(value_of(tensor));
  std::vector<Tensor> results;
  for (const ValueId id : graph_.append(std::move(op), operands)) results.push_back(tensor(id));
  return results;
}

Graph trace(const TensorsFunction& function, std::span<const TensorSpec> inputs,
            std::span<const NamedTensor> names) {
  Graph graph;
  Tracer tracer(graph, names);
  std::vector<Tensor> arguments;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::string name = inputs.size() == 1 ? "x" : tenon::detail::concat("x", i);
    arguments.push_back(tracer.input(name, inputs[i]));
  }
  std::vector<ValueId> outputs;
  {
    const TraceGuard guard(tracer);
    // Gradients are the caller's choice at each run; a NoGradGuard of the function itself is seen.
    const GradModeGuard gradients(true);
    for (const Tensor& result : function(arguments)) outputs.push_back(tracer.value_of(result));
  }
  graph.set_outputs(std::move(outputs));
  graph.verify();
  return graph;
}

}  // namespace tenon::graph
