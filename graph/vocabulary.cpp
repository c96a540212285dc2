// The words of the pattern language.
#include <cmath>
#include <limits>

#include "tenon/graph/pattern.h"
#include "tenon/graph/pattern_nodes.h"

namespace tenon::graph {
namespace {

using detail::LeafPattern;
using detail::NumberPattern;
using tenon::detail::concat;
using Scalars = std::map<std::string, double>;
using Refusal = std::optional<std::string>;

template <class NodeType, class... Arguments>
Pattern make(Arguments&&... arguments) {
  return Pattern(std::make_shared<const NodeType>(std::forward<Arguments>(arguments)...));
}

Refusal refuse_nan(double number) {
  if (std::isnan(number)) return "its number is NaN";
  return std::nullopt;
}

/// The op that is a function of a tensor and a number on the given side, the number unchanged.
Pattern number_op(const std::string& name, const Pattern& operand, const ScalarSlot& slot,
                  bool on_left) {
  const auto read = [=](const Op& op, Scalars& scalars) -> Refusal {
    const std::optional<NumberOperand> number = number_operand(op);
    if (!number.has_value()) return "it takes no number";
    if (number->on_left != on_left) {
      return concat("its number is on the ", on_left ? "right" : "left");
    }
    scalars[slot.name] = number->value;
    return refuse_nan(number->value);
  };
  return make<NumberPattern>(std::vector<std::string>{name}, operand, read);
}

/// Two ways to write one thing.
Pattern spellings(const Pattern& first, const Pattern& second) {
  return make<detail::AnyOfPattern>(std::vector<Pattern>{first, second}, true);
}

}  // namespace

Pattern Pattern::where(std::string condition, NodeTest test) const {
  return make<detail::WherePattern>(*this, std::move(condition), std::move(test));
}

Pattern any(std::string name) {
  return make<LeafPattern>(std::move(name), LeafPattern::Accepts::All, false);
}

Pattern optional(std::string name) {
  return make<LeafPattern>(std::move(name), LeafPattern::Accepts::All, true);
}

Pattern captured(std::string name) {
  return make<LeafPattern>(std::move(name), LeafPattern::Accepts::Captured, false);
}

Pattern computed(std::string name) {
  return make<LeafPattern>(std::move(name), LeafPattern::Accepts::Computed, false);
}

ScalarSlot scalar(std::string name) { return {std::move(name)}; }

Pattern operator|(const Pattern& first, const Pattern& second) {
  return make<detail::AnyOfPattern>(std::vector<Pattern>{first, second});
}

Pattern maybe(const Pattern& step) { return make<detail::MaybePattern>(step); }

Pattern op(std::string name, std::vector<Pattern> operands) {
  TENON_CHECK(!operands.empty(), "pattern: op(\"", name, "\") needs at least one operand");
  return make<detail::OpPattern>(std::move(name), std::move(operands), false);
}

Pattern op(std::string name, const Pattern& operand, const ScalarSlot& number) {
  return number_op(name, operand, number, false);
}

Pattern op(std::string name, const ScalarSlot& number, const Pattern& operand) {
  return number_op(name, operand, number, true);
}

Pattern add(const Pattern& a, const Pattern& b) {
  return make<detail::OpPattern>("add", std::vector<Pattern>{a, b}, true);
}

Pattern add(const Pattern& a, const ScalarSlot& slot) {
  const auto read = [slot](const Op& op, Scalars& scalars) -> Refusal {
    const std::optional<NumberOperand> number = number_operand(op);
    if (!number.has_value()) return "it adds no number";
    const bool subtracts = op.name() == "sub";
    if (subtracts && number->on_left) {
      return concat("it subtracts from ", number->value, " instead of adding a number");
    }
    scalars[slot.name] = subtracts ? -number->value : number->value;
    return refuse_nan(number->value);
  };
  return make<NumberPattern>(std::vector<std::string>{"add", "sub"}, a, read);
}

Pattern mul(const Pattern& a, const Pattern& b) {
  return make<detail::OpPattern>("mul", std::vector<Pattern>{a, b}, true);
}

Pattern mul(const Pattern& a, const ScalarSlot& slot) {
  const auto read = [slot](const Op& op, Scalars& scalars) -> Refusal {
    if (op.name() == "neg") {
      scalars[slot.name] = -1;
      return std::nullopt;
    }
    const std::optional<NumberOperand> number = number_operand(op);
    if (!number.has_value()) return "it multiplies by no number";
    const bool divides = op.name() == "div";
    if (divides && number->on_left) {
      return concat("it divides ", number->value, " instead of dividing by a number");
    }
    constexpr double kLargestFactor = 1e30;  // finite in every dtype that is computed with
    if (divides && !(std::abs(1 / number->value) <= kLargestFactor)) {
      return concat("it divides by ", number->value, ", which has no reciprocal to multiply by");
    }
    scalars[slot.name] = divides ? 1 / number->value : number->value;
    return refuse_nan(number->value);
  };
  return make<NumberPattern>(std::vector<std::string>{"mul", "div", "neg"}, a, read);
}

Pattern tanh(const Pattern& x) { return op("tanh", {x}); }

Pattern softplus(const Pattern& x) {
  return op("softplus", {x})
      .where("mish needs softplus with beta 1 and a threshold of at least 20",
             [](const Graph&, const Node& node, const Match&) {
               return detail::number_attribute(*node.op, "beta").value_or(1) == 1 &&
                      detail::number_attribute(*node.op, "threshold").value_or(20) >= 20;
             });
}

Pattern mish(const Pattern& x) { return spellings(op("mish", {x}), mul(x, tanh(softplus(x)))); }

Pattern hardtanh(const Pattern& x) {
  const auto read = [](const Op& op, Scalars& scalars) -> Refusal {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const bool is_relu = op.name() == "relu";
    const double min = detail::number_attribute(op, "min").value_or(is_relu ? 0 : -kInfinity);
    const double max = detail::number_attribute(op, "max").value_or(kInfinity);
    scalars["min"] = min;
    scalars["max"] = max;
    scalars["at_bounds"] = op.name() == "clamp" ? 1 : 0;
    if (!(min < max)) return concat("its lower bound ", min, " is not below its upper bound ", max);
    return std::nullopt;
  };
  return make<NumberPattern>(std::vector<std::string>{"hardtanh", "clamp", "relu"}, x, read);
}

Pattern conv_transpose2d(const Pattern& x, const Pattern& weight, const Pattern& bias) {
  const Pattern convolution = op("conv_transpose2d", {x, weight, bias});
  const auto is_bias = [](const Graph& graph, const Node& node, const Match& bound) {
    const ValueId added = bound.values.at("b_after");
    const ValueId result = node.inputs[node.inputs[0] == added ? 1 : 0];
    const TensorSpec& spec = graph.value(result).spec;
    if (spec.shape.size() != 4 || spec != graph.value(node.outputs[0]).spec) return false;
    const Shape& shape = graph.value(added).spec.shape;
    const std::int64_t channels = spec.shape[1];
    return shape == Shape{channels, 1, 1} || shape == Shape{1, channels, 1, 1};
  };
  const Pattern with_bias =
      add(convolution, any("b_after"))
          .where(
              "a tensor added to a convolution counts as its bias when it is [C, 1, 1] or "
              "[1, C, 1, 1]",
              is_bias);
  return spellings(convolution, with_bias);
}

}  // namespace tenon::graph
