// The tape: one node for each op that was called with gradients on. Internal to core.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <span>
#include <vector>

#include "tenon/core/op.h"
#include "tenon/core/tensor_body.h"
#include "tenon/core/tuning.h"

namespace tenon {

/// A tensor kept for the backward: its elements without the history (which would make a cycle, or
/// a chain that destructors recurse along), and the version they had.
struct SavedTensor {
  Tensor data;
  std::uint32_t version = 0;
};

/// Either an op that was called, with what its backward needs, or the accumulator of a leaf (no
/// op), which adds to the leaf's gradient. Edges own the nodes they point to; a leaf knows its
/// accumulator only weakly. Every node is made after the nodes it points to, so descending
/// `sequence` is an order in which all gradients of a node have arrived before it runs.
class Node : public std::enable_shared_from_this<Node> {
 public:
  /// A called op. `needs_grad` marks the inputs through which gradients flow.
  Node(std::shared_ptr<const Op> op, std::span<const Tensor> inputs,
       std::span<const TensorSpec> input_specs, std::span<const Tensor> outputs);
  /// The accumulator of `leaf`.
  explicit Node(Tensor leaf);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  /// What hangs on one output of an op.
  struct Output {
    TensorSpec spec;
    std::vector<GradientHook> hooks;
    std::weak_ptr<detail::TensorBody> retained;  // the tensor that asked for its gradient
  };

  bool is_accumulator() const { return op_ == nullptr; }
  const Op& op() const { return *op_; }
  const Tensor& leaf() const { return leaf_; }
  std::uint64_t sequence() const { return sequence_; }
  std::span<const Edge> edges() const { return edges_; }
  std::span<const TensorSpec> input_specs() const { return input_specs_; }
  /// Whether tuning was asked for when the op was called: then its backward tunes too.
  bool tuned() const { return tuned_; }
  std::span<Output> outputs() { return outputs_; }

  /// Saved input or output `i`, attached to its history again. Throws `Error` when it was not
  /// saved, was freed or has changed since.
  Tensor unpack_input(std::size_t i) const;
  Tensor unpack_output(std::size_t i) const;
  /// Frees the saved tensors.
  void release();

 private:
  Tensor unpack(const SavedTensor* saved, std::size_t i, const char* what, Edge edge) const;

  // The lists of an op of two operands that saves both, and so of most, lie in the node itself.
  static constexpr std::size_t kBytesOfLists =
      2 * (sizeof(Edge) + sizeof(TensorSpec) + sizeof(SavedTensor)) + sizeof(Output);
  alignas(std::max_align_t) std::array<std::byte, kBytesOfLists> buffer_;
  std::pmr::monotonic_buffer_resource memory_{buffer_.data(), buffer_.size()};

  std::shared_ptr<const Op> op_;
  Tensor leaf_;
  std::uint64_t sequence_;
  std::pmr::vector<Edge> edges_{&memory_};  // one an input; empty where no gradient flows
  std::pmr::vector<TensorSpec> input_specs_{&memory_};
  std::pmr::vector<Output> outputs_{&memory_};
  std::pmr::vector<SavedTensor> saved_inputs_{&memory_};   // undefined data where not saved
  std::pmr::vector<SavedTensor> saved_outputs_{&memory_};  // likewise
  bool released_ = false;
  bool tuned_ = tuning_requested();
};

namespace detail {

/// Where the gradient of `tensor` goes: its producer, or its accumulator (made if need be); empty
/// when it needs none.
Edge gradient_edge(const Tensor& tensor);

/// The hooks of a tensor that requires a gradient: its own for a leaf, its producer's otherwise.
std::vector<GradientHook>& gradient_hooks(const Tensor& tensor);

}  // namespace detail
}  // namespace tenon
