// Tracing: running a function on tensors that have a shape but no elements, to see what it calls.
#pragma once

#include <concepts>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tenon/graph/ir.h"

namespace tenon::graph {

/// A tensor and what to call it in the graph.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Writes the ops of this thread into a graph while a `TraceGuard` makes it the active sink.
/// Tensors that the trace did not hand out become parameters (when `names` has them) or constants,
/// by their handles, so that a later change of their elements is seen.
class Tracer : public TraceSink {
 public:
  explicit Tracer(Graph& graph, std::span<const NamedTensor> names = {});

  /// Adds an input to the graph and returns the tensor that stands for it.
  Tensor input(std::string name, const TensorSpec& spec);
  /// The shape-only tensor that stands for `id`.
  Tensor tensor(ValueId id) const;
  /// The value that `tensor` stands for; captures it when it has elements. Throws `Error` for an
  /// undefined tensor and for one of another trace.
  ValueId value_of(const Tensor& tensor);

  std::vector<Tensor> record(std::shared_ptr<const Op> op, std::span<const Tensor> inputs,
                             std::span<const TensorSpec> outputs) override;

 private:
  Graph& graph_;
  std::shared_ptr<const int> identity_;  // shared by all tensors of this trace and no other
  std::map<const void*, std::string> names_;
  std::map<const void*, ValueId> captured_;
};

/// Functions are traced through this type, whatever their own.
using TensorsFunction = std::function<std::vector<Tensor>(std::span<const Tensor>)>;

/// The graph of `function` for inputs of these specs. One input is called "x", several "x0", "x1"…
/// Only ops on tensors are seen: a branch or loop of C++ is followed once, as these specs lead it,
/// and numbers drawn or computed outside of ops stay what they were. Throws `Error` when the
/// function reads elements (`item()`, `data()`) or changes a traced tensor in place.
Graph trace(const TensorsFunction& function, std::span<const TensorSpec> inputs,
            std::span<const NamedTensor> names = {});

}  // namespace tenon::graph
