#include "tenon/ops/optimizer_step.h"

#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

const std::vector<double> kStart = {1.0, -2.0, 0.5};
const std::vector<std::vector<double>> kGradients = {
    {0.5, -0.25, 1.0}, {-1.0, 0.75, 0.125}, {0.25, 2.0, -0.5}};

std::vector<TensorOptions> every_device_and_precision() {
  std::vector<TensorOptions> result;
  for (const Device device : test_devices()) {
    for (const DType dtype : {DType::Float64, DType::Float32}) {
      result.push_back({.dtype = dtype, .device = device});
    }
  }
  return result;
}

/// A configuration, and where PyTorch 2.15 is after three steps from kStart.
struct SgdCase {
  std::string name;
  ops::SgdStep step;
  std::vector<double> expected;
};

std::ostream& operator<<(std::ostream& out, const SgdCase& sgd) { return out << sgd.name; }

std::vector<SgdCase> sgd_cases() {
  return {
      {"plain", {.learning_rate = 0.1}, {1.025, -2.25, 0.4375}},
      {"weight_decay",
       {.learning_rate = 0.1, .weight_decay = 0.01},
       {1.022002949, -2.243980973, 0.4362138995}},
      {"momentum", {.learning_rate = 0.1, .momentum = 0.9}, {1.0295, -2.27475, 0.25525}},
      {"dampening",
       {.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.5, .weight_decay = 0.01},
       {0.94291213725, -2.09521304325, 0.240239174875}},
      {"nesterov",
       {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true},
       {1.043668458191, -2.481191330807, 0.2142816896705}},
      {"maximize",
       {.learning_rate = 0.1, .weight_decay = 0.01, .maximize = true},
       {0.972003049, -1.744031023, 0.5607890995}},
      {"maximize_with_momentum",
       {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01, .maximize = true},
       {0.964804849, -1.714019623, 0.7415549995}},
  };
}

class Sgd : public testing::TestWithParam<SgdCase> {};

TEST_P(Sgd, FollowsPyTorchInEveryDtype) {
  for (const TensorOptions& options : every_device_and_precision()) {
    SCOPED_TRACE(tenon::detail::concat(options.dtype, " on ", options.device));
    const Tensor parameter = tensor(kStart, {3}).to(options.device, options.dtype).clone();
    const Tensor buffer = GetParam().step.momentum != 0 ? full({3}, 99, options) : Tensor();
    ops::SgdStep step = GetParam().step;
    step.first = true;
    for (const std::vector<double>& gradient : kGradients) {
      ops::sgd_step(parameter, tensor(gradient, {3}).to(options.device, options.dtype), buffer,
                    step);
      step.first = false;
    }
    expect_close(parameter, tensor(GetParam().expected, {3}), 2);
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizer, Sgd, testing::ValuesIn(sgd_cases()),
                         [](const auto& info) { return info.param.name; });

struct AdamCase {
  std::string name;
  ops::AdamStep step;
  std::vector<double> expected;
};

std::ostream& operator<<(std::ostream& out, const AdamCase& adam) { return out << adam.name; }

std::vector<AdamCase> adam_cases() {
  return {
      {"adam",
       {.learning_rate = 0.1},
       {0.9502794203389762, -2.0228681508503987, 0.3002675706638891}},
      {"betas_epsilon_and_decay",
       {.learning_rate = 0.1, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.01},
       {0.9538121391548589, -2.0297426414416075, 0.311018744434807}},
      {"adamw",
       {.learning_rate = 0.1, .weight_decay = 0.1, .decoupled = true},
       {0.9222023167767704, -1.9649619609463402, 0.2881642937819047}},
      {"maximize",
       {.learning_rate = 0.1, .weight_decay = 0.01, .maximize = true},
       {1.0470174086943005, -1.9735700353258483, 0.6985039205980469}},
  };
}

class Adam : public testing::TestWithParam<AdamCase> {};

TEST_P(Adam, FollowsPyTorchInEveryDtype) {
  for (const TensorOptions& options : every_device_and_precision()) {
    SCOPED_TRACE(tenon::detail::concat(options.dtype, " on ", options.device));
    const Tensor parameter = tensor(kStart, {3}).to(options.device, options.dtype).clone();
    const Tensor m = zeros({3}, options);
    const Tensor v = zeros({3}, options);
    ops::AdamStep step = GetParam().step;
    for (const std::vector<double>& gradient : kGradients) {
      ops::adam_step(parameter, tensor(gradient, {3}).to(options.device, options.dtype), m, v,
                     step);
      ++step.count;
    }
    expect_close(parameter, tensor(GetParam().expected, {3}), 10);
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizer, Adam, testing::ValuesIn(adam_cases()),
                         [](const auto& info) { return info.param.name; });

TEST(OptimizerStep, LayoutsOfGradientAndParameterMayDiffer) {
  Generator generator(5);
  const Tensor host_start = randn({37, 29}, {.dtype = DType::Float64}, generator);
  const Tensor host_gradient = randn({37, 29}, {.dtype = DType::Float64}, generator);
  const auto run = [&](const Tensor& parameter, const Tensor& grad) {
    const Tensor m = zeros_like(parameter);
    const Tensor v = zeros_like(parameter);
    ops::adam_step(parameter, grad, m, v, {.learning_rate = 0.1});
    const Tensor buffer = zeros_like(parameter);
    ops::sgd_step(parameter, grad, buffer, {.learning_rate = 0.1, .momentum = 0.5});
    ops::sgd_step(parameter, grad, {}, {.learning_rate = 0.1, .weight_decay = 0.5});
    return parameter;
  };
  const Tensor expected = run(host_start.clone(), host_gradient);
  for (const Device device : test_devices()) {
    const Tensor start = host_start.to(device);
    const Tensor gradient = host_gradient.to(device);
    expect_close(run(permuted(start), strided(gradient)), expected);
    expect_close(run(cut_out(start), permuted(gradient)), expected);
  }
}

TEST(OptimizerStepOnCuda, TakesPart) { TENON_SKIP_WITHOUT_GPU(); }

TEST(OptimizerStep, BumpsTheVersionSoThatAutogradNotices) {
  const Tensor parameter = tensor<double>({1, 2});
  parameter.requires_grad_();
  const Tensor y = ops::square(parameter);
  ops::sgd_step(parameter, ones({2}, {.dtype = DType::Float64}), {}, {});
  EXPECT_THROW(y.backward(ones({2}, {.dtype = DType::Float64})), Error);
}

TEST(OptimizerStepErrors, NameTheStepAndWhatIsWrong) {
  const Tensor parameter = ones({2});
  expect_error([&] { ops::sgd_step(parameter, ones({3}), {}, {}); }, {"sgd_step", "[2]", "[3]"});
  expect_error([&] { ops::sgd_step(parameter, ones({2}), {}, {.momentum = 0.9}); },
               {"sgd_step", "undefined"});
  const Tensor wide = ones({2}, {.dtype = DType::Float64});
  expect_error([&] { ops::adam_step(parameter, wide, parameter, parameter, {}); },
               {"adam_step", "float64"});
  expect_error([&] { ops::adam_step(parameter, ones({2}), ones({2}), ones({2}), {.count = 0}); },
               {"adam_step", "0"});
}

}  // namespace
}  // namespace tenon::test
