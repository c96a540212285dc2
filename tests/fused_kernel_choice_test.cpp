// Which of the fused CUDA kernels runs, and what is kept for it: choices on disk, packed weights.
#include <gtest/gtest.h>

#ifdef TENON_WITH_CUDA

#include <nlohmann/json.hpp>
#include <thread>

#include "fused_kernel_cases.h"
#include "support/temporary_directory.h"
#include "tenon/core/autograd.h"
#include "tenon/graph/graph.h"
#include "tenon/nn/nn.h"

namespace tenon {
namespace {

using ops::cuda::BlockProblem;
using ops::cuda::KernelPlan;
using test::CoarsePrecision;
using test::EnvironmentGuard;
using test::KernelGeometry;
using test::KernelInputs;

const KernelGeometry kMission{
    "k3_s2_p1_op1", 3, {.stride = 2, .padding = 1, .output_padding = 1}, true};
const CoarsePrecision kTf32{"tf32", DType::Float32, 11, 1e-3};

KernelInputs inputs_of(const test::KernelSizes& sizes, const CoarsePrecision& precision = kTf32) {
  return {test::kernel_block(kMission, sizes, precision), precision};
}

/// The result of `function` on a thread of its own, which has made no choices yet.
template <class Function>
auto on_new_thread(const Function& function) {
  decltype(function()) result{};
  std::thread([&] { result = function(); }).join();
  return result;
}

/// Whether this library and this GPU have rows of sm_90a: they are the only ones of one geometry.
bool has_sm90_rows() {
  for (const KernelPlan& plan : kernel_plans(inputs_of({1, 64, 4, 64, 64}).problem())) {
    if (plan.row->architecture == 90) return true;
  }
  return false;
}

class FusedKernelChoice : public testing::Test {
 protected:
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }
};

// ---- names -----------------------------------------------------------------------------------

TEST_F(FusedKernelChoice, OfTheTablesShapesNeedsNoTiming) {
  if (!has_sm90_rows()) GTEST_SKIP() << "no rows of sm_90a in this build or on this GPU";
  const EnvironmentGuard by_rule("TENON_AUTOTUNE", "0");
  for (const CoarsePrecision& precision : test::kernel_precisions()) {
    SCOPED_TRACE(precision.name);
    const std::string name = on_new_thread([&] {
      const Float32PrecisionGuard mode(test::float32_mode(precision));
      const KernelInputs inputs = inputs_of({8, 64, 64, 64, 64}, precision);
      const std::string before = kernel_name(inputs.problem());
      const KernelPlan* plan = choose_kernel(
          inputs.problem(), [](const KernelPlan*) { ADD_FAILURE() << "something was timed"; });
      EXPECT_NE(plan, nullptr);
      EXPECT_EQ(kernel_name(inputs.problem()), before);
      return before;
    });
    EXPECT_EQ(name.rfind("cuda fused kernel (sm90 k3 s2", 0), 0u) << name;
  }
}

TEST_F(FusedKernelChoice, WithoutMishOrInFloat64IsTheLibrary) {
  const EnvironmentGuard by_rule("TENON_AUTOTUNE", "0");
  const char* const library = "cuda kernels (cuDNN and one pass)";
  KernelInputs inputs = inputs_of({8, 64, 64, 64, 64});
  inputs.epilogue.mish = false;
  EXPECT_TRUE(kernel_plans(inputs.problem()).empty());
  EXPECT_EQ(kernel_name(inputs.problem()), library);
  const KernelInputs exact = inputs_of({1, 3, 5, 7, 5}, {"float64", DType::Float64, 53, 1e-12});
  EXPECT_EQ(kernel_name(exact.problem()), library);
}

TEST_F(FusedKernelChoice, ForAnOlderArchitectureIsOneOfItsRows) {
  for (const char* architecture : {"80", "89"}) {
    const EnvironmentGuard forced("TENON_FORCE_ARCH", architecture);
    const std::vector<KernelPlan> plans = kernel_plans(inputs_of({1, 64, 4, 64, 64}).problem());
    ASSERT_FALSE(plans.empty());
    for (const KernelPlan& plan : plans) EXPECT_EQ(plan.row->architecture, 80) << plan.row->name;
  }
}

TEST_F(FusedKernelChoice, ForNoArchitectureIsTheLibrary) {
  const EnvironmentGuard forced("TENON_FORCE_ARCH", "none");
  const KernelInputs inputs = inputs_of({1, 64, 4, 64, 64});
  EXPECT_TRUE(kernel_plans(inputs.problem()).empty());
  EXPECT_EQ(kernel_name(inputs.problem()), "cuda kernels (cuDNN and one pass)");
}

// ---- choices on disk -------------------------------------------------------------------------

/// A choice, made on a thread that knows none.
struct Chosen {
  std::string kernel;
  int runs = 0;  // that it took
};

void unfused(const KernelInputs& i) {
  const Tensor y = ops::conv_transpose2d(i.x, i.weight, i.bias, i.options);
  const Tensor z = ops::hardtanh(ops::mish(y) + i.epilogue.add, i.epilogue.min, i.epilogue.max);
  ops::mul(z, i.epilogue.scale);
}

Chosen choose_anew(const KernelInputs& inputs) {
  return on_new_thread([&] {
    Chosen chosen;
    choose_kernel(inputs.problem(), [&](const KernelPlan* plan) {
      ++chosen.runs;
      // The unfused ops stand for cuDNN and a pass: slower than these, so that a plan is chosen.
      if (plan == nullptr) unfused(inputs);
      if (plan != nullptr) inputs.run(*plan);
    });
    chosen.kernel = kernel_name(inputs.problem());
    return chosen;
  });
}

// One test, because a program opens the file once.
TEST_F(FusedKernelChoice, ByTimeIsKeptOnDiskAndTakenFromThere) {
  const test::TemporaryDirectory folder;
  const EnvironmentGuard directory("TENON_CACHE_DIR", folder / "");
  const EnvironmentGuard always("TENON_AUTOTUNE", "1");
  const std::string file = folder / "fused_kernels.json";
  test::write_file(file, R"({"format": "tenon tuning cache 1", "entries": {"gpu)");

  const KernelInputs inputs = inputs_of({2, 19, 9, 33, 40});
  testing::internal::CaptureStderr();
  const Chosen first = choose_anew(inputs);
  const std::string told = testing::internal::GetCapturedStderr();
  EXPECT_NE(told.find(file), std::string::npos) << told;
  EXPECT_GT(first.runs, 2);

  const std::string kept = test::read_file(file);
  const nlohmann::json json = nlohmann::json::parse(kept, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(json.is_object()) << "the damaged file was not replaced: " << kept;
  const nlohmann::json& hardware = json.at("entries");
  ASSERT_EQ(hardware.size(), 1u) << kept;
  ASSERT_EQ(hardware.begin()->size(), 1u) << kept;
  EXPECT_NE(hardware.begin()->begin().key().find("float32/tf32 x"), std::string::npos) << kept;
  const auto kernel = hardware.begin()->begin()->at("kernel").get<std::string>();
  EXPECT_NE(first.kernel.find("(" + kernel + ")"), std::string::npos) << first.kernel;

  const Chosen again = choose_anew(inputs);
  EXPECT_EQ(again.runs, 0);
  EXPECT_EQ(again.kernel, first.kernel);
  EXPECT_EQ(test::read_file(file), kept);

  // Another problem, beside the first; and the op itself, on a thread that takes what is there.
  const KernelInputs other = inputs_of({3, 8, 4, 9, 5});
  EXPECT_GT(choose_anew(other).runs, 2);
  EXPECT_EQ(nlohmann::json::parse(test::read_file(file)).at("entries").begin()->size(), 2u);
  const test::BlockCase block = test::kernel_block(kMission, {2, 19, 9, 33, 40}, kTf32);
  const Tensor z = on_new_thread([&] { return inputs.run_op(); });
  test::expect_near(z, test::kernel_reference(block).to(Device::cuda()), kTf32.tolerance);
}

// ---- packed weights --------------------------------------------------------------------------

/// Buffers that `work` allocates on the GPU.
template <class Work>
std::int64_t allocations_of(const Work& work) {
  const std::int64_t before = memory_stats(Device::cuda()).allocations;
  work();
  return memory_stats(Device::cuda()).allocations - before;
}

TEST_F(FusedKernelChoice, WeightsArePackedOnceAVersion) {
  for (const CoarsePrecision& precision : test::kernel_precisions()) {
    const Float32PrecisionGuard mode(test::float32_mode(precision));
    const KernelInputs inputs = inputs_of({2, 19, 5, 12, 40}, precision);
    for (const KernelPlan& plan : kernel_plans(inputs.problem())) {
      SCOPED_TRACE(std::string(precision.name) + ", " + plan.row->name);
      const Tensor values = inputs.weight.clone();
      KernelInputs fresh = inputs;
      fresh.weight = inputs.weight.clone();
      const std::int64_t first = allocations_of([&] { fresh.run(plan); });
      const std::int64_t second = allocations_of([&] { fresh.run(plan); });
      EXPECT_EQ(second, first - 1);
      const Tensor before = fresh.run(plan);
      fresh.weight.copy_(values * -1.0);
      EXPECT_EQ(allocations_of([&] { fresh.run(plan); }), first);
      const Tensor after = fresh.run(plan);
      EXPECT_GT(test::relative_error(after, before), 0.1);
      KernelInputs turned = inputs;
      turned.weight = values * -1.0;
      test::expect_same_bits(after, turned.run(plan));
    }
  }
}

TEST_F(FusedKernelChoice, ResultsFollowAnOptimizer) {
  const EnvironmentGuard by_rule("TENON_AUTOTUNE", "0");
  KernelInputs inputs = inputs_of({2, 64, 5, 12, 64});
  const Tensor weight = inputs.weight.requires_grad_();
  optim::SGD optimizer({weight}, {.lr = 0.1});
  for (int step = 0; step < 3; ++step) {
    const Tensor z = inputs.run_op();
    optimizer.zero_grad();
    ops::mean(ops::square(z)).backward();
    optimizer.step();
    const NoGradGuard no_grad;
    KernelInputs copied = inputs;
    copied.weight = weight.detach().clone();
    const Tensor after = inputs.run_op();
    EXPECT_GT(test::relative_error(after, z.detach()), 0.0) << step;
    test::expect_same_bits(after, copied.run_op());
  }
}

// ---- compiled modules ------------------------------------------------------------------------

/// The README's.
struct Decoder : nn::Module {
  nn::Linear project{32, 64 * 7 * 7};
  nn::ConvTranspose2d up1{64, 32, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}};
  nn::ConvTranspose2d up2{32, 1, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}};

  Decoder() {
    add("project", project);
    add("up1", up1);
    add("up2", up2);
  }
  Tensor forward(const Tensor& codes) override {
    Tensor h = project(codes).reshape({-1, 64, 7, 7});
    h = ops::hardtanh(ops::mish(up1(h)) + 0.5) * 2.0;
    return ops::sigmoid(up2(h));
  }
};

TEST_F(FusedKernelChoice, IsInTheReportOfACompiledModule) {
  if (!has_sm90_rows()) GTEST_SKIP() << "no rows of sm_90a in this build or on this GPU";
  const EnvironmentGuard by_rule("TENON_AUTOTUNE", "0");
  const NoGradGuard no_grad;
  manual_seed(0);
  Decoder decoder;
  decoder.to(Device::cuda());
  const graph::CompiledFunction fast = graph::compile(decoder);
  const Tensor codes = randn({16, 32}).to(Device::cuda());
  EXPECT_LE(test::relative_error(fast(codes), decoder.forward(codes)), 1e-3);
  EXPECT_NE(fast.report().find("cuda fused kernel ("), std::string::npos) << fast.report();
}

}  // namespace
}  // namespace tenon

#else

TEST(FusedKernelChoice, IsThereWithCudaOnly) {
  GTEST_SKIP() << "built without CUDA: nothing was run";
}

#endif
