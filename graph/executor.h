// Running a graph.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "tenon/graph/ir.h"

namespace tenon::graph {

/// A graph made ready to run: a loop over `call` that lets go of each value after its last reader,
/// so that memory is freed as early as in eager execution, and the tape records what runs.
/// Immutable; several threads may run it at once.
class Executor {
 public:
  explicit Executor(const Graph& graph);

  /// Inputs must have the specs that the graph was traced for; `Error` otherwise.
  std::vector<Tensor> run(std::span<const Tensor> inputs) const;

 private:
  struct Step {
    std::shared_ptr<const Op> op;
    std::vector<ValueId> inputs;
    std::vector<ValueId> outputs;
    std::vector<ValueId> spent;  // read for the last time here, or never
    bool no_grad;
  };

  std::vector<Step> steps_;
  std::vector<Tensor> fixed_;  // by value: parameters and constants, undefined for the rest
  std::vector<ValueId> inputs_;
  std::vector<TensorSpec> input_specs_;
  std::vector<ValueId> outputs_;
};

}  // namespace tenon::graph
