// compile: a function or module that runs as an optimized graph.
//
//     auto fast = graph::compile(decoder);   // nothing happens yet
//     Tensor y = fast(z);                    // traces, rewrites and runs; later calls only run
//     loss(y).backward();                    // gradients as through the decoder itself
//     std::cout << fast.report();            // what fused, and what did not and why
#pragma once

#include <concepts>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tenon/graph/passes.h"
#include "tenon/graph/report.h"
#include "tenon/graph/source.h"

namespace tenon::graph {

struct CompileOptions {
  bool fuse = true;  ///< false leaves canonicalisation alone, to compare with
  /// On a GPU the first run of a convolution, and of its gradients, times what computes it and
  /// keeps the fastest; `TENON_CUDNN_TUNE` overrules it.
  bool tune = true;
};

/// What `compile` returns. A handle: copies share what was compiled. Safe to call from several
/// threads at once where the function itself is; the first call of a signature compiles while
/// others wait.
///
/// A graph is made for each signature: the inputs' shapes, dtypes and devices, the training modes
/// of the module and its parts, and whether gradients are switched on (a block whose fused backward
/// would be slower fuses only without them). Parameters are read by their handles at every call, so
/// that an optimizer step, `copy_` and `set_data` are seen; when one changes its shape, dtype or
/// device, or the module holds another tensor in its place, the graph is made anew. Memory formats
/// are no part of the signature: results have those that `f` itself would give for the same inputs,
/// except that a reshape of a reshape becomes one, which may leave a channels-last order as it is.
///
/// Called while another function is traced, it becomes part of that trace.
class CompiledFunction {
 public:
  /// Use `compile`.
  CompiledFunction(detail::Source source, CompileOptions options);

  /// Runs a function of one result; `Error` when it has several.
  template <class... Rest>
  requires(std::convertible_to<const Rest&, const Tensor&>&&...) Tensor operator()(
      const Tensor& first, const Rest&... rest) const {
    const std::vector<Tensor> inputs{first, rest...};
    return only_result(run(inputs));
  }
  /// Runs a function of any number of results.
  std::vector<Tensor> operator()(std::span<const Tensor> inputs) const { return run(inputs); }

  /// How often a graph was made.
  std::size_t compilations() const;
  /// For each graph in use: every transposed convolution, whether it became part of a fused node,
  /// and if not, which operand failed which condition. Says so when nothing was called yet.
  std::string report() const;
  /// The same as data, for the graph made last. These throw `Error` when nothing was called yet.
  std::vector<BlockDecision> decisions() const;
  /// The graph made last after each pass; the first is as traced.
  std::vector<Snapshot> snapshots() const;
  /// The graph made last as traced, and as it runs.
  Graph graph_before() const;
  Graph graph_after() const;
  /// The same for the signature of these inputs in the present modes of module and gradients;
  /// `Error` when it was not called with such inputs.
  Graph graph_before(std::span<const Tensor> inputs) const;
  Graph graph_after(std::span<const Tensor> inputs) const;
  /// Pictures of both; in the first, what is about to fuse is tinted.
  std::string svg_before(const std::string& title = "as traced") const;
  std::string svg_after(const std::string& title = "as it runs") const;
  /// Both next to each other.
  std::string svg_comparison() const;

 private:
  struct State;

  std::vector<Tensor> run(std::span<const Tensor> inputs) const;
  static Tensor only_result(std::vector<Tensor> results);

  std::shared_ptr<State> state_;
};

/// Compiles `f`: a module (it has `named_parameters()` and `forward`), or a function of tensors
/// that returns a tensor, a vector, a pair or a tuple of tensors. A module given as an lvalue is
/// kept by reference and must outlive the result; anything else is moved or copied into it.
template <class F>
CompiledFunction compile(F&& f, CompileOptions options = {}) {
  using Plain = std::remove_reference_t<F>;
  if constexpr (std::is_lvalue_reference_v<F> && detail::ModuleLike<Plain>) {
    const std::shared_ptr<Plain> reference(std::shared_ptr<void>(), &f);  // owns nothing
    return CompiledFunction(detail::make_source(reference), options);
  } else {
    using Stored = std::decay_t<F>;
    return CompiledFunction(detail::make_source(std::make_shared<Stored>(std::forward<F>(f))),
                            options);
  }
}

}  // namespace tenon::graph
