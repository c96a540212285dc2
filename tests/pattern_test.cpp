// The matcher: what patterns match, what they bind, and what they say when they do not match.
#include "tenon/graph/pattern.h"

#include <gtest/gtest.h>

#include <limits>

#include "graph_models.h"
#include "tenon/graph/trace.h"
#include "tenon/ops/softmax.h"

namespace tenon::graph {
namespace {

using namespace tenon::graph::testing;  // NOLINT

using Function = std::function<Tensor(const Tensor&)>;

/// Matches `pattern` with the result of `function`, traced for a float64[2, 3].
struct Matched {
  Graph graph;
  std::optional<Match> match;
  std::string why;

  Matched(const Pattern& pattern, const Function& function) {
    const std::vector<TensorSpec> inputs = {{{2, 3}, DType::Float64, Device::cpu()}};
    graph = trace([&](std::span<const Tensor> in) { return std::vector<Tensor>{function(in[0])}; },
                  inputs);
    const UseIndex uses(graph);
    Explanation explanation;
    match = graph::match(pattern, graph, uses, graph.outputs()[0], &explanation);
    why = explanation.reason();
  }
};

TEST(Pattern, BindsValuesNumbersAndNodes) {
  const Matched found(mul(tanh(any("x")), scalar("s")),
                      [](const Tensor& x) { return ops::tanh(ops::sigmoid(x)) * 3.0; });
  ASSERT_TRUE(found.match.has_value()) << found.why;
  EXPECT_EQ(found.match->root, 3u);
  EXPECT_EQ(found.match->values.at("x"), 1u);
  EXPECT_EQ(found.match->scalars.at("s"), 3);
  EXPECT_EQ(found.match->nodes, (std::vector<std::size_t>{1, 2}));
  EXPECT_EQ(found.match->ops.at("tanh")->name(), "tanh");
}

TEST(Pattern, SaysWhatItFoundInPlaceOfTheRoot) {
  const Matched found(tanh(any("x")), [](const Tensor& x) { return ops::sigmoid(x); });
  EXPECT_FALSE(found.match.has_value());
  EXPECT_EQ(found.why, "the root is sigmoid (%1), where the pattern has tanh");
}

TEST(Pattern, SaysWhatItFoundInPlaceOfAnOperand) {
  const Matched found(tanh(mish(any("x"))), [](const Tensor& x) { return ops::tanh(x); });
  EXPECT_EQ(found.why, "tanh (%1) reads %x, an input, where the pattern has mish");
}

TEST(Pattern, AddAndMulMatchEitherOrderOfTheirOperands) {
  const Pattern x = any("x");
  const Pattern sum = add(tanh(x), op("sigmoid", {any("y")}));
  for (const Function& function :
       {Function([](const Tensor& t) { return ops::add(ops::tanh(t), ops::sigmoid(t)); }),
        Function([](const Tensor& t) { return ops::add(ops::sigmoid(t), ops::tanh(t)); })}) {
    EXPECT_TRUE(Matched(sum, function).match.has_value());
  }
  const Pattern product = mul(tanh(x), op("sigmoid", {any("y")}));
  EXPECT_TRUE(Matched(product, [](const Tensor& t) {
                return ops::mul(ops::sigmoid(t), ops::tanh(t));
              }).match.has_value());
}

TEST(Pattern, AnOpByNameKeepsTheOrderOfItsOperands) {
  const Pattern pattern = op("sub", {tanh(any("x")), any("y")});
  EXPECT_TRUE(Matched(pattern, [](const Tensor& t) {
                return ops::sub(ops::tanh(t), t);
              }).match.has_value());
  const Matched other(pattern, [](const Tensor& t) { return ops::sub(t, ops::tanh(t)); });
  EXPECT_FALSE(other.match.has_value());
  EXPECT_EQ(other.why, "sub (%2) reads %x, an input, where the pattern has tanh");
}

TEST(Pattern, OnePatternObjectIsOneValue) {
  const Pattern y = any("y");
  const Pattern swish = mul(y, op("sigmoid", {y}));
  EXPECT_TRUE(Matched(swish, [](const Tensor& t) {
                return ops::mul(t, ops::sigmoid(t));
              }).match.has_value());
  const Matched other(swish, [](const Tensor& t) {
    const Tensor a = ops::tanh(t);
    return ops::mul(a, ops::sigmoid(t));
  });
  EXPECT_FALSE(other.match.has_value());
  EXPECT_NE(other.why.find("would have to be one value"), std::string::npos) << other.why;
}

TEST(Pattern, TwoPatternObjectsOfOneNameAreTwoValues) {
  EXPECT_TRUE(Matched(mul(any("y"), op("sigmoid", {any("y")})), [](const Tensor& t) {
                const Tensor a = ops::tanh(t);
                return ops::mul(a, ops::sigmoid(t));
              }).match.has_value());
}

TEST(Pattern, ChoosesTheFirstAlternativeThatMatches) {
  const Pattern either = tanh(any("a")) | op("sigmoid", {any("b")});
  const Matched found(either, [](const Tensor& t) { return ops::sigmoid(t); });
  ASSERT_TRUE(found.match.has_value());
  EXPECT_FALSE(found.match->values.contains("a")) << "a failed branch leaves nothing bound";
  EXPECT_TRUE(found.match->values.contains("b"));
  EXPECT_EQ(Matched(either, [](const Tensor& t) { return ops::mish(t); }).why,
            "the root is mish (%1), where the pattern has tanh or sigmoid");
}

TEST(Pattern, MaybeMatchesWithAndWithoutTheStep) {
  const Pattern pattern = tanh(maybe(add(op("sigmoid", {any("x")}), scalar("a"))));
  const Matched with(pattern, [](const Tensor& t) { return ops::tanh(ops::sigmoid(t) + 2.0); });
  ASSERT_TRUE(with.match.has_value()) << with.why;
  EXPECT_EQ(with.match->scalars.at("a"), 2);
  const Matched without(pattern, [](const Tensor& t) { return ops::tanh(ops::sigmoid(t)); });
  ASSERT_TRUE(without.match.has_value()) << without.why;
  EXPECT_FALSE(without.match->scalars.contains("a"));
}

TEST(Pattern, MaybeNeedsAStep) { EXPECT_THROW(maybe(any("x")), Error); }

TEST(Pattern, WhereNamesTheConditionThatFailed) {
  const Pattern pattern =
      op("softmax", {any("x")})
          .where("dim must be 0", [](const Graph&, const Node& node, const Match&) {
            return node.op->attributes() == Attributes{{"dim", std::int64_t{0}}};
          });
  EXPECT_TRUE(
      Matched(pattern, [](const Tensor& t) { return ops::softmax(t, 0); }).match.has_value());
  EXPECT_EQ(Matched(pattern, [](const Tensor& t) { return ops::softmax(t, 1); }).why,
            "softmax (%1): dim must be 0");
}

TEST(Pattern, CapturedAndComputedTellConstantsFromTheRest) {
  const Tensor constant = random({2, 3}, 1);
  const Function function = [&](const Tensor& t) { return ops::mul(t, constant); };
  EXPECT_TRUE(Matched(mul(computed("x"), captured("c")), function).match.has_value());
  EXPECT_TRUE(Matched(mul(captured("c"), computed("x")), function).match.has_value());
  EXPECT_EQ(Matched(op("mul", {captured("c"), any("x")}), function).why,
            "mul (%2) reads %x, an input, where the pattern has a parameter or constant");
  EXPECT_EQ(Matched(op("mul", {any("x"), computed("c")}), function).why,
            "mul (%2) reads %c1, a constant, where the pattern has a computed value");
}

TEST(Pattern, RefusesAnInnerValueWithAnotherReader) {
  const Matched found(add(tanh(op("sigmoid", {any("x")})), any("y")), [](const Tensor& t) {
    const Tensor s = ops::sigmoid(t);
    const Tensor first = ops::tanh(s);
    return ops::add(first, ops::mish(s));
  });
  EXPECT_FALSE(found.match.has_value());
  EXPECT_EQ(found.why, "sigmoid (%1) has another reader, mish (%3)");
}

TEST(Pattern, RefusesAnInnerValueThatIsAnOutput) {
  const std::vector<TensorSpec> inputs = {{{2}, DType::Float64, Device::cpu()}};
  const Graph graph = trace(
      [](std::span<const Tensor> in) {
        const Tensor s = ops::sigmoid(in[0]);
        return std::vector<Tensor>{ops::tanh(s), s};
      },
      inputs);
  const UseIndex uses(graph);
  Explanation why;
  EXPECT_FALSE(match(tanh(op("sigmoid", {any("x")})), graph, uses, graph.outputs()[0], &why));
  EXPECT_EQ(why.reason(), "sigmoid (%1) is itself an output of the graph");
}

TEST(Pattern, AllowsAnotherReaderOfTheRootAndOfTheLeaves) {
  const std::vector<TensorSpec> inputs = {{{2}, DType::Float64, Device::cpu()}};
  const Graph graph = trace(
      [](std::span<const Tensor> in) {
        const Tensor s = ops::sigmoid(in[0]);
        const Tensor t = ops::tanh(s);
        return std::vector<Tensor>{t, ops::mish(t), s};
      },
      inputs);
  const UseIndex uses(graph);
  EXPECT_TRUE(match(tanh(any("x")), graph, uses, graph.outputs()[0]).has_value());
}

TEST(Pattern, RefusesATensorWhereANumberShouldBe) {
  const Tensor constant = random({3}, 1);
  const Matched found(add(tanh(any("x")), scalar("a")),
                      [&](const Tensor& t) { return ops::add(constant, ops::tanh(t)); });
  EXPECT_EQ(found.why, "add (%3): %c2 is a tensor float64[3], not a number") << found.graph;
}

TEST(Pattern, RefusesANumberWhereATensorShouldBe) {
  const Matched found(add(tanh(any("x")), any("y")),
                      [](const Tensor& t) { return ops::tanh(t) + 2.0; });
  EXPECT_EQ(found.why, "add (%2) has 1 tensor operands, the pattern 2");
}

TEST(Pattern, ReadsANumberFromEveryWayToWriteIt) {
  const auto number_of = [](const Pattern& pattern, const Function& function) {
    const Matched found(pattern, function);
    return found.match.has_value() ? found.match->scalars.at("n")
                                   : std::numeric_limits<double>::quiet_NaN();
  };
  const Pattern sum = add(any("x"), scalar("n"));
  EXPECT_EQ(number_of(sum, [](const Tensor& t) { return t + 2.0; }), 2);
  EXPECT_EQ(number_of(sum, [](const Tensor& t) { return 2 + t; }), 2);
  EXPECT_EQ(number_of(sum, [](const Tensor& t) { return t - 2.0; }), -2);
  const Pattern product = mul(scalar("n"), any("x"));
  EXPECT_EQ(number_of(product, [](const Tensor& t) { return t * 4.0; }), 4);
  EXPECT_EQ(number_of(product, [](const Tensor& t) { return 4 * t; }), 4);
  EXPECT_EQ(number_of(product, [](const Tensor& t) { return t / 4.0; }), 0.25);
  EXPECT_EQ(number_of(product, [](const Tensor& t) { return -t; }), -1);
  EXPECT_EQ(number_of(op("div", scalar("n"), any("x")), [](const Tensor& t) { return 8.0 / t; }),
            8);
  EXPECT_EQ(number_of(op("div", any("x"), scalar("n")), [](const Tensor& t) { return t / 8.0; }),
            8);
}

TEST(Pattern, AnOpByNameMindsTheSideOfItsNumber) {
  const Matched found(op("sub", any("x"), scalar("n")), [](const Tensor& t) { return 1.0 - t; });
  EXPECT_EQ(found.why, "sub (%1): its number is on the left");
}

TEST(Pattern, ReadsTheBoundsAndTheirGradientRule) {
  const double infinity = std::numeric_limits<double>::infinity();
  const auto expect_bounds = [](const Function& function, double min, double max, double at) {
    const Matched found(hardtanh(any("x")), function);
    ASSERT_TRUE(found.match.has_value()) << found.why;
    EXPECT_EQ(found.match->scalars.at("min"), min);
    EXPECT_EQ(found.match->scalars.at("max"), max);
    EXPECT_EQ(found.match->scalars.at("at_bounds"), at);
  };
  expect_bounds([](const Tensor& t) { return ops::hardtanh(t, -2, 3); }, -2, 3, 0);
  expect_bounds([](const Tensor& t) { return ops::clamp(t, -2, 3); }, -2, 3, 1);
  expect_bounds([](const Tensor& t) { return ops::clamp(t, -2); }, -2, infinity, 1);
  expect_bounds([](const Tensor& t) { return ops::clamp(t, std::nullopt, 3); }, -infinity, 3, 1);
  expect_bounds([](const Tensor& t) { return ops::relu(t); }, 0, infinity, 0);
}

TEST(Pattern, MaximumIsNoClampBecauseItSharesTheGradientOfATie) {
  const Tensor zero = zeros({2, 3}, {.dtype = DType::Float64});
  EXPECT_EQ(Matched(hardtanh(any("x")), [&](const Tensor& t) { return ops::maximum(t, zero); }).why,
            "the root is maximum (%2), where the pattern has hardtanh");
}

TEST(Pattern, MatchesMishInBothSpellings) {
  const Pattern pattern = mish(any("x"));
  EXPECT_TRUE(Matched(pattern, [](const Tensor& t) { return ops::mish(t); }).match.has_value());
  EXPECT_TRUE(Matched(pattern, [](const Tensor& t) {
                return ops::mul(t, ops::tanh(ops::softplus(t)));
              }).match.has_value());
  EXPECT_EQ(
      Matched(pattern, [](const Tensor& t) { return ops::mul(t, ops::tanh(ops::softplus(t, 2))); })
          .why,
      "softplus (%1): mish needs softplus with beta 1 and a threshold of at least 20");
}

TEST(Explanation, KeepsTheAttemptThatCameFurthestAndTheFirstOfEquals) {
  Explanation why;
  EXPECT_EQ(why.reason(), "");
  EXPECT_FALSE(why.came_past_root());
  why.fail(1, "near");
  why.fail(3, "far");
  why.fail(3, "as far");
  why.fail(2, "nearer");
  EXPECT_EQ(why.reason(), "far");
  EXPECT_TRUE(why.came_past_root());
}

}  // namespace
}  // namespace tenon::graph
