// What patterns are made of. Internal to graph.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tenon/graph/pattern.h"

namespace tenon::graph::detail {

/// What has been bound so far. Copied before a choice, so that a failed branch leaves no trace.
struct Bindings {
  Match match;
  std::set<std::size_t> nodes;                    // positions of the nodes matched
  std::map<const PatternNode*, ValueId> matched;  // one pattern object is one value
};

/// One try of a pattern at a root.
class Attempt {
 public:
  Attempt(const Graph& graph, const UseIndex& uses, Explanation* explanation)
      : graph_(graph), uses_(uses), explanation_(explanation) {}

  /// Matches `pattern` with `id`; `reader` is the node that reads it, null for the root.
  bool run(const PatternNode& pattern, ValueId id, const Node* reader);
  /// The node that computes `id`, or null.
  const Node* producer(ValueId id) const;
  /// Notes why this branch fails; returns false. Of failures after equally many ops the one
  /// `at_the_end` of a subpattern counts more: there all but a condition held.
  bool fail(const std::string& reason, bool at_the_end = false) const;
  /// Notes that `id` should have been computed by `expected`; returns false.
  bool unexpected(ValueId id, const Node* reader, const std::string& expected) const;
  /// Whether nobody outside the match reads a value that would disappear.
  bool inner_values_are_private(ValueId root);

  const Graph& graph() const { return graph_; }
  const UseIndex& uses() const { return uses_; }
  Bindings bindings;
  /// A value of which it is not noted what should have computed it, because another spelling of
  /// what was noted already is being tried.
  std::optional<ValueId> silent;

 private:
  const Graph& graph_;
  const UseIndex& uses_;
  Explanation* explanation_;
};

class PatternNode {
 public:
  virtual ~PatternNode() = default;
  virtual bool match(Attempt& attempt, ValueId id, const Node* reader) const = 0;
  /// What `maybe` goes on with when this step is absent; null where it cannot be.
  virtual const PatternNode* first_operand() const { return nullptr; }
  /// Whether the operand may be missing; binds nothing then.
  virtual bool may_be_missing() const { return false; }
};

/// any(), optional(), captured() and computed().
class LeafPattern : public PatternNode {
 public:
  enum class Accepts { All, Captured, Computed };
  LeafPattern(std::string name, Accepts accepts, bool may_be_missing)
      : name_(std::move(name)), accepts_(accepts), may_be_missing_(may_be_missing) {}
  bool match(Attempt& attempt, ValueId id, const Node* reader) const override;
  bool may_be_missing() const override { return may_be_missing_; }

 private:
  std::string name_;
  Accepts accepts_;
  bool may_be_missing_;
};

/// The first of several that matches. When they are `spellings` of one thing, a failure names the
/// first only.
class AnyOfPattern : public PatternNode {
 public:
  explicit AnyOfPattern(std::vector<Pattern> choices, bool spellings = false)
      : choices_(std::move(choices)), spellings_(spellings) {}
  bool match(Attempt& attempt, ValueId id, const Node* reader) const override;
  const PatternNode* first_operand() const override {
    return choices_.front().node().first_operand();
  }

 private:
  std::vector<Pattern> choices_;
  bool spellings_;
};

class MaybePattern : public PatternNode {
 public:
  explicit MaybePattern(Pattern step);
  bool match(Attempt& attempt, ValueId id, const Node* reader) const override;
  const PatternNode* first_operand() const override { return step_.node().first_operand(); }

 private:
  Pattern step_;
};

/// A condition on the node that another pattern matched.
class WherePattern : public PatternNode {
 public:
  WherePattern(Pattern inner, std::string condition, NodeTest test)
      : inner_(std::move(inner)), condition_(std::move(condition)), test_(std::move(test)) {}
  bool match(Attempt& attempt, ValueId id, const Node* reader) const override;
  const PatternNode* first_operand() const override { return inner_.node().first_operand(); }

 private:
  Pattern inner_;
  std::string condition_;
  NodeTest test_;
};

/// An op of tensors.
class OpPattern : public PatternNode {
 public:
  OpPattern(std::string name, std::vector<Pattern> operands, bool commutes)
      : name_(std::move(name)), operands_(std::move(operands)), commutes_(commutes) {}
  bool match(Attempt& attempt, ValueId id, const Node* reader) const override;
  const PatternNode* first_operand() const override { return &operands_.front().node(); }

 private:
  bool match_operands(Attempt& attempt, const Node& node, bool swapped) const;

  std::string name_;
  std::vector<Pattern> operands_;
  bool commutes_;
};

/// An op of one tensor that binds numbers taken from its attributes.
class NumberPattern : public PatternNode {
 public:
  /// Adds what it reads from the op to `scalars`; a sentence when the op is not what is meant.
  using Read = std::function<std::optional<std::string>(const Op&, std::map<std::string, double>&)>;
  NumberPattern(std::vector<std::string> names, Pattern operand, Read read)
      : names_(std::move(names)), operand_(std::move(operand)), read_(std::move(read)) {}
  bool match(Attempt& attempt, ValueId id, const Node* reader) const override;
  const PatternNode* first_operand() const override { return &operand_.node(); }

 private:
  bool explain_tensor_operand(Attempt& attempt, const Node& node) const;

  std::vector<std::string> names_;
  Pattern operand_;
  Read read_;
};

/// The attribute called `name` as a number; nothing when there is none.
std::optional<double> number_attribute(const Op& op, const std::string& name);

/// "add (%6)" for a value that a node computes, "%x, an input of the graph," for another.
std::string describe(const Graph& graph, const UseIndex& uses, ValueId id);

}  // namespace tenon::graph::detail
