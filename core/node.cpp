#include "tenon/core/node.h"

#include <atomic>

#include "tenon/core/recycled.h"

namespace tenon {
namespace {

std::uint64_t next_sequence() {
  static std::atomic<std::uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed);
}

SavedTensor save(const Tensor& tensor) {
  return {detail::without_history(tensor), tensor.body()->storage->version()};
}

void save_masked(std::span<const Tensor> tensors, IndexMask mask,
                 std::pmr::vector<SavedTensor>& saved) {
  if (mask == kNoIndices) return;
  saved.resize(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if ((mask & index_bit(i)) != 0) saved[i] = save(tensors[i]);
  }
}

}  // namespace

Node::Node(std::shared_ptr<const Op> op, std::span<const Tensor> inputs,
           std::span<const TensorSpec> input_specs, std::span<const Tensor> outputs)
    : op_(std::move(op)), input_specs_(input_specs.begin(), input_specs.end(), &memory_) {
  IndexMask needs_grad = kNoIndices;
  edges_.reserve(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    edges_.push_back(detail::gradient_edge(inputs[i]));
    if (edges_.back()) needs_grad |= index_bit(i);
  }
  outputs_.reserve(outputs.size());
  for (const Tensor& output : outputs) outputs_.push_back({output.spec(), {}, {}});
  const Saved wanted = op_->saved(needs_grad);
  save_masked(inputs, wanted.inputs, saved_inputs_);
  save_masked(outputs, wanted.outputs, saved_outputs_);
  // Last: an accumulator that `gradient_edge` made must come before its consumer.
  sequence_ = next_sequence();
}

Node::Node(Tensor leaf) : leaf_(std::move(leaf)), sequence_(next_sequence()) {
  outputs_.push_back({leaf_.spec(), {}, {}});
}

Node::~Node() {
  // A long chain would be destroyed recursively, edge by edge, and overflow the stack. The
  // outermost destructor of this thread collects the nodes of all inner ones and frees them in a
  // loop.
  thread_local std::vector<std::shared_ptr<Node>>* collecting = nullptr;
  std::vector<std::shared_ptr<Node>> doomed;
  const bool outermost = collecting == nullptr;
  if (outermost) collecting = &doomed;
  for (Edge& edge : edges_) {
    if (edge.node != nullptr) collecting->push_back(std::move(edge.node));
  }
  if (!outermost) return;
  while (!doomed.empty()) {
    const std::shared_ptr<Node> node = std::move(doomed.back());
    doomed.pop_back();
  }
  collecting = nullptr;
}

Tensor Node::unpack(const SavedTensor* saved, std::size_t i, const char* what, Edge edge) const {
  TENON_CHECK(!released_, "backward: the tensors saved for '", op_->name(),
              "' were freed by an earlier backward; pass retain_graph = true to that one");
  TENON_CHECK(saved != nullptr && saved->data.defined(), "backward: '", op_->name(),
              "' did not save its ", what, ' ', i);
  const std::uint32_t now = saved->data.body()->storage->version();
  TENON_CHECK(now == saved->version, "backward: ", what, ' ', i, " of '", op_->name(), "', ",
              saved->data.spec(), ", was changed in place after it was saved (version ",
              saved->version, ", now ", now, "); clone() it before the change");
  Tensor tensor = detail::without_history(saved->data);
  if (edge) tensor.body()->autograd_state().producer = std::move(edge);
  return tensor;
}

Tensor Node::unpack_input(std::size_t i) const {
  return unpack(i < saved_inputs_.size() ? &saved_inputs_[i] : nullptr, i, "input",
                i < edges_.size() ? edges_[i] : Edge{});
}

Tensor Node::unpack_output(std::size_t i) const {
  auto self = std::const_pointer_cast<Node>(shared_from_this());
  return unpack(i < saved_outputs_.size() ? &saved_outputs_[i] : nullptr, i, "output",
                Edge{std::move(self), i});
}

void Node::release() {
  if (saved_inputs_.empty() && saved_outputs_.empty()) return;
  saved_inputs_.clear();
  saved_outputs_.clear();
  released_ = true;
}

namespace detail {

Edge gradient_edge(const Tensor& tensor) {
  if (!tensor.requires_grad()) return {};
  AutogradState& state = tensor.body()->autograd_state();
  if (state.producer) return state.producer;
  std::shared_ptr<Node> accumulator = state.accumulator.lock();
  if (accumulator == nullptr) {
    accumulator = make_recycled<Node>(tensor);
    state.accumulator = accumulator;
  }
  return {std::move(accumulator), 0};
}

std::vector<GradientHook>& gradient_hooks(const Tensor& tensor) {
  AutogradState& state = tensor.body()->autograd_state();
  return state.producer ? state.producer.node->outputs()[state.producer.output].hooks : state.hooks;
}

}  // namespace detail
}  // namespace tenon
