#include "tenon/graph/compile.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <sstream>

#include "tenon/core/autograd.h"
#include "tenon/core/tuning.h"
#include "tenon/graph/executor.h"
#include "tenon/graph/print.h"

namespace tenon::graph {
namespace {

using tenon::detail::concat;

/// What a graph is made for.
struct Signature {
  std::vector<TensorSpec> inputs;
  std::vector<bool> modes;
  bool gradients = true;  // whether runs may be recorded

  bool operator==(const Signature&) const = default;
};

std::string heading(const Signature& signature) {
  std::ostringstream out;
  out << '(';
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    out << (i > 0 ? ", " : "") << signature.inputs[i];
  }
  out << ')';
  if (!signature.modes.empty()) out << (signature.modes[0] ? " training" : " evaluating");
  if (!signature.gradients) out << " without gradients";
  return out.str();
}

/// A graph with all that was found out about it.
struct Program {
  Program(Signature made_for, const Graph& traced, std::vector<NamedTensor> tensors, bool fuse)
      : signature(std::move(made_for)),
        named(std::move(tensors)),
        snapshots(run_passes(traced, default_passes(fuse, signature.gradients))),
        executor(snapshots.back().graph) {
    const auto is_fusion = [](const Snapshot& snapshot) { return snapshot.pass == "fuse"; };
    const auto found = std::find_if(snapshots.begin(), snapshots.end(), is_fusion);
    if (found != snapshots.end()) {
      decisions =
          decide_blocks((found - 1)->graph, found->rewrites, found->graph, signature.gradients);
    } else {
      decisions =
          decide_blocks(snapshots.back().graph, {}, snapshots.back().graph, signature.gradients);
      for (BlockDecision& decision : decisions) decision.reason = "fusion is switched off";
    }
  }

  /// Whether the tensors that the graph holds are still those of the module, with their specs.
  bool is_current(std::span<const NamedTensor> tensors) const {
    const Graph& graph = snapshots.back().graph;
    const std::vector<ValueId> captured = graph.captured();
    return std::all_of(
               captured.begin(), captured.end(),
               [&](ValueId id) { return graph.value(id).tensor.spec() == graph.value(id).spec; }) &&
           std::equal(tensors.begin(), tensors.end(), named.begin(), named.end(),
                      [](const NamedTensor& a, const NamedTensor& b) {
                        return a.tensor.is_same(b.tensor);
                      });
  }

  Signature signature;
  std::vector<NamedTensor> named;
  std::vector<Snapshot> snapshots;
  Executor executor;
  std::vector<BlockDecision> decisions;
};

/// The nodes of the traced graph that end up in a fused node.
std::set<ValueId> values_that_fuse(const std::vector<Snapshot>& snapshots) {
  std::set<ValueId> values;
  for (auto snapshot = snapshots.rbegin(); snapshot != snapshots.rend(); ++snapshot) {
    for (auto rewrite = snapshot->rewrites.rbegin(); rewrite != snapshot->rewrites.rend();
         ++rewrite) {
      if (snapshot->pass == "fuse" || values.contains(rewrite->result)) {
        values.insert(rewrite->replaced.begin(), rewrite->replaced.end());
      }
    }
  }
  return values;
}

}  // namespace

struct CompiledFunction::State {
  detail::Source source;
  CompileOptions options;
  mutable std::mutex mutex;
  std::vector<std::shared_ptr<const Program>> programs;  // the one made last at the back
  std::size_t compilations = 0;

  Signature signature_of(std::span<const Tensor> inputs) const {
    Signature signature;
    for (const Tensor& input : inputs) {
      TENON_CHECK(input.defined(), "compile: input ", signature.inputs.size(),
                  " is an undefined tensor");
      signature.inputs.push_back(input.spec());
    }
    if (source.modes) signature.modes = source.modes();
    signature.gradients = grad_enabled();
    return signature;
  }

  /// The program for `inputs`, made when there is none that is current.
  std::shared_ptr<const Program> program_for(std::span<const Tensor> inputs) {
    Signature signature = signature_of(inputs);
    std::vector<NamedTensor> named;
    if (source.named_tensors) named = source.named_tensors();
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = std::find_if(programs.begin(), programs.end(), [&](const auto& program) {
      return program->signature == signature;
    });
    if (found != programs.end()) {
      if ((*found)->is_current(named)) return *found;
      programs.erase(found);
    }
    const Graph traced = trace(source.function, signature.inputs, named);
    programs.push_back(std::make_shared<const Program>(std::move(signature), traced,
                                                       std::move(named), options.fuse));
    ++compilations;
    return programs.back();
  }

  std::shared_ptr<const Program> last() const {
    const std::lock_guard<std::mutex> lock(mutex);
    TENON_CHECK(!programs.empty(),
                "compile: there is no graph yet; call the compiled function once");
    return programs.back();
  }

  std::shared_ptr<const Program> existing(std::span<const Tensor> inputs) const {
    const Signature signature = signature_of(inputs);
    const std::lock_guard<std::mutex> lock(mutex);
    for (const auto& program : programs) {
      if (program->signature == signature) return program;
    }
    tenon::detail::fail(concat("compile: there is no graph for ", heading(signature),
                               "; call the compiled function with such inputs once"));
  }
};

CompiledFunction::CompiledFunction(detail::Source source, CompileOptions options)
    : state_(std::make_shared<State>()) {
  state_->source = std::move(source);
  state_->options = options;
}

std::vector<Tensor> CompiledFunction::run(std::span<const Tensor> inputs) const {
  if (is_tracing()) return state_->source.function(inputs);
  const TuningGuard tuning(state_->options.tune || tuning_requested());
  return state_->program_for(inputs)->executor.run(inputs);
}

Tensor CompiledFunction::only_result(std::vector<Tensor> results) {
  TENON_CHECK(results.size() == 1, "compile: the function returns ", results.size(),
              " tensors; call it with a std::vector of inputs to get them all");
  return std::move(results[0]);
}

std::size_t CompiledFunction::compilations() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->compilations;
}

std::string CompiledFunction::report() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (state_->programs.empty()) return "not called yet, so there is no graph to report on\n";
  std::string text;
  for (const auto& program : state_->programs) {
    text +=
        report_text(heading(program->signature), program->snapshots.front().graph.nodes().size(),
                    program->snapshots.back().graph.nodes().size(), program->decisions);
  }
  return text;
}

std::vector<BlockDecision> CompiledFunction::decisions() const { return state_->last()->decisions; }

std::vector<Snapshot> CompiledFunction::snapshots() const { return state_->last()->snapshots; }

Graph CompiledFunction::graph_before() const { return state_->last()->snapshots.front().graph; }

Graph CompiledFunction::graph_after() const { return state_->last()->snapshots.back().graph; }

Graph CompiledFunction::graph_before(std::span<const Tensor> inputs) const {
  return state_->existing(inputs)->snapshots.front().graph;
}

Graph CompiledFunction::graph_after(std::span<const Tensor> inputs) const {
  return state_->existing(inputs)->snapshots.back().graph;
}

std::string CompiledFunction::svg_before(const std::string& title) const {
  const std::shared_ptr<const Program> program = state_->last();
  return to_svg(program->snapshots.front().graph,
                {.title = title, .highlight = values_that_fuse(program->snapshots)});
}

std::string CompiledFunction::svg_after(const std::string& title) const {
  return to_svg(state_->last()->snapshots.back().graph, {.title = title});
}

std::string CompiledFunction::svg_comparison() const {
  const std::shared_ptr<const Program> program = state_->last();
  const std::vector<Picture> pictures = {
      {program->snapshots.front().graph,
       {.title = "as traced", .highlight = values_that_fuse(program->snapshots)}},
      {program->snapshots.back().graph, {.title = "as it runs"}}};
  return to_svg(pictures);
}

}  // namespace tenon::graph
