// The reverse pass: runs the tape from the outputs to the leaves, without recursion.
#include <algorithm>
#include <atomic>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/kernels.h"
#include "tenon/core/node.h"
#include "tenon/core/recording.h"
#include "tenon/core/structural.h"

namespace tenon {
namespace {

thread_local bool grad_mode = true;

/// True when nobody else can see the elements of `tensor`, so that they may be overwritten.
bool is_sole_owner(const Tensor& tensor) {
  return tensor.body().use_count() == 1 && tensor.body()->storage.use_count() == 1;
}

bool fills_its_memory(const Tensor& tensor) { return is_dense(tensor.shape(), tensor.strides()); }

/// True when `tensor` lies in memory as one of these strides does.
bool lies_as(const Tensor& tensor, const Strides& strides) {
  for (std::size_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.shape()[d] != 1 && tensor.strides()[d] != strides[d]) return false;
  }
  return true;
}

/// sum += gradient, in place where that is unobservable.
void add_gradient(Tensor& sum, Tensor gradient) {
  if (!sum.defined()) {
    sum = std::move(gradient);
  } else if (!grad_mode && is_sole_owner(sum) && fills_its_memory(sum)) {
    kernels::add(sum, gradient, sum);
  } else {
    sum = accumulate(sum, gradient);
  }
}

/// Runs over a copy: a hook may add or remove hooks.
Tensor run_hooks(std::vector<GradientHook> hooks, Tensor gradient) {
  for (const GradientHook& hook : hooks) {
    Tensor replacement = hook.function(gradient);
    if (!replacement.defined()) continue;
    TENON_CHECK(replacement.spec() == gradient.spec(), "backward: a gradient hook returned ",
                replacement.spec(), " for a gradient of ", gradient.spec());
    gradient = std::move(replacement);
  }
  return gradient;
}

/// Adds `gradient` to what `grad()` of `owner` gives. As in PyTorch a first gradient takes over the
/// owner's strides where those are dense, so that an optimizer walks both in one order.
void accumulate_into(detail::TensorBody& owner, Tensor gradient) {
  Tensor& grad = owner.autograd->grad;
  const Strides strides =
      is_dense(owner.shape, owner.strides) ? owner.strides : contiguous_strides(owner.shape);
  if (grad.defined() && !grad_mode && !grad.requires_grad() && fills_its_memory(grad)) {
    // The same tensor as before, so that handles to it see the sum.
    detail::bump_version(grad);
    kernels::add(grad, gradient, grad);
  } else if (grad.defined()) {
    grad = accumulate(grad, gradient);
  } else if (gradient.requires_grad() || (is_sole_owner(gradient) && lies_as(gradient, strides))) {
    grad = std::move(gradient);
  } else {
    // Later sums are made in place, which nobody else may see.
    grad = detail::make_empty(gradient.spec(), strides);
    kernels::copy(gradient, grad);
  }
}

/// One run of the engine.
class Engine {
 public:
  explicit Engine(BackwardOptions options) : options_(options) {
    // The recorded backward reads the same saved tensors.
    options_.retain_graph = options_.retain_graph || options_.create_graph;
  }

  void add_root(const Tensor& output, Tensor gradient) {
    TENON_CHECK(output.requires_grad(),
                "backward: the output does not require a gradient (no input of its computation "
                "does, or it was computed under NoGradGuard)");
    if (!gradient.defined()) {
      TENON_CHECK(output.numel() == 1, "backward: an output of shape ", output.shape(),
                  " needs a gradient to start from; only one of a single element does not");
      gradient = ones_like(output);
    }
    TENON_CHECK(gradient.spec() == output.spec(), "backward: the gradient is ", gradient.spec(),
                " but the output is ", output.spec());
    send(detail::gradient_edge(output), std::move(gradient));
  }

  /// Collects the gradients of `inputs` instead of adding to the leaves, and runs only what leads
  /// to them.
  void capture(std::span<const Tensor> inputs) {
    capturing_ = true;
    for (const Tensor& input : inputs) {
      TENON_CHECK(input.requires_grad(), "grad: an input, ", input.spec(),
                  ", does not require a gradient");
      const Edge edge = detail::gradient_edge(input);
      captured_[edge.node.get()].push_back({edge.output, captures_.size()});
      captures_.emplace_back();
      capture_nodes_.push_back(edge.node);  // keeps an accumulator that only we know alive
    }
    mark_needed();
  }

  std::vector<Tensor> run() {
    const GradModeGuard mode(options_.create_graph);
    while (!ready_.empty()) {
      const std::shared_ptr<Node> node = ready_.top();
      ready_.pop();
      auto entry = gradients_.extract(node.get());
      run_node(*node, std::move(entry.mapped()));
    }
    return std::move(captures_);
  }

 private:
  /// What an op's backward sees.
  class Context : public BackwardContext {
   public:
    Context(const Engine& engine, const Node& node) : engine_(engine), node_(node) {}
    Tensor input(std::size_t i) const override { return node_.unpack_input(i); }
    Tensor output(std::size_t i) const override { return node_.unpack_output(i); }
    const TensorSpec& input_spec(std::size_t i) const override { return node_.input_specs()[i]; }
    bool needs_grad(std::size_t i) const override {
      return engine_.is_needed(node_.edges()[i].node.get());
    }
    std::size_t input_count() const override { return node_.edges().size(); }

   private:
    const Engine& engine_;
    const Node& node_;
  };

  struct BySequence {
    bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const {
      return a->sequence() < b->sequence();
    }
  };

  struct Capture {
    std::size_t output;
    std::size_t index;
  };

  bool is_needed(const Node* node) const {
    return node != nullptr && (!capturing_ || needed_.contains(node));
  }

  /// Finds the nodes from which a captured one can be reached.
  void mark_needed() {
    std::vector<const Node*> nodes;
    std::unordered_set<const Node*> seen;
    for (const auto& [node, gradients] : gradients_) {
      nodes.push_back(node);
      seen.insert(node);
    }
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      for (const Edge& edge : nodes[i]->edges()) {
        if (edge && seen.insert(edge.node.get()).second) nodes.push_back(edge.node.get());
      }
    }
    std::sort(nodes.begin(), nodes.end(),
              [](const Node* a, const Node* b) { return a->sequence() < b->sequence(); });
    for (const Node* node : nodes) {
      const bool leads_on =
          std::any_of(node->edges().begin(), node->edges().end(),
                      [&](const Edge& edge) { return needed_.contains(edge.node.get()); });
      if (leads_on || captured_.contains(node)) needed_.insert(node);
    }
  }

  /// Adds `gradient` to what arrives at `edge`.
  void send(const Edge& edge, Tensor gradient) {
    const auto [entry, is_new] = gradients_.try_emplace(edge.node.get());
    if (is_new) {
      entry->second.resize(edge.node->outputs().size());
      ready_.push(edge.node);
    }
    add_gradient(entry->second[edge.output], std::move(gradient));
  }

  void run_node(Node& node, std::vector<Tensor> gradients) {
    if (!is_needed(&node)) return;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      if (!gradients[i].defined()) continue;
      Node::Output& output = node.outputs()[i];
      const auto& hooks =
          node.is_accumulator() ? detail::gradient_hooks(node.leaf()) : output.hooks;
      gradients[i] = run_hooks(hooks, std::move(gradients[i]));
      const auto retained = output.retained.lock();
      if (retained && !capturing_) accumulate_into(*retained, gradients[i]);
    }
    if (const auto captures = captured_.find(&node); captures != captured_.end()) {
      for (const Capture& c : captures->second) captures_[c.index] = gradients[c.output];
    }
    if (node.is_accumulator()) {
      if (!capturing_) {
        const auto& leaf = node.leaf().body();
        if (detail::Recording* recording = detail::Recording::current()) {
          recording->note_gradient(leaf, true);
        }
        accumulate_into(*leaf, std::move(gradients[0]));
      }
      return;
    }
    const bool leads_on = std::any_of(node.edges().begin(), node.edges().end(),
                                      [&](const Edge& e) { return is_needed(e.node.get()); });
    if (leads_on) run_backward(node, std::move(gradients));
    if (!options_.retain_graph) node.release();
  }

  void run_backward(Node& node, std::vector<Tensor> gradients) {
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      if (!gradients[i].defined()) {
        const TensorSpec& spec = node.outputs()[i].spec;
        gradients[i] = zeros(spec.shape, {.dtype = spec.dtype, .device = spec.device});
      }
    }
    std::vector<Tensor> results;
    {
      const TuningGuard tuning(node.tuned() || tuning_requested());
      results = node.op().backward(Context(*this, node), gradients);
    }
    gradients.clear();
    TENON_CHECK(results.size() == node.edges().size(), "backward: '", node.op().name(),
                "' returned ", results.size(), " gradients for ", node.edges().size(), " inputs");
    for (std::size_t i = 0; i < results.size(); ++i) {
      const Edge& edge = node.edges()[i];
      if (!results[i].defined() || !is_needed(edge.node.get())) continue;
      TENON_CHECK(results[i].spec() == node.input_specs()[i], "backward: '", node.op().name(),
                  "' returned a gradient of ", results[i].spec(), " for input ", i, ", which is ",
                  node.input_specs()[i]);
      send(edge, std::move(results[i]));
    }
  }

  BackwardOptions options_;
  bool capturing_ = false;
  std::unordered_map<const Node*, std::vector<Tensor>> gradients_;
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, BySequence> ready_;
  std::unordered_map<const Node*, std::vector<Capture>> captured_;
  std::vector<std::shared_ptr<Node>> capture_nodes_;
  std::unordered_set<const Node*> needed_;
  std::vector<Tensor> captures_;
};

void add_roots(Engine& engine, std::span<const Tensor> outputs,
               std::span<const Tensor> grad_outputs) {
  TENON_CHECK(!is_tracing(),
              "backward: not inside a compiled function; compile the forward only, "
              "its backward is fused too");
  TENON_CHECK(grad_outputs.empty() || grad_outputs.size() == outputs.size(),
              "backward: ", outputs.size(), " outputs but ", grad_outputs.size(), " gradients");
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    TENON_CHECK(outputs[i].defined(), "backward: output ", i, " is an undefined tensor");
    engine.add_root(outputs[i], grad_outputs.empty() ? Tensor() : grad_outputs[i]);
  }
}

}  // namespace

bool grad_enabled() { return grad_mode; }

GradModeGuard::GradModeGuard(bool enabled) : previous_(grad_mode) { grad_mode = enabled; }
GradModeGuard::~GradModeGuard() { grad_mode = previous_; }

void backward(std::span<const Tensor> outputs, std::span<const Tensor> grad_outputs,
              BackwardOptions options) {
  Engine engine(options);
  add_roots(engine, outputs, grad_outputs);
  engine.run();
}

std::vector<Tensor> grad(std::span<const Tensor> outputs, std::span<const Tensor> inputs,
                         std::span<const Tensor> grad_outputs, BackwardOptions options,
                         bool allow_unused) {
  Engine engine(options);
  add_roots(engine, outputs, grad_outputs);
  engine.capture(inputs);
  std::vector<Tensor> gradients = engine.run();
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    TENON_CHECK(allow_unused || gradients[i].defined(), "grad: the outputs do not depend on input ",
                i, ", ", inputs[i].spec(), "; pass allow_unused = true if that is meant");
  }
  return gradients;
}

// ---- Tensor's autograd methods ------------------------------------------------------------------

bool Tensor::requires_grad() const {
  const auto& state = detail::body_of(*this).autograd;
  return state != nullptr && (state->requires_grad || state->producer);
}

const Tensor& Tensor::requires_grad_(bool value) const {
  TENON_CHECK(is_leaf(), "requires_grad_: only of a leaf; this tensor was computed (use detach())");
  TENON_CHECK(!value || is_floating(dtype()), "requires_grad_: a ", dtype(),
              " tensor has no gradient; only floating ones have");
  if (value || body_->autograd != nullptr) body_->autograd_state().requires_grad = value;
  return *this;
}

bool Tensor::is_leaf() const {
  const auto& state = detail::body_of(*this).autograd;
  return state == nullptr || !state->producer;
}

Tensor Tensor::grad() const {
  const auto& state = detail::body_of(*this).autograd;
  return state == nullptr ? Tensor() : state->grad;
}

void Tensor::set_grad(const Tensor& grad) const {
  TENON_CHECK(!grad.defined() || grad.spec() == spec(), "set_grad: the gradient is ", grad.spec(),
              " but the tensor is ", spec());
  if (detail::Recording* recording = detail::Recording::current()) {
    recording->note_gradient(body_, false);
  }
  if (grad.defined() || body_->autograd != nullptr) body_->autograd_state().grad = grad;
}

const Tensor& Tensor::retain_grad() const {
  TENON_CHECK(requires_grad(), "retain_grad: the tensor does not require a gradient");
  if (const Edge& edge = body_->autograd->producer) {
    edge.node->outputs()[edge.output].retained = body_;
  }
  return *this;
}

std::size_t Tensor::register_hook(std::function<Tensor(const Tensor&)> hook) const {
  TENON_CHECK(requires_grad(), "register_hook: the tensor does not require a gradient");
  static std::atomic<std::size_t> next_id{0};  // never given twice: a stale number removes nothing
  const std::size_t id = next_id.fetch_add(1, std::memory_order_relaxed);
  detail::gradient_hooks(*this).push_back({id, std::move(hook)});
  return id;
}

void Tensor::remove_hook(std::size_t id) const {
  TENON_CHECK(requires_grad(), "remove_hook: the tensor does not require a gradient");
  const auto removed = std::erase_if(detail::gradient_hooks(*this),
                                     [&](const GradientHook& h) { return h.id == id; });
  TENON_CHECK(removed == 1, "remove_hook: no hook ", id, " on this tensor");
}

void Tensor::backward(const Tensor& gradient, bool retain_graph, bool create_graph) const {
  const Tensor gradients[] = {gradient};
  tenon::backward({this, 1}, gradients,
                  {.retain_graph = retain_graph, .create_graph = create_graph});
}

}  // namespace tenon
