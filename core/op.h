// The op protocol: one definition of an op serves eager execution, autograd, tracing and rewriting.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tenon/core/recycled.h"
#include "tenon/core/tensor.h"

namespace tenon {

/// A named parameter of an op that is not a tensor: a stride, a slope, a list of dimensions.
struct Attribute {
  using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>>;
  std::string name;
  Value value;

  bool operator==(const Attribute&) const = default;
};

using Attributes = std::vector<Attribute>;

/// "stride=[2, 2], groups=1"
std::ostream& operator<<(std::ostream& out, const Attributes& attributes);

/// A set of input or output positions; position i is bit i.
using IndexMask = std::uint64_t;
inline constexpr IndexMask kNoIndices = 0;
inline constexpr IndexMask kAllIndices = ~IndexMask{0};
constexpr IndexMask index_bit(std::size_t i) { return i < 64 ? IndexMask{1} << i : 0; }

/// Which tensors an op wants to see again in its backward.
struct Saved {
  IndexMask inputs = kNoIndices;
  IndexMask outputs = kNoIndices;
};

/// What `Op::backward` may look at: the saved tensors, and the specs of all.
class BackwardContext {
 public:
  virtual ~BackwardContext() = default;
  /// Input `i`, which `Op::saved` must have asked for. Throws `Error` when it was changed in
  /// place since, or was freed by an earlier backward.
  virtual Tensor input(std::size_t i) const = 0;
  /// Output `i`, likewise.
  virtual Tensor output(std::size_t i) const = 0;
  virtual const TensorSpec& input_spec(std::size_t i) const = 0;
  /// Whether anybody wants the gradient of input `i`.
  virtual bool needs_grad(std::size_t i) const = 0;
  virtual std::size_t input_count() const = 0;
};

/// An operation on tensors with its attributes. Immutable: an op object is shared by the tape, the
/// graph and whoever made it. To add an op: derive, implement the pure functions, offer a free
/// function that calls `apply`, and add the header to the umbrella's list.
class Op {
 public:
  virtual ~Op() = default;

  /// The name used in messages, graphs and patterns: the free function's, "conv_transpose2d".
  virtual std::string_view name() const = 0;
  /// Everything that distinguishes two ops of one name.
  virtual Attributes attributes() const { return {}; }
  /// Checks the inputs and says what the outputs will be. The only place that reports a shape
  /// error; the message begins with the op's name.
  virtual std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const = 0;
  /// Computes outputs of the specs that `infer` gave, on the inputs' device. Outputs may be views
  /// of the inputs. No history is recorded here.
  virtual std::vector<Tensor> forward(std::span<const Tensor> inputs,
                                      std::span<const TensorSpec> outputs) const = 0;

  /// What `backward` needs kept, when gradients of the inputs in `needs_grad` are wanted.
  virtual Saved saved(IndexMask /*needs_grad*/) const { return {}; }
  /// The gradients of the inputs from those of the outputs (always defined here), written with
  /// ops, so that it runs on every device and has a derivative itself. An undefined tensor stands
  /// for a gradient that is zero or not wanted.
  virtual std::vector<Tensor> backward(const BackwardContext& context,
                                       std::span<const Tensor> grad_outputs) const;
  /// False for ops through which no gradient flows (comparisons, argmax, detach).
  virtual bool differentiable() const { return true; }
  /// False for ops that draw random numbers or change a tensor: they are neither merged with an
  /// equal one nor dropped when their result is unused.
  virtual bool pure() const { return true; }
};

/// True when both have the same name and attributes.
bool same_op(const Op& a, const Op& b);

/// Runs `op` on `inputs`: the one way in which anything is ever computed.
/// 1. infers the outputs' specs, which checks the inputs; 2. while a trace is active, records a
/// node and computes nothing; 3. otherwise runs the forward; 4. when an input needs a gradient,
/// hangs a node on the tape.
std::vector<Tensor> call(std::shared_ptr<const Op> op, std::span<const Tensor> inputs);

/// `call` for ops with one output.
template <class OpType>
Tensor apply(OpType op, std::initializer_list<Tensor> inputs) {
  return std::move(call(detail::make_recycled<OpType>(std::move(op)),
                        std::span<const Tensor>(inputs.begin(), inputs.size()))[0]);
}

template <class OpType>
Tensor apply(OpType op, std::span<const Tensor> inputs) {
  return std::move(call(detail::make_recycled<OpType>(std::move(op)), inputs)[0]);
}

/// Where `call` sends ops while a trace is active. The graph compiler implements it; at most one
/// is active per thread.
class TraceSink {
 public:
  virtual ~TraceSink() = default;
  /// Records `op` and returns shape-only tensors for its outputs.
  virtual std::vector<Tensor> record(std::shared_ptr<const Op> op, std::span<const Tensor> inputs,
                                     std::span<const TensorSpec> outputs) = 0;
};

/// Makes `sink` the active trace of this thread for the guard's lifetime.
class TraceGuard {
 public:
  explicit TraceGuard(TraceSink& sink);
  ~TraceGuard();
  TraceGuard(const TraceGuard&) = delete;
  TraceGuard& operator=(const TraceGuard&) = delete;

 private:
  TraceSink* previous_;
};

/// True while this thread traces.
bool is_tracing();

}  // namespace tenon
