#include "tenon/graph/pattern.h"

#include <algorithm>
#include <cmath>

#include "tenon/graph/pattern_nodes.h"

namespace tenon::graph {

using tenon::detail::concat;

// ---- explanations -------------------------------------------------------------------------------

void Explanation::fail(std::size_t progress, const std::string& reason) {
  if (any_ && progress <= progress_) return;
  any_ = true;
  progress_ = progress;
  reason_ = reason;
  expected_.clear();
}

void Explanation::unexpected(std::size_t progress, const std::string& where,
                             const std::string& expected) {
  const bool same_place = any_ && progress == progress_ && !expected_.empty() && reason_ == where;
  if (!same_place) {
    if (any_ && progress <= progress_) return;
    fail(progress, where);
  }
  if (std::find(expected_.begin(), expected_.end(), expected) == expected_.end()) {
    expected_.push_back(expected);
  }
}

std::string Explanation::reason() const {
  if (expected_.empty()) return reason_;
  std::string names;
  for (std::size_t i = 0; i < expected_.size(); ++i) {
    const bool last = i + 1 == expected_.size();
    names += (i == 0 ? "" : last ? " or " : ", ") + expected_[i];
  }
  return reason_ + ", where the pattern has " + names;
}

namespace detail {

std::string describe(const Graph& graph, const UseIndex& uses, ValueId id) {
  const std::size_t position = uses.producer(id);
  if (position != UseIndex::kNone) return node_label(graph, graph.nodes()[position]);
  const ValueKind kind = graph.value(id).kind;
  return concat(value_label(graph, id), kind == ValueKind::Input       ? ", an input"
                                        : kind == ValueKind::Parameter ? ", a parameter"
                                                                       : ", a constant");
}

// ---- one attempt --------------------------------------------------------------------------------

const Node* Attempt::producer(ValueId id) const {
  const std::size_t position = uses_.producer(id);
  return position == UseIndex::kNone ? nullptr : &graph_.nodes()[position];
}

bool Attempt::fail(const std::string& reason, bool at_the_end) const {
  const std::size_t progress = 2 * bindings.nodes.size() + (at_the_end ? 1 : 0);
  if (explanation_ != nullptr) explanation_->fail(progress, reason);
  return false;
}

bool Attempt::unexpected(ValueId id, const Node* reader, const std::string& expected) const {
  if (explanation_ == nullptr || silent == id) return false;
  const std::string found = describe(graph_, uses_, id);
  explanation_->unexpected(2 * bindings.nodes.size(),
                           reader == nullptr
                               ? concat("the root is ", found)
                               : concat(node_label(graph_, *reader), " reads ", found),
                           expected);
  return false;
}

bool Attempt::run(const PatternNode& pattern, ValueId id, const Node* reader) {
  const auto before = bindings.matched.find(&pattern);
  if (before != bindings.matched.end()) {
    if (before->second == id) return true;
    return fail(concat(value_label(graph_, id), " and ", value_label(graph_, before->second),
                       " would have to be one value"));
  }
  if (!pattern.match(*this, id, reader)) return false;
  bindings.matched.emplace(&pattern, id);
  return true;
}

bool Attempt::inner_values_are_private(ValueId root) {
  for (const std::size_t position : bindings.nodes) {
    for (const ValueId id : graph_.nodes()[position].outputs) {
      if (id == root) continue;
      const std::string value = describe(graph_, uses_, id);
      if (uses_.is_output(id)) return fail(value + " is itself an output of the graph", true);
      for (const std::size_t reader : uses_.readers(id)) {
        if (bindings.nodes.contains(reader)) continue;
        return fail(
            concat(value, " has another reader, ", node_label(graph_, graph_.nodes()[reader])),
            true);
      }
    }
  }
  return true;
}

// ---- kinds of patterns --------------------------------------------------------------------------

namespace {

/// Notes that the pattern matched `node`; false when gradients are on in one part of the match and
/// off in another.
bool enter(Attempt& attempt, ValueId id, const Node& node) {
  Bindings& bindings = attempt.bindings;
  if (!bindings.nodes.empty()) {
    const Node& other = attempt.graph().nodes()[*bindings.nodes.begin()];
    if (other.no_grad != node.no_grad) {
      return attempt.fail(concat(
          node_label(attempt.graph(), node.no_grad ? node : other), " runs without gradients, ",
          node_label(attempt.graph(), node.no_grad ? other : node), " with them"));
    }
  }
  bindings.nodes.insert(attempt.uses().producer(id));
  bindings.match.ops.emplace(std::string(node.op->name()), node.op);
  return true;
}

}  // namespace

bool LeafPattern::match(Attempt& attempt, ValueId id, const Node* reader) const {
  const ValueKind kind = attempt.graph().value(id).kind;
  const bool is_captured = kind == ValueKind::Parameter || kind == ValueKind::Constant;
  if (accepts_ == Accepts::Captured && !is_captured) {
    return attempt.unexpected(id, reader, "a parameter or constant");
  }
  if (accepts_ == Accepts::Computed && is_captured) {
    return attempt.unexpected(id, reader, "a computed value");
  }
  attempt.bindings.match.values[name_] = id;
  return true;
}

bool AnyOfPattern::match(Attempt& attempt, ValueId id, const Node* reader) const {
  const std::optional<ValueId> silent_before = attempt.silent;
  bool matched = false;
  for (std::size_t i = 0; i < choices_.size() && !matched; ++i) {
    Bindings before = attempt.bindings;
    if (spellings_ && i > 0) attempt.silent = id;
    matched = attempt.run(choices_[i].node(), id, reader);
    attempt.silent = silent_before;
    if (!matched) attempt.bindings = std::move(before);
  }
  return matched;
}

MaybePattern::MaybePattern(Pattern step) : step_(std::move(step)) {
  TENON_CHECK(step_.node().first_operand() != nullptr,
              "pattern: maybe() takes a step on an operand, such as maybe(mish(x)), not a leaf");
}

bool MaybePattern::match(Attempt& attempt, ValueId id, const Node* reader) const {
  Bindings before = attempt.bindings;
  if (attempt.run(step_.node(), id, reader)) return true;
  attempt.bindings = std::move(before);
  return attempt.run(*step_.node().first_operand(), id, reader);
}

bool WherePattern::match(Attempt& attempt, ValueId id, const Node* reader) const {
  if (!attempt.run(inner_.node(), id, reader)) return false;
  const Node* node = attempt.producer(id);
  if (node != nullptr && test_(attempt.graph(), *node, attempt.bindings.match)) return true;
  return attempt.fail(concat(describe(attempt.graph(), attempt.uses(), id), ": ", condition_),
                      true);
}

bool OpPattern::match(Attempt& attempt, ValueId id, const Node* reader) const {
  const Node* node = attempt.producer(id);
  if (node == nullptr || node->op->name() != name_) return attempt.unexpected(id, reader, name_);
  const std::size_t given = node->inputs.size();
  const std::size_t required =
      operands_.size() - (operands_.back().node().may_be_missing() ? 1 : 0);
  if (given < required || given > operands_.size()) {
    return attempt.fail(concat(node_label(attempt.graph(), *node), " has ", given,
                               " tensor operands, the pattern ", operands_.size()));
  }
  if (!enter(attempt, id, *node)) return false;
  Bindings before = attempt.bindings;
  if (match_operands(attempt, *node, false)) return true;
  attempt.bindings = std::move(before);
  return commutes_ && given == 2 && match_operands(attempt, *node, true);
}

bool OpPattern::match_operands(Attempt& attempt, const Node& node, bool swapped) const {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    const ValueId operand = node.inputs[swapped ? 1 - i : i];
    if (!attempt.run(operands_[i].node(), operand, &node)) return false;
  }
  return true;
}

bool NumberPattern::match(Attempt& attempt, ValueId id, const Node* reader) const {
  const Node* node = attempt.producer(id);
  const std::string name(node == nullptr ? "" : node->op->name());
  if (std::find(names_.begin(), names_.end(), name) == names_.end()) {
    return attempt.unexpected(id, reader, names_.front());
  }
  if (node->inputs.size() != 1) return explain_tensor_operand(attempt, *node);
  std::map<std::string, double> scalars = attempt.bindings.match.scalars;
  const std::optional<std::string> refusal = read_(*node->op, scalars);
  if (!enter(attempt, id, *node)) return false;
  if (!attempt.run(operand_.node(), node->inputs[0], node)) return false;
  if (refusal.has_value()) {
    return attempt.fail(concat(node_label(attempt.graph(), *node), ": ", *refusal), true);
  }
  for (const auto& [key, value] : scalars) attempt.bindings.match.scalars[key] = value;
  return true;
}

/// Finds out which operand is the one that should have been a number. Fails in any case.
bool NumberPattern::explain_tensor_operand(Attempt& attempt, const Node& node) const {
  const Bindings before = attempt.bindings;
  for (std::size_t i = 0; i < node.inputs.size() && node.inputs.size() == 2; ++i) {
    attempt.bindings = before;
    attempt.bindings.nodes.insert(attempt.uses().producer(node.outputs[0]));
    if (attempt.run(operand_.node(), node.inputs[i], &node)) {
      const ValueId other = node.inputs[1 - i];
      return attempt.fail(concat(node_label(attempt.graph(), node), ": ",
                                 value_label(attempt.graph(), other), " is a tensor ",
                                 attempt.graph().value(other).spec, ", not a number"));
    }
  }
  return false;
}

std::optional<double> number_attribute(const Op& op, const std::string& name) {
  for (const Attribute& attribute : op.attributes()) {
    if (attribute.name != name) continue;
    if (const auto* real = std::get_if<double>(&attribute.value)) return *real;
    if (const auto* whole = std::get_if<std::int64_t>(&attribute.value)) {
      return static_cast<double>(*whole);
    }
    if (const auto* flag = std::get_if<bool>(&attribute.value)) return *flag ? 1.0 : 0.0;
  }
  return std::nullopt;
}

}  // namespace detail

// ---- matching -----------------------------------------------------------------------------------

std::optional<Match> match(const Pattern& pattern, const Graph& graph, const UseIndex& uses,
                           ValueId root, Explanation* explanation) {
  detail::Attempt attempt(graph, uses, explanation);
  if (!attempt.run(pattern.node(), root, nullptr)) return std::nullopt;
  if (!attempt.inner_values_are_private(root)) return std::nullopt;
  Match found = std::move(attempt.bindings.match);
  found.root = root;
  found.nodes.assign(attempt.bindings.nodes.begin(), attempt.bindings.nodes.end());
  return found;
}

std::optional<NumberOperand> number_operand(const Op& op) {
  const std::optional<double> value = detail::number_attribute(op, "scalar");
  if (!value.has_value()) return std::nullopt;
  return NumberOperand{*value, detail::number_attribute(op, "reversed").value_or(0) != 0};
}

}  // namespace tenon::graph
