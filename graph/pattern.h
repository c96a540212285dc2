// Patterns: what to look for in a graph, written like the model that made it.
//
// Five values of a model, and the pattern that finds them whatever their numbers:
//
//     Tensor h = ops::hardtanh(ops::mish(up1(x)) + 0.5) * 2.0;
//
//     auto x = any("x"), w = any("w"), b = optional("b");
//     auto block = mul(hardtanh(add(mish(conv_transpose2d(x, w, b)), scalar("add"))),
//                      scalar("scale"));
//
//     std::optional<Match> found = match(block, graph, uses, h_id);
//     found->values.at("w");       // the value that the weight is
//     found->scalars.at("add");    // 0.5
//     found->scalars.at("min");    // -1, which hardtanh binds, as it does "max"
//
// The words mean what the operation means, not how it was spelled:
//
//     mul(p, scalar("s"))          p * 2, 2 * p, p / 4 (binds 1/4), -p (binds -1)
//     add(p, scalar("a"))          p + 1, 1 + p, p - 1 (binds -1)
//     mish(p)                      ops::mish(p), and p * tanh(softplus(p)) in either order
//     hardtanh(p)                  hardtanh, clamp (with one bound, too), relu; "at_bounds" is 1
//                                  where the gradient passes at the bounds, as clamp's does
//     conv_transpose2d(x, w, b)    with or without the bias when b is optional(); a tensor
//                                  [C, 1, 1] or [1, C, 1, 1] added to it is bound to "b_after"
//
// They combine:
//
//     relu_or_gelu = relu(p) | gelu(p)                   the first that matches
//     maybe(add(p, scalar("a")))                         p + a, or p alone: the step may be absent
//     op("softmax", {p}).where("dim must be 1", test)    any op by its name, with a condition
//     auto y = any("y"); mul(y, sigmoid(y))              one pattern object is one value: y * σ(y)
//
// A match also needs that nobody outside it reads what would disappear: an inner value with another
// reader, or one that the graph returns, refuses it. And a match that fails says why:
//
//     Explanation why;
//     match(block, graph, uses, h_id, &why);
//     why.reason();     // "add (%6): %t is a tensor float32[64, 1, 1], not a number"
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tenon/graph/ir.h"

namespace tenon::graph {

namespace detail {
class PatternNode;
}

/// Why a match failed: the reason of the attempt that came furthest.
class Explanation {
 public:
  /// One sentence in the words of the graph; empty when nothing failed.
  std::string reason() const;
  /// Whether an attempt got past its root: whether something like the pattern is there at all.
  bool came_past_root() const { return progress_ > 0; }

  /// Notes a failure after `progress` ops had matched; the first of equals is kept.
  void fail(std::size_t progress, const std::string& reason);
  /// Notes that `where` should have been computed by `expected`; the expectations of attempts that
  /// failed at the same place are told together.
  void unexpected(std::size_t progress, const std::string& where, const std::string& expected);

 private:
  bool any_ = false;
  std::size_t progress_ = 0;
  std::string reason_;                 // of `fail`; of `unexpected`, the place
  std::vector<std::string> expected_;  // of `unexpected`
};

/// What a pattern found.
struct Match {
  ValueId root = 0;
  std::map<std::string, ValueId> values;                 ///< of any() and optional()
  std::map<std::string, double> scalars;                 ///< of scalar() and the bounds
  std::map<std::string, std::shared_ptr<const Op>> ops;  ///< by the op's name
  std::vector<std::size_t> nodes;                        ///< positions in the graph, ascending
};

/// A condition on the node that a pattern matched; `bound` has what is bound so far.
using NodeTest = std::function<bool(const Graph& graph, const Node& node, const Match& bound)>;

/// An expression to match. Value-typed; copies are the same expression, which matches one value.
class Pattern {
 public:
  explicit Pattern(std::shared_ptr<const detail::PatternNode> node) : node_(std::move(node)) {}

  /// This pattern, where `test` holds for the node it matched; `condition` says in words what
  /// was missing: "beta must be 1".
  Pattern where(std::string condition, NodeTest test) const;
  const detail::PatternNode& node() const { return *node_; }
  const std::shared_ptr<const detail::PatternNode>& shared() const { return node_; }

 private:
  std::shared_ptr<const detail::PatternNode> node_;
};

/// Where an op takes a number instead of a tensor.
struct ScalarSlot {
  std::string name;
};

// ---- leaves -------------------------------------------------------------------------------------

/// Any value.
Pattern any(std::string name);
/// Any value, or no operand at all; only as the last operand of an op.
Pattern optional(std::string name);
/// Any parameter or constant.
Pattern captured(std::string name);
/// Any value that is not a parameter or constant.
Pattern computed(std::string name);
/// A number, bound as a double.
ScalarSlot scalar(std::string name);

// ---- combinations -------------------------------------------------------------------------------

/// What the first pattern matches, otherwise what the second does.
Pattern operator|(const Pattern& first, const Pattern& second);
/// `step`, or what its first operand matches.
Pattern maybe(const Pattern& step);
/// The op called `name` on these operands, in this order, whatever its attributes.
Pattern op(std::string name, std::vector<Pattern> operands);
/// The op called `name` of a tensor and a number, in this order.
Pattern op(std::string name, const Pattern& operand, const ScalarSlot& number);
/// The same in the other order.
Pattern op(std::string name, const ScalarSlot& number, const Pattern& operand);

// ---- the model's words --------------------------------------------------------------------------

Pattern add(const Pattern& a, const Pattern& b);
Pattern add(const Pattern& a, const ScalarSlot& number);
Pattern mul(const Pattern& a, const Pattern& b);
Pattern mul(const Pattern& a, const ScalarSlot& number);
inline Pattern add(const ScalarSlot& number, const Pattern& a) { return add(a, number); }
inline Pattern mul(const ScalarSlot& number, const Pattern& a) { return mul(a, number); }
Pattern tanh(const Pattern& x);
/// With beta 1 and PyTorch's threshold of 20 or more.
Pattern softplus(const Pattern& x);
Pattern mish(const Pattern& x);
/// Binds the scalars "min", "max" and "at_bounds".
Pattern hardtanh(const Pattern& x);
Pattern conv_transpose2d(const Pattern& x, const Pattern& weight, const Pattern& bias);

// ---- matching -----------------------------------------------------------------------------------

/// Matches `pattern` with the value `root` and what it is computed from. `uses` must be of `graph`.
std::optional<Match> match(const Pattern& pattern, const Graph& graph, const UseIndex& uses,
                           ValueId root, Explanation* explanation = nullptr);

/// The number that `op` takes in place of a tensor, and on which side.
struct NumberOperand {
  double value = 0;
  bool on_left = false;
};
std::optional<NumberOperand> number_operand(const Op& op);

}  // namespace tenon::graph
