// compile: signatures, live parameters, gradients, memory, threads, and what the report says.
#include "tenon/graph/compile.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "graph_models.h"
#include "tenon/core/memory.h"
#include "tenon/graph/executor.h"

namespace tenon::graph {
namespace {

using namespace tenon::graph::testing;  // NOLINT

Tensor whole_chain(const Tensor& y) { return ops::hardtanh(ops::mish(y) + 0.5) * 2.0; }

// ---- when a graph is made -----------------------------------------------------------------------

TEST(Compile, DoesNothingBeforeTheFirstCall) {
  int calls = 0;
  const CompiledFunction fast = compile([&](const Tensor& x) {
    ++calls;
    return ops::tanh(x);
  });
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(fast.compilations(), 0u);
  EXPECT_EQ(fast.report(), "not called yet, so there is no graph to report on\n");
  EXPECT_THROW(fast.graph_before(), Error);
  EXPECT_THROW(fast.svg_after(), Error);
}

class CompileOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(CompileOnDevice);

TEST_P(CompileOnDevice, TracesOnceASignature) {
  int calls = 0;
  const CompiledFunction fast = compile([&](const Tensor& x) {
    ++calls;
    return ops::tanh(x);
  });
  const Tensor a = random({2, 3}, 1).to(device());
  const Tensor b = random({2, 3}, 2).to(device());
  EXPECT_EQ(distance(fast(a), ops::tanh(a)), 0);
  EXPECT_EQ(distance(fast(b), ops::tanh(b)), 0);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(fast.compilations(), 1u);
}

TEST(Compile, TracesAgainForANewShapeOrDtypeAndKeepsTheOld) {
  const CompiledFunction fast = compile([](const Tensor& x) { return ops::tanh(x) + 1.0; });
  const std::vector<Tensor> inputs = {random({2, 3}, 1), random({4, 3}, 2),
                                      random({2, 3}, 3, DType::Float32)};
  for (int round = 0; round < 2; ++round) {
    for (const Tensor& x : inputs) EXPECT_LT(distance(fast(x), ops::tanh(x) + 1.0), 1e-6);
  }
  EXPECT_EQ(fast.compilations(), 3u);
  EXPECT_EQ(fast.graph_before(std::span<const Tensor>(&inputs[1], 1)).value(0).spec.shape,
            (Shape{4, 3}));
  const Tensor unseen = random({9}, 4);
  EXPECT_THROW(fast.graph_after(std::span<const Tensor>(&unseen, 1)), Error);
}

TEST_P(CompileOnDevice, DoesNotCareForStridesOrGradients) {
  const CompiledFunction fast = compile([](const Tensor& x) { return ops::tanh(x); });
  const Tensor x = random({3, 3}, 1).to(device());
  fast(x);
  EXPECT_EQ(distance(fast(x.transpose(0, 1)), ops::tanh(x.transpose(0, 1))), 0);
  const Tensor leaf = x.clone();
  leaf.requires_grad_();
  EXPECT_TRUE(fast(leaf).requires_grad());
  EXPECT_EQ(fast.compilations(), 1u);
}

struct TwoModes {
  bool is_training = true;
  Tensor weight = random({3}, 5);
  Tensor forward(const Tensor& x) const { return is_training ? x * weight * 2.0 : x * weight; }
  std::vector<std::pair<std::string, Tensor>> named_parameters() const { return {{"w", weight}}; }
  bool training() const { return is_training; }
};

TEST(Compile, MakesAGraphForEachMode) {
  TwoModes module;
  const CompiledFunction fast = compile(module);
  const Tensor x = random({3}, 6);
  for (int round = 0; round < 2; ++round) {
    module.is_training = true;
    EXPECT_LT(distance(fast(x), x * module.weight * 2.0), 1e-12);
    module.is_training = false;
    EXPECT_LT(distance(fast(x), x * module.weight), 1e-12);
  }
  EXPECT_EQ(fast.compilations(), 2u);
  EXPECT_NE(fast.report().find("(float64[3]) evaluating: "), std::string::npos) << fast.report();
}

struct Part {
  bool is_training = true;
  bool training() const { return is_training; }
};
struct NamedPart {
  std::string name;
  const Part* module;
};
struct Whole : TwoModes {
  Part part;
  Tensor forward(const Tensor& x) const { return part.training() ? x + 1.0 : x + 2.0; }
  std::vector<NamedPart> named_modules() const { return {{"part", &part}}; }
};

TEST(Compile, SeesTheModeOfAPartChangeAlone) {
  Whole module;
  const CompiledFunction fast = compile(module);
  const Tensor x = random({3}, 6);
  fast(x);
  module.part.is_training = false;
  EXPECT_EQ(distance(fast(x), x + 2.0), 0);
}

// ---- parameters ---------------------------------------------------------------------------------

TEST_P(CompileOnDevice, SeesAnOptimizerStep) {
  const Block block(whole_chain, DType::Float64, true, device());
  const CompiledFunction fast = compile(block);
  const Tensor x = block_input(DType::Float64, device());
  fast(x);
  {
    const NoGradGuard no_gradients;
    block.weight.copy_(block.weight * 0.5);
    block.bias.copy_(block.bias + 1.0);
  }
  EXPECT_LT(distance(fast(x), block.forward(x)), 1e-12);
  EXPECT_EQ(fast.compilations(), 1u);
}

TEST(Compile, SeesNewDataOfAParameter) {
  const Block block(whole_chain);
  const CompiledFunction fast = compile(block);
  const Tensor x = block_input();
  fast(x);
  block.weight.set_data(random({3, 4, 3, 3}, 77));
  EXPECT_LT(distance(fast(x), block.forward(x)), 1e-12);
  EXPECT_EQ(fast.compilations(), 1u);
}

TEST(Compile, TracesAgainWhenAParameterChangesItsShape) {
  const Block block(whole_chain);
  const CompiledFunction fast = compile(block);
  const Tensor x = block_input();
  fast(x);
  block.weight.set_data(random({3, 4, 5, 5}, 78));
  EXPECT_LT(distance(fast(x), block.forward(x)), 1e-12);
  EXPECT_EQ(fast.compilations(), 2u);
  EXPECT_EQ(fast.graph_after().value(fast.graph_after().outputs()[0]).spec.shape,
            block.forward(x).shape());
}

TEST(Compile, TracesAgainWhenTheModuleHoldsAnotherTensor) {
  Block block(whole_chain);
  const CompiledFunction fast = compile(block);
  const Tensor x = block_input();
  fast(x);
  block.weight = random({3, 4, 3, 3}, 79);
  EXPECT_LT(distance(fast(x), block.forward(x)), 1e-12);
  EXPECT_EQ(fast.compilations(), 2u);
}

// ---- what can be compiled -----------------------------------------------------------------------

TEST(Compile, KeepsAModuleByReferenceAndStoresARvalue) {
  Block block(whole_chain);
  const CompiledFunction by_reference = compile(block);
  block.chain = [](const Tensor& y) { return ops::sigmoid(y); };
  const Tensor x = block_input();
  EXPECT_LT(distance(by_reference(x), block.forward(x)), 1e-12);
  const CompiledFunction stored = compile(Block(whole_chain));
  EXPECT_LT(distance(stored(x), Block(whole_chain).forward(x)), 1e-12);
}

Tensor free_function(const Tensor& a, const Tensor& b) { return a * b + 1.0; }

TEST(Compile, TakesFunctionsOfSeveralTensors) {
  const CompiledFunction fast = compile(free_function);
  const Tensor a = random({2, 3}, 1);
  const Tensor b = random({3}, 2);
  EXPECT_EQ(distance(fast(a, b), free_function(a, b)), 0);
  EXPECT_THROW(fast(a), Error);
  EXPECT_THROW(fast(a, b, a), Error);
}

TEST(Compile, TakesFunctionsOfASpan) {
  const CompiledFunction fast = compile([](std::span<const Tensor> inputs) {
    Tensor sum = inputs[0];
    for (const Tensor& input : inputs.subspan(1)) sum = sum + input;
    return sum;
  });
  const Tensor a = random({3}, 1);
  EXPECT_LT(distance(fast(a, a, a), a * 3.0), 1e-12);
  EXPECT_LT(distance(fast(a, a), a * 2.0), 1e-12);
}

TEST(Compile, ReturnsVectorsPairsAndTuples) {
  const Tensor x = random({3}, 1);
  const std::vector<Tensor> inputs = {x};
  const auto expect_two = [&](const CompiledFunction& fast) {
    const std::vector<Tensor> results = fast(inputs);
    ASSERT_EQ(results.size(), 2u);
    EXPECT_EQ(distance(results[0], ops::tanh(x)), 0);
    EXPECT_EQ(distance(results[1], ops::sigmoid(x)), 0);
    EXPECT_THROW(fast(x), Error);
  };
  expect_two(compile([](const Tensor& t) {
    return std::vector<Tensor>{ops::tanh(t), ops::sigmoid(t)};
  }));
  expect_two(compile([](const Tensor& t) { return std::pair(ops::tanh(t), ops::sigmoid(t)); }));
  expect_two(
      compile([](const Tensor& t) { return std::make_tuple(ops::tanh(t), ops::sigmoid(t)); }));
}

TEST(Compile, BecomesPartOfAnotherTrace) {
  const Block block(whole_chain);
  const CompiledFunction inner = compile(block);
  const CompiledFunction outer = compile([&](const Tensor& x) { return ops::sigmoid(inner(x)); });
  const Tensor x = block_input();
  EXPECT_LT(distance(outer(x), ops::sigmoid(block.forward(x))), 1e-12);
  EXPECT_EQ(inner.compilations(), 0u);
  EXPECT_EQ(op_names(outer.graph_after()), "conv_transpose2d_epilogue sigmoid");
}

TEST(Compile, RefusesAnUndefinedInput) {
  const CompiledFunction fast = compile([](const Tensor& x) { return ops::tanh(x); });
  EXPECT_THROW(fast(Tensor()), Error);
}

TEST(Compile, IsReadyAgainAfterAnError) {
  const CompiledFunction fast = compile([](const Tensor& x) { return x + random({4}, 1); });
  EXPECT_THROW(fast(random({3}, 1)), Error);
  EXPECT_FALSE(is_tracing());
  EXPECT_NO_THROW(fast(random({4}, 1)));
  EXPECT_EQ(fast.compilations(), 1u);
}

TEST_P(CompileOnDevice, LeavesBlocksAloneWhenFusionIsOff) {
  const Block block(whole_chain, DType::Float64, true, device());
  const CompiledFunction plain = compile(block, {.fuse = false});
  const Tensor x = block_input(DType::Float64, device());
  EXPECT_LT(distance(plain(x), block.forward(x)), 1e-12);
  EXPECT_EQ(op_names(plain.graph_after()), "conv_transpose2d mish add hardtanh mul");
  EXPECT_NE(plain.report().find("because fusion is switched off"), std::string::npos);
}

// ---- gradients and memory -----------------------------------------------------------------------

TEST_P(CompileOnDevice, HasSecondDerivatives) {
  const Block block(whole_chain, DType::Float64, true, device());
  const CompiledFunction fast = compile(block);
  std::vector<std::vector<Tensor>> seconds;
  for (const bool compiled : {false, true}) {
    const Tensor x = block_input(DType::Float64, device());
    x.requires_grad_();
    const Tensor y = compiled ? fast(x) : block.forward(x);
    const std::vector<Tensor> first =
        grad(std::vector<Tensor>{y}, std::vector<Tensor>{x},
             std::vector<Tensor>{weighted_gradient(y)}, {.create_graph = true});
    seconds.push_back(grad(first, std::vector<Tensor>{x, block.weight},
                           std::vector<Tensor>{weighted_gradient(x)}));
  }
  EXPECT_LT(distance(seconds[0][0], seconds[1][0]), 1e-9);
  EXPECT_LT(distance(seconds[0][1], seconds[1][1]), 1e-9);
}

TEST(Executor, FreesEachValueAfterItsLastReader) {
  const auto chain = [](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 20; ++i) y = ops::tanh(y);
    return y;
  };
  const CompiledFunction fast = compile(chain);
  const Tensor x = zeros({1 << 16});
  fast(x);
  const std::int64_t bytes = spec_bytes(x.spec());
  const std::int64_t before = memory_stats(Device::cpu()).in_use;
  reset_peak_memory(Device::cpu());
  {
    const Tensor y = fast(x);
    EXPECT_EQ(memory_stats(Device::cpu()).in_use - before, bytes) << "only the result is alive";
  }
  EXPECT_LE(memory_stats(Device::cpu()).peak - before, 2 * bytes + 4096);
  EXPECT_EQ(memory_stats(Device::cpu()).in_use, before);
}

TEST(Executor, KeepsFewerBytesForTheBackwardWhenFused) {
  const Block block(whole_chain, DType::Float32);
  const Tensor x = random({8, 3, 32, 32}, 3, DType::Float32);
  const auto kept = [&](const CompiledFunction& f) {
    f(x);
    const std::int64_t before = memory_stats(Device::cpu()).in_use;
    const Tensor y = f(x);
    return memory_stats(Device::cpu()).in_use - before - spec_bytes(y.spec());
  };
  const CompiledFunction fused = compile(block);
  const CompiledFunction plain = compile(block, {.fuse = false});
  EXPECT_EQ(kept(fused), 0) << "inputs and output only";
  const std::int64_t saved = kept(plain);
  EXPECT_GT(saved, 0);
  EXPECT_EQ(fused.decisions()[0].activations_saved, saved) << "the report says what is so";
}

TEST(Executor, RefusesInputsThatItWasNotMadeFor) {
  const std::vector<TensorSpec> specs = {{{3}, DType::Float64, Device::cpu()}};
  const Executor executor(trace(
      [](std::span<const Tensor> in) { return std::vector<Tensor>{ops::tanh(in[0])}; }, specs));
  const std::vector<Tensor> wrong = {random({4}, 1)};
  EXPECT_THROW(executor.run(wrong), Error);
  EXPECT_THROW(executor.run({}), Error);
}

TEST(Executor, ReturnsOneValueTwiceWhenAskedTo) {
  const CompiledFunction fast = compile([](const Tensor& x) {
    const Tensor y = ops::tanh(x);
    return std::vector<Tensor>{y, y, x};
  });
  const std::vector<Tensor> inputs = {random({3}, 1)};
  const std::vector<Tensor> results = fast(inputs);
  EXPECT_TRUE(results[0].is_same(results[1]));
  EXPECT_TRUE(results[2].is_same(inputs[0]));
}

TEST(Compile, MayBeCalledFromSeveralThreads) {
  const Block block(whole_chain);
  const CompiledFunction fast = compile(block);
  const std::vector<Tensor> inputs = {random({1, 3, 4, 4}, 1), random({2, 3, 4, 4}, 2)};
  const std::vector<Tensor> expected = {block.forward(inputs[0]), block.forward(inputs[1])};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        const std::size_t which = static_cast<std::size_t>(t + i) % 2;
        const Tensor y = fast(inputs[which]);
        if (distance(y, expected[which]) > 1e-12) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(fast.compilations(), 2u);
}

// ---- the report ---------------------------------------------------------------------------------

TEST(Report, IsShortAndSaysWhatWasSaved) {
  const Block block(whole_chain, DType::Float32);
  const CompiledFunction fast = compile(block);
  fast(block_input(DType::Float32));
  EXPECT_EQ(fast.report(),
            "(float32[2, 3, 5, 4]) training: 5 ops -> 1, 1 of 1 blocks fused; a run moves 20.5 kB "
            "less and keeps 5.12 kB less for the backward\n"
            "  fused      up: conv_transpose2d → mish → add 0.5 → hardtanh [-1, 1] → mul 2\n"
            "             %7 = conv_transpose2d_epilogue, cpu fused kernel: 20.5 kB less traffic, "
            "5.12 kB less kept\n");
}

TEST(Report, SaysWhenThereIsNothingToFuse) {
  const CompiledFunction fast = compile([](const Tensor& x) { return ops::tanh(x); });
  fast(random({3}, 1));
  EXPECT_EQ(fast.report(), "(float64[3]): 1 ops -> 1, no transposed convolution to fuse\n");
}

TEST(Report, GivesTheDecisionsAsData) {
  const Block block([](const Tensor& y) { return ops::hardtanh(ops::mish(y)) * 2.0; });
  const CompiledFunction fast = compile(block);
  fast(block_input());
  const std::vector<BlockDecision> decisions = fast.decisions();
  ASSERT_EQ(decisions.size(), 1u);
  EXPECT_TRUE(decisions[0].fused);
  EXPECT_EQ(decisions[0].weight, "up.weight");
  EXPECT_EQ(decisions[0].op, "conv_transpose2d_epilogue");
  EXPECT_EQ(decisions[0].kernel, "cpu fused kernel");
  EXPECT_EQ(decisions[0].steps.size(), 4u);
  // y [2, 4, 10, 8] of 8 bytes: three steps that no longer read and write it.
  EXPECT_EQ(decisions[0].traffic_saved, 3 * 2 * 640 * 8);
  EXPECT_EQ(decisions[0].reason, "");
}

TEST(Report, TellsEveryBlockAndEverySignature) {
  const Tensor w = random({3, 3, 3, 3}, 1);
  const CompiledFunction fast = compile([=](const Tensor& x) {
    const Tensor y = ops::mish(ops::conv_transpose2d(x, w));
    return ops::conv_transpose2d(ops::sigmoid(ops::conv_transpose2d(y, w)), w);
  });
  fast(random({1, 3, 2, 2}, 2));
  fast(random({1, 3, 3, 3}, 3));
  const std::string report = fast.report();
  EXPECT_NE(report.find("(float64[1, 3, 2, 2]): 5 ops -> 4, 1 of 3 blocks fused"),
            std::string::npos)
      << report;
  EXPECT_NE(report.find("(float64[1, 3, 3, 3]): "), std::string::npos);
  EXPECT_NE(report.find("because what reads it is no step of the block: sigmoid (%5)"),
            std::string::npos)
      << report;
  EXPECT_NE(report.find("because nothing reads it but the caller"), std::string::npos);
}

TEST(Report, WritesBytesWithThreeDigits) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(999), "999 B");
  EXPECT_EQ(bytes_text(1530), "1.53 kB");
  EXPECT_EQ(bytes_text(25690112), "25.7 MB");
  EXPECT_EQ(bytes_text(2147483648), "2.15 GB");
}

}  // namespace
}  // namespace tenon::graph
