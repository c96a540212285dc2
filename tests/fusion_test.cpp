// The fused block: each spelling that it accepts and each reason for which it refuses.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "graph_models.h"

namespace tenon::graph {
namespace {

using namespace tenon::graph::testing;  // NOLINT

using Chain = std::function<Tensor(const Tensor&)>;

/// Runs `module` eagerly and compiled, and expects equal results and gradients of x and of every
/// parameter.
template <class Module>
void expect_equal_to_eager(const Module& module, const CompiledFunction& fast) {
  const Tensor x = block_input(DType::Float64, module.weight.device());
  std::vector<std::vector<Tensor>> runs;
  for (const bool compiled : {false, true}) {
    const Tensor leaf = x.clone();
    leaf.requires_grad_();
    std::vector<Tensor> wanted = {leaf};
    for (const NamedTensor& named : module.named_parameters()) wanted.push_back(named.tensor);
    const Tensor y = compiled ? fast(leaf) : module.forward(leaf);
    std::vector<Tensor> results =
        grad(std::vector<Tensor>{y}, wanted, std::vector<Tensor>{weighted_gradient(y)});
    results.push_back(y.detach());
    runs.push_back(std::move(results));
  }
  for (std::size_t i = 0; i < runs[0].size(); ++i) {
    EXPECT_LT(distance(runs[0][i], runs[1][i]), 1e-11) << "result " << i;
  }
}

struct Variant {
  const char* name;
  Chain chain;
  bool with_bias;
  const char* steps;  // what the fused node stands for
  const char* call;   // a part of the fused node's text
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

class FusedVariant : public ::testing::TestWithParam<Variant> {};

TEST_P(FusedVariant, BecomesOneNodeEqualToEager) {
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(::testing::Message() << device);
    const Variant& variant = GetParam();
    const Block block(variant.chain, DType::Float64, variant.with_bias, device);
    const CompiledFunction fast = compile(block);
    expect_equal_to_eager(block, fast);
    EXPECT_EQ(op_names(fast.graph_after()), "conv_transpose2d_epilogue") << fast.graph_after();
    EXPECT_NE(to_text(fast.graph_after()).find(variant.call), std::string::npos)
        << fast.graph_after();
    EXPECT_NE(fast.report().find(variant.steps), std::string::npos) << fast.report();
    EXPECT_NE(fast.report().find("1 of 1 blocks fused"), std::string::npos) << fast.report();
  }
}

TEST(FusedVariantOnCuda, TakesPart) { TENON_SKIP_WITHOUT_GPU(); }

Tensor spelled_out_mish(const Tensor& y) { return y * ops::tanh(ops::softplus(y)); }

const Variant kVariants[] = {
    {"the_whole_block", [](const Tensor& y) { return ops::hardtanh(ops::mish(y) + 0.5) * 2.0; },
     true, "conv_transpose2d → mish → add 0.5 → hardtanh [-1, 1] → mul 2",
     "mish=true, add=0.5, min=-1, max=1, scale=2, gradient_at_bounds=false"},
    {"numbers_on_the_left", [](const Tensor& y) { return 2.0 * ops::hardtanh(0.5 + ops::mish(y)); },
     true, "mish → add 0.5 → hardtanh [-1, 1] → mul 2", "add=0.5, min=-1, max=1, scale=2"},
    {"without_bias", [](const Tensor& y) { return ops::hardtanh(ops::mish(y) + 0.5) * 2.0; }, false,
     "conv_transpose2d → mish", "conv_transpose2d_epilogue(%x, %up.weight, stride"},
    {"mish_spelled_out",
     [](const Tensor& y) { return ops::hardtanh(spelled_out_mish(y) + 0.5) * 2.0; }, true,
     "conv_transpose2d → mish → add", "mish=true"},
    {"mish_spelled_out_the_other_way",
     [](const Tensor& y) { return ops::tanh(ops::softplus(y)) * y + 0.5; }, true, "mish → add 0.5",
     "mish=true, add=0.5"},
    {"clamp", [](const Tensor& y) { return ops::clamp(ops::mish(y) + 0.5, -1, 1) * 2.0; }, true,
     "clamp [-1, 1]", "gradient_at_bounds=true"},
    {"clamp_with_only_a_lower_bound", [](const Tensor& y) { return ops::clamp(ops::mish(y), 0.1); },
     true, "clamp [0.1, inf]", "min=0.1"},
    {"clamp_with_only_an_upper_bound",
     [](const Tensor& y) { return ops::clamp(ops::mish(y), std::nullopt, 0.25); }, true,
     "clamp [-inf, 0.25]", "max=0.25"},
    {"relu_for_the_limits", [](const Tensor& y) { return ops::relu(ops::mish(y) - 0.1); }, true,
     "relu", "add=-0.1, min=0"},
    {"a_number_subtracted", [](const Tensor& y) { return ops::hardtanh(ops::mish(y) - 0.5); }, true,
     "mish → add -0.5 → hardtanh", "add=-0.5"},
    {"a_scale_by_division", [](const Tensor& y) { return ops::hardtanh(ops::mish(y)) / 3.0; }, true,
     "div 3", "scale=0.333333333"},
    {"a_scale_by_division_by_a_power_of_two",
     [](const Tensor& y) { return ops::hardtanh(ops::mish(y)) / 4.0; }, true, "mul 0.25",
     "scale=0.25"},
    {"a_negative", [](const Tensor& y) { return -ops::hardtanh(ops::mish(y) + 0.5); }, true, "neg",
     "scale=-1"},
    {"a_negative_scale", [](const Tensor& y) { return ops::hardtanh(ops::mish(y)) * -1.5; }, true,
     "mul -1.5", "scale=-1.5"},
    {"a_scale_of_zero", [](const Tensor& y) { return ops::hardtanh(ops::mish(y)) * 0.0; }, true,
     "mul 0", "scale=0"},
    {"mish_absent", [](const Tensor& y) { return ops::hardtanh(y + 0.5) * 2.0; }, true,
     "conv_transpose2d → add 0.5 → hardtanh", "mish=false, add=0.5"},
    {"sum_absent", [](const Tensor& y) { return ops::hardtanh(ops::mish(y)) * 2.0; }, true,
     "mish → hardtanh [-1, 1] → mul 2", "add=0, min=-1"},
    {"limits_absent", [](const Tensor& y) { return (ops::mish(y) + 0.5) * 2.0; }, true,
     "mish → add 0.5 → mul 2", "min=-inf, max=inf"},
    {"scale_absent", [](const Tensor& y) { return ops::hardtanh(ops::mish(y) + 0.5); }, true,
     "mish → add 0.5 → hardtanh [-1, 1]", "scale=1"},
    {"only_mish", [](const Tensor& y) { return ops::mish(y); }, true, "conv_transpose2d → mish",
     "mish=true, add=0"},
    {"only_a_scale", [](const Tensor& y) { return y * 2.0; }, true, "conv_transpose2d → mul 2",
     "mish=false, add=0, min=-inf, max=inf, scale=2"},
    {"sums_and_scales_in_chains",
     [](const Tensor& y) { return (ops::mish(y) + 0.25 + 0.5) * 2.0 * 3.0; }, true,
     "add 0.75 → mul 6", "add=0.75"},
};

INSTANTIATE_TEST_SUITE_P(Fusion, FusedVariant, ::testing::ValuesIn(kVariants),
                         [](const auto& info) { return std::string(info.param.name); });

// ---- a bias added after the convolution ---------------------------------------------------------

/// The bias as a parameter of its own.
struct BiasAfter : Up {
  Tensor after;
  bool on_the_left = false;
  explicit BiasAfter(const Shape& shape, bool with_bias)
      : Up(DType::Float64, with_bias), after(random(shape, 22)) {
    after.requires_grad_();
  }
  Tensor forward(const Tensor& x) const {
    const Tensor y = on_the_left ? after + convolve(x) : convolve(x) + after;
    return ops::hardtanh(ops::mish(y) + 0.5) * 2.0;
  }
  std::vector<NamedTensor> named_parameters() const {
    std::vector<NamedTensor> all = Up::named_parameters();
    all.push_back({"after", after});
    return all;
  }
};

TEST(BiasAfterTheConvolution, IsTakenInAndGetsItsGradient) {
  const BiasAfter module({4, 1, 1}, false);
  const CompiledFunction fast = compile(module);
  expect_equal_to_eager(module, fast);
  EXPECT_EQ(op_names(fast.graph_after()), "reshape conv_transpose2d_epilogue");
}

TEST(BiasAfterTheConvolution, MayHaveABatchDimensionAndStandOnTheLeft) {
  BiasAfter module({1, 4, 1, 1}, false);
  module.on_the_left = true;
  const CompiledFunction fast = compile(module);
  expect_equal_to_eager(module, fast);
  EXPECT_EQ(op_names(fast.graph_after()), "reshape conv_transpose2d_epilogue");
}

TEST(BiasAfterTheConvolution, IsAddedToTheBiasThatThereIs) {
  const BiasAfter module({4, 1, 1}, true);
  const CompiledFunction fast = compile(module);
  expect_equal_to_eager(module, fast);
  EXPECT_EQ(op_names(fast.graph_after()), "reshape add conv_transpose2d_epilogue");
}

TEST(BiasAfterTheConvolution, JoinsAConvolutionWithoutAnEpilogue) {
  struct Plain : BiasAfter {
    Plain() : BiasAfter({4, 1, 1}, false) {}
    Tensor forward(const Tensor& x) const { return ops::sigmoid(convolve(x) + after); }
  };
  const Plain module;
  const CompiledFunction fast = compile(module);
  expect_equal_to_eager(module, fast);
  EXPECT_EQ(op_names(fast.graph_after()), "reshape conv_transpose2d sigmoid");
}

TEST(BiasAfterTheConvolution, IsRefusedWhenItIsNotOneNumberAChannel) {
  const BiasAfter module({2, 1, 1, 1}, true);
  const CompiledFunction fast = compile(module);
  expect_equal_to_eager(module, fast);
  EXPECT_EQ(op_names(fast.graph_after()), "conv_transpose2d add mish add hardtanh mul");
  EXPECT_NE(fast.report().find("counts as its bias when it is [C, 1, 1] or [1, C, 1, 1]"),
            std::string::npos)
      << fast.report();
}

TEST(BiasAfterTheConvolution, IsRefusedWhenItBroadcastsTheResult) {
  // One output channel, five biases: the sum has more channels than the convolution.
  const Tensor weight = random({3, 1, 3, 3}, 31);
  const Tensor bias = random({5, 1, 1}, 32);
  const CompiledFunction fast =
      compile([=](const Tensor& x) { return ops::mish(ops::conv_transpose2d(x, weight) + bias); });
  const Tensor x = block_input();
  const Tensor expected = ops::mish(ops::conv_transpose2d(x, weight) + bias);
  EXPECT_EQ(distance(fast(x), expected), 0);
  EXPECT_EQ(op_names(fast.graph_after()), "conv_transpose2d add mish");
  EXPECT_NE(fast.report().find("not fused"), std::string::npos);
}

// ---- refusals -----------------------------------------------------------------------------------

struct Refusal {
  const char* name;
  Chain chain;
  const char* ops_after;
  const char* reason;
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

class RefusedStep : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedStep, StaysOutsideAndTheReportSaysWhy) {
  const Refusal& refusal = GetParam();
  const Block block(refusal.chain);
  const CompiledFunction fast = compile(block);
  expect_equal_to_eager(block, fast);
  EXPECT_EQ(op_names(fast.graph_after()), refusal.ops_after) << fast.graph_after();
  EXPECT_NE(fast.report().find(refusal.reason), std::string::npos) << fast.report();
}

const Refusal kRefusals[] = {
    {"the_convolution_has_another_reader",
     [](const Tensor& y) {
       const Tensor m = ops::mish(y);
       const Tensor s = ops::sigmoid(y);
       return m + s;
     },
     "conv_transpose2d mish sigmoid add",
     "because conv_transpose2d (%3) has another reader, sigmoid (%5)"},
    {"an_inner_step_has_another_reader",
     [](const Tensor& y) {
       const Tensor m = ops::mish(y);
       const Tensor shifted = m + 0.5;
       const Tensor s = ops::sigmoid(m);
       return shifted + s;
     },
     "conv_transpose2d_epilogue add sigmoid add",
     "ends there: mish (%4) has another reader, sigmoid (%6)"},
    {"the_number_is_a_tensor_of_one_element",
     [](const Tensor& y) { return ops::mish(y) + scalar_tensor(0.5, {.dtype = DType::Float64}); },
     "conv_transpose2d_epilogue add", "is a tensor float64[], not a number"},
    {"the_summand_is_a_tensor_for_each_channel",
     [](const Tensor& y) {
       return ops::hardtanh(ops::mish(y) + random({4, 1, 1}, 5));
     },
     "conv_transpose2d_epilogue add hardtanh", "is a tensor float64[4, 1, 1], not a number"},
    {"the_scale_is_a_tensor",
     [](const Tensor& y) {
       return random({1, 4, 1, 1}, 6) * ops::hardtanh(ops::mish(y) + 0.5);
     },
     "conv_transpose2d_epilogue mul", "is a tensor float64[1, 4, 1, 1], not a number"},
    {"the_divisor_is_a_tensor",
     [](const Tensor& y) {
       return ops::hardtanh(ops::mish(y)) / random({4, 1, 1}, 7);
     },
     "conv_transpose2d_epilogue div", "is a tensor float64[4, 1, 1], not a number"},
    {"a_second_clamp",
     [](const Tensor& y) { return ops::clamp(ops::hardtanh(ops::mish(y)), -0.5, 0.5); },
     "conv_transpose2d_epilogue clamp",
     "clamp (%6) reads hardtanh (%5), where the pattern has add, mish or conv_transpose2d"},
    {"a_second_mish", [](const Tensor& y) { return ops::mish(ops::mish(y)); },
     "conv_transpose2d_epilogue mish",
     "mish (%5) reads mish (%4), where the pattern has conv_transpose2d"},
    {"a_sum_before_mish", [](const Tensor& y) { return ops::mish(y + 0.5); },
     "conv_transpose2d_epilogue mish",
     "mish (%5) reads add (%4), where the pattern has conv_transpose2d"},
    {"a_sum_after_the_scale", [](const Tensor& y) { return ops::mish(y) * 2.0 + 0.5; },
     "conv_transpose2d_epilogue add",
     "add (%6) reads mul (%5), where the pattern has mish or conv_transpose2d"},
    {"a_number_divided", [](const Tensor& y) { return 1.0 / (ops::mish(y) + 4.0); },
     "conv_transpose2d_epilogue div", "it divides 1 instead of dividing by a number"},
    {"subtracted_from_a_number", [](const Tensor& y) { return 1.0 - ops::mish(y); },
     "conv_transpose2d_epilogue sub", "it subtracts from 1 instead of adding a number"},
    {"divided_by_zero", [](const Tensor& y) { return ops::mish(y) / 0.0; },
     "conv_transpose2d_epilogue div", "it divides by 0, which has no reciprocal to multiply by"},
    {"a_number_that_is_nan",
     [](const Tensor& y) { return ops::mish(y) + std::numeric_limits<double>::quiet_NaN(); },
     "conv_transpose2d_epilogue add", "add (%5): its number is NaN"},
    {"bounds_that_meet", [](const Tensor& y) { return ops::clamp(ops::mish(y), 1, 1); },
     "conv_transpose2d_epilogue clamp", "its lower bound 1 is not below its upper bound 1"},
    {"bounds_in_the_wrong_order", [](const Tensor& y) { return ops::clamp(ops::mish(y), 3, 1); },
     "conv_transpose2d_epilogue clamp", "its lower bound 3 is not below its upper bound 1"},
    {"softplus_with_another_beta",
     [](const Tensor& y) { return y * ops::tanh(ops::softplus(y, 2.0)); },
     "conv_transpose2d softplus tanh mul",
     "softplus (%4): mish needs softplus with beta 1 and a threshold of at least 20"},
    {"softplus_with_a_low_threshold",
     [](const Tensor& y) { return y * ops::tanh(ops::softplus(y, 1.0, 3.0)); },
     "conv_transpose2d softplus tanh mul", "a threshold of at least 20"},
    {"a_product_with_the_mish_of_something_else",
     [](const Tensor& y) {
       const Tensor s = ops::sigmoid(y);
       return s * ops::tanh(ops::softplus(y));
     },
     "conv_transpose2d sigmoid softplus tanh mul", "not fused"},
    {"another_activation", [](const Tensor& y) { return ops::sigmoid(y); },
     "conv_transpose2d sigmoid", "because what reads it is no step of the block: sigmoid (%4)"},
    {"another_dtype_on_the_way",
     [](const Tensor& y) {
       return ops::hardtanh(ops::mish(y).to(DType::Float32) + 0.5).to(DType::Float64);
     },
     "conv_transpose2d_epilogue copy add hardtanh copy",
     "ends there: copy (%5) converts to float32"},
    {"a_view_on_the_way",
     [](const Tensor& y) {
       return ops::mish(y.reshape({2, -1})) + 0.5;
     },
     "conv_transpose2d reshape mish add",
     "because what reads it is no step of the block: reshape (%4)"},
};

INSTANTIATE_TEST_SUITE_P(Fusion, RefusedStep, ::testing::ValuesIn(kRefusals),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(RefusedPart, ThatIsAnOutputEndsTheBlock) {
  const Block block(nullptr);
  const CompiledFunction fast = compile([&](const Tensor& x) {
    const Tensor m = ops::mish(block.convolve(x));
    return std::vector<Tensor>{ops::hardtanh(m), m};
  });
  const std::vector<Tensor> inputs = {block_input()};
  const std::vector<Tensor> results = fast(inputs);
  const Tensor m = ops::mish(block.convolve(inputs[0]));
  EXPECT_LT(distance(results[0], ops::hardtanh(m)), 1e-12);
  EXPECT_LT(distance(results[1], m), 1e-12);
  EXPECT_EQ(op_names(fast.graph_after()), "conv_transpose2d_epilogue hardtanh");
  EXPECT_NE(fast.report().find("ends there: mish (%4) is itself an output of the graph"),
            std::string::npos)
      << fast.report();
}

TEST(RefusedPart, IsTheWholeBlockWhenTheConvolutionIsAnOutput) {
  const Block block(nullptr);
  const CompiledFunction fast = compile([&](const Tensor& x) {
    const Tensor y = block.convolve(x);
    return std::vector<Tensor>{ops::mish(y), y};
  });
  const std::vector<Tensor> inputs = {block_input()};
  EXPECT_LT(distance(fast(inputs)[0], ops::mish(block.convolve(inputs[0]))), 1e-12);
  EXPECT_EQ(op_names(fast.graph_after()), "conv_transpose2d mish");
  EXPECT_NE(fast.report().find("because conv_transpose2d (%3) is itself an output of the graph"),
            std::string::npos)
      << fast.report();
}

TEST(RefusedPart, WithoutGradientsKeepsItsOwnNodes) {
  const Block block([](const Tensor& y) {
    const Tensor m = ops::mish(y);
    const NoGradGuard no_gradients;
    return m + 0.5;
  });
  const CompiledFunction fast = compile(block);
  const Tensor x = block_input();
  x.requires_grad_();
  const Tensor y = fast(x);
  EXPECT_FALSE(y.requires_grad());
  EXPECT_LT(distance(y, block.forward(x)), 1e-12);
  EXPECT_EQ(op_names(fast.graph_after()), "conv_transpose2d_epilogue add");
  EXPECT_NE(to_text(fast.graph_after()).find("= no_grad add("), std::string::npos);
  EXPECT_NE(fast.report().find("add (%5) runs without gradients, mish (%4) with them"),
            std::string::npos)
      << fast.report();
}

// ---- blocks that train faster unfused -----------------------------------------------------------

/// A block of any channel counts, kernel 3 and stride 2.
struct Sized {
  Tensor weight;
  Sized(std::int64_t in, std::int64_t out) : weight(random({in, out, 3, 3}, 31, DType::Float32)) {
    weight.requires_grad_();
  }
  Tensor forward(const Tensor& x) const {
    const Tensor y =
        ops::conv_transpose2d(x, weight, {}, {.stride = 2, .padding = 1, .output_padding = 1});
    return ops::hardtanh(ops::mish(y) + 0.5) * 2.0;
  }
  std::vector<NamedTensor> named_parameters() const { return {{"up.weight", weight}}; }
};

/// The ops of a block compiled for `x`, with gradients on or off.
std::string ops_of(const CompiledFunction& fast, const Tensor& x, bool gradients) {
  const GradModeGuard mode(gradients);
  fast(x);
  return op_names(fast.graph_after());
}

constexpr const char* kUnfused = "conv_transpose2d mish add hardtanh mul";
constexpr const char* kFused = "conv_transpose2d_epilogue";

TEST(TrainingPays, AnOrdinaryBlockFusesWithAndWithoutGradients) {
  const Sized block(64, 32);
  const CompiledFunction fast = compile(block);
  const Tensor x = random({2, 64, 7, 7}, 32, DType::Float32);
  EXPECT_EQ(ops_of(fast, x, true), kFused);
  EXPECT_EQ(ops_of(fast, x, false), kFused);
}

TEST(TrainingPays, ABlockOfOneOutputChannelFusesOnlyWithoutGradients) {
  const Sized block(64, 1);
  const CompiledFunction fast = compile(block);
  const Tensor x = random({4, 64, 14, 14}, 33, DType::Float32);
  EXPECT_EQ(ops_of(fast, x, true), kUnfused);
  const Tensor plain = fast(x);
  EXPECT_NE(fast.report().find("because its backward computes the convolution again, which here "
                               "costs more than the steps save (144 products an output, channels "
                               "of a group: 1)"),
            std::string::npos)
      << fast.report();
  EXPECT_EQ(ops_of(fast, x, false), kFused);
  EXPECT_EQ(fast.compilations(), 2u);
  EXPECT_NE(fast.report().find(" without gradients: 5 ops -> 1, 1 of 1 blocks fused"),
            std::string::npos)
      << fast.report();
  const NoGradGuard no_gradients;
  EXPECT_LT(distance(fast(x), plain.detach()), 1e-4);
  EXPECT_EQ(fast.compilations(), 2u) << "both graphs are kept";
}

TEST(TrainingPays, ABlockOfManyProductsFusesOnlyWithoutGradients) {
  const Sized block(256, 128);
  const CompiledFunction fast = compile(block);
  const Tensor x = random({1, 256, 4, 4}, 34, DType::Float32);
  EXPECT_EQ(ops_of(fast, x, true), kUnfused);
  EXPECT_NE(fast.report().find("(576 products an output"), std::string::npos) << fast.report();
  EXPECT_EQ(ops_of(fast, x, false), kFused);
}

TEST(TrainingPays, ABlockUnderANoGradGuardOfTheFunctionFuses) {
  const Sized block(64, 1);
  const CompiledFunction fast = compile([&](const Tensor& x) {
    const NoGradGuard no_gradients;
    return block.forward(x);
  });
  EXPECT_EQ(ops_of(fast, random({4, 64, 14, 14}, 35, DType::Float32), true), kFused);
}

TEST(TrainingPays, ABlockTooSmallToMatterFuses) {
  const Sized block(64, 1);
  const CompiledFunction fast = compile(block);
  EXPECT_EQ(ops_of(fast, random({1, 64, 2, 2}, 36, DType::Float32), true), kFused);
}

}  // namespace
}  // namespace tenon::graph
