#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/nn/linear.h"
#include "tenon/nn/optim.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/support/devices.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using nn::TensorMap;
using optim::Adam;
using optim::AdamOptions;
using optim::AdamW;
using optim::AdamWOptions;
using optim::Optimizer;
using optim::ParameterGroup;
using optim::SGD;
using optim::SGDOptions;
using test::expect_error;

Tensor leaf(const std::vector<double>& values, DType dtype = DType::Float64,
            Device device = Device::cpu()) {
  return tensor(values, {static_cast<std::int64_t>(values.size())})
      .to(device, dtype)
      .clone()
      .requires_grad_();
}

const std::vector<double> kStart = {0.5, -1.25, 2.0};

/// The gradients that all of the tests below use.
std::vector<double> gradient_of(int step) {
  return {0.1 * (step + 1), -0.3 + 0.2 * step, 1.5 / (step + 1)};
}

void run(Optimizer& optimizer, const Tensor& parameter, int first, int last) {
  for (int step = first; step < last; ++step) {
    parameter.set_grad(tensor(gradient_of(step), {3}).to(parameter.device(), parameter.dtype()));
    optimizer.step();
  }
}

void expect_near(const Tensor& parameter, const std::vector<double>& expected, double tolerance) {
  const std::vector<double> values = parameter.to_vector<double>();
  ASSERT_EQ(values.size(), expected.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_NEAR(values[i], expected[i], tolerance) << i;
  }
}

// ---- five steps of torch.optim in float64 -------------------------------------------------------

/// An optimizer and where PyTorch 2.11 gets with it.
struct Case {
  const char* name;
  std::function<std::unique_ptr<Optimizer>(const std::vector<Tensor>&)> make;
  std::vector<double> expected;
};

template <class O, class Options>
std::function<std::unique_ptr<Optimizer>(const std::vector<Tensor>&)> maker(Options options) {
  return [options](const std::vector<Tensor>& parameters) {
    return std::make_unique<O>(parameters, options);
  };
}

std::vector<Case> cases() {
  return {
      {"Sgd", maker<SGD>(SGDOptions{.lr = 0.1}), {0.34999999999999998, -1.3, 1.6575}},
      {"SgdMomentum",
       maker<SGD>(SGDOptions{.lr = 0.1, .momentum = 0.9}),
       {0.18296899999999991, -1.2268570000000001, 0.89106000000000007}},
      {"SgdDampeningDecay",
       maker<SGD>(SGDOptions{.lr = 0.1, .momentum = 0.8, .dampening = 0.3, .weight_decay = 0.05}),
       {0.26715306473215544, -1.1636052795476386, 1.1066940480940524}},
      {"SgdNesterovDecay",
       maker<SGD>(SGDOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.01, .nesterov = true}),
       {0.057493468707169315, -1.2592359648765739, 0.63322834528456529}},
      {"Adam",
       maker<Adam>(AdamOptions{.lr = 0.05}),
       {0.25745846586800514, -1.1635063979866478, 1.7799269571225467}},
      {"AdamDecay",
       maker<Adam>(AdamOptions{.lr = 0.05, .betas = {0.7, 0.95}, .eps = 1e-3, .weight_decay = 0.1}),
       {0.24276817843558246, -1.1381355255186851, 1.7853005868033878}},
      {"AdamW",
       maker<AdamW>(AdamWOptions{.lr = 0.05}),
       {0.25645389105706168, -1.160569260679803, 1.7751659361516186}},
      {"AdamWOptions",
       maker<AdamW>(
           AdamWOptions{.lr = 0.05, .betas = {0.7, 0.95}, .eps = 1e-3, .weight_decay = 0.1}),
       {0.23438764192365266, -1.1730844587205591, 1.7482145290165585}},
  };
}

class AgainstPyTorch : public testing::TestWithParam<Case> {};

TEST_P(AgainstPyTorch, FiveStepsInFloat64) {
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Tensor parameter = leaf(kStart, DType::Float64, device);
    run(*GetParam().make({parameter}), parameter, 0, 5);
    expect_near(parameter, GetParam().expected, 1e-14);
  }
}

TEST_P(AgainstPyTorch, FiveStepsInFloat32) {
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Tensor parameter = leaf(kStart, DType::Float32, device);
    run(*GetParam().make({parameter}), parameter, 0, 5);
    expect_near(parameter, GetParam().expected, 1e-6);
  }
}

TEST_P(AgainstPyTorch, StateRestoredHalfwayGivesTheSameBits) {
  for (const Device device : test::test_devices()) {
    SCOPED_TRACE(testing::Message() << device);
    const Tensor whole = leaf(kStart, DType::Float64, device);
    run(*GetParam().make({whole}), whole, 0, 5);

    const Tensor parameter = leaf(kStart, DType::Float64, device);
    const auto first = GetParam().make({parameter});
    run(*first, parameter, 0, 2);
    const TensorMap state = first->state_dict();
    run(*first, parameter, 2, 3);  // the saved state is a copy, this must not change it
    const Tensor copy = leaf(kStart, DType::Float64, device);
    const auto other = GetParam().make({copy});
    run(*other, copy, 0, 2);
    const auto second = GetParam().make({copy});
    second->set_lr(99);
    second->load_state_dict(state);
    run(*second, copy, 2, 5);
    EXPECT_EQ(copy.to_vector<double>(), whole.to_vector<double>());
  }
}

INSTANTIATE_TEST_SUITE_P(All, AgainstPyTorch, testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

// ---- the first step by hand ---------------------------------------------------------------------

TEST(Sgd, FirstMomentumIsTheGradientWithoutDampening) {
  const Tensor parameter = leaf({1});
  SGD optimizer({parameter}, {.lr = 0.5, .momentum = 0.9, .dampening = 0.5});
  parameter.set_grad(tensor<double>({2}));
  optimizer.step();
  EXPECT_EQ(parameter.item(), 0);  // 1 − 0.5·2
  optimizer.step();
  EXPECT_DOUBLE_EQ(parameter.item(), -0.5 * (0.9 * 2 + 0.5 * 2));
}

TEST(Adam, FirstStepIsTheLearningRateWhateverTheGradient) {
  for (double gradient : {1e-4, 3.0, -250.0}) {
    const Tensor parameter = leaf({1});
    Adam optimizer({parameter}, {.lr = 0.01, .eps = 0});
    parameter.set_grad(tensor<double>({gradient}));
    optimizer.step();
    EXPECT_NEAR(parameter.item(), 1 - std::copysign(0.01, gradient), 1e-15);
  }
}

TEST(AdamW, DecayIsDecoupledFromTheGradient) {
  const Tensor parameter = leaf({4});
  AdamW optimizer({parameter}, {.lr = 0.5, .weight_decay = 0.1});
  parameter.set_grad(zeros({1}, {.dtype = DType::Float64}));
  optimizer.step();
  EXPECT_DOUBLE_EQ(parameter.item(), 4 * (1 - 0.5 * 0.1));
}

// ---- parameters, groups and gradients -----------------------------------------------------------

TEST(Optimizer, ParametersWithoutAGradientStayAndKeepNoState) {
  const Tensor used = leaf({1}), unused = leaf({1});
  Adam optimizer({used, unused}, {.lr = 0.1, .weight_decay = 0.5});
  used.set_grad(tensor<double>({1}));
  optimizer.step();
  EXPECT_NE(used.item(), 1);
  EXPECT_EQ(unused.item(), 1);
  EXPECT_EQ(optimizer.state_dict().count("state.0.exp_avg"), 1u);
  EXPECT_EQ(optimizer.state_dict().count("state.1.exp_avg"), 0u);
}

TEST(Optimizer, EachParameterCountsItsOwnSteps) {
  const Tensor often = leaf({1}), once = leaf({1});
  Adam optimizer({often, once}, {.lr = 0.1});
  for (int step = 0; step < 3; ++step) {
    often.set_grad(tensor<double>({1}));
    if (step == 2) once.set_grad(tensor<double>({1}));
    optimizer.step();
  }
  EXPECT_EQ(optimizer.state_dict().at("state.0.step").item<std::int64_t>(), 3);
  EXPECT_EQ(optimizer.state_dict().at("state.1.step").item<std::int64_t>(), 1);
  EXPECT_NEAR(once.item(), 0.9, 1e-8);  // as in a first step
}

TEST(Optimizer, GroupsHaveTheirOwnOptions) {
  const Tensor a = leaf({1}), b = leaf({1});
  SGD optimizer(std::vector<ParameterGroup<SGDOptions>>{{{a}, {.lr = 0.1}},
                                                        {{b}, {.lr = 0.5, .weight_decay = 1}}});
  a.set_grad(tensor<double>({1}));
  b.set_grad(tensor<double>({1}));
  optimizer.step();
  EXPECT_DOUBLE_EQ(a.item(), 0.9);
  EXPECT_DOUBLE_EQ(b.item(), 0);
  EXPECT_EQ(optimizer.group_count(), 2u);
  EXPECT_EQ(optimizer.lr(1), 0.5);
  EXPECT_TRUE(optimizer.parameters(1)[0].is_same(b));
  optimizer.set_lr(0.25);
  EXPECT_EQ(optimizer.lr(0), 0.25);
  EXPECT_EQ(optimizer.lr(1), 0.25);
}

TEST(Optimizer, StepRecordsNoHistoryAndIsSeenByAutograd) {
  const Tensor parameter = leaf({2});
  SGD optimizer({parameter}, {.lr = 0.1});
  const Tensor y = ops::sum(parameter * parameter);
  y.backward(Tensor(), true);
  optimizer.step();
  EXPECT_TRUE(parameter.is_leaf() && parameter.requires_grad());
  EXPECT_THROW(y.backward(), Error);  // a saved tensor was changed in place
}

TEST(Optimizer, ZeroGradForgetsTheGradients) {
  const Tensor parameter = leaf({2});
  SGD optimizer({parameter});
  parameter.set_grad(tensor<double>({1}));
  optimizer.zero_grad();
  EXPECT_FALSE(parameter.grad().defined());
}

TEST(Optimizer, StridedParametersAndGradients) {
  const Tensor base = test::counting({2, 3});
  const Tensor parameter = base.transpose(0, 1).detach().requires_grad_();
  AdamW optimizer({parameter}, {.lr = 0.5, .weight_decay = 0});
  parameter.set_grad(ones({2, 3}, {.dtype = DType::Float64}).transpose(0, 1));
  optimizer.step();
  expect_near(base, {-0.5, 0.5, 1.5, 2.5, 3.5, 4.5}, 1e-7);
}

class OptimizerOnDevice : public test::DeviceTest {};

TENON_DEVICE_TESTS(OptimizerOnDevice);

TEST(Optimizer, FollowsAModuleToAnotherDtype) {
  nn::Linear linear(2, 2);
  SGD optimizer(linear.parameters(), {.lr = 0.1});
  linear.to(DType::Float64);
  ops::sum(linear(ones({1, 2}, {.dtype = DType::Float64}))).backward();
  const std::vector<double> before = linear.bias.to_vector<double>();
  optimizer.step();
  expect_near(linear.bias, {before[0] - 0.1, before[1] - 0.1}, 1e-15);
}

/// Many odd-sized leaves of two dtypes.
std::vector<Tensor> many_leaves(Device device) {
  std::vector<Tensor> result;
  for (int i = 0; i < 130; ++i) {
    std::vector<double> values;
    for (int e = 0; e < 1 + i * 7 % 40; ++e) values.push_back(std::sin(i + 0.7 * e));
    result.push_back(leaf(values, i % 5 == 3 ? DType::Float64 : DType::Float32, device));
  }
  return result;
}

/// Gradients for one step. Number i has none in every (2 + i % 3)th step.
void set_gradients(const std::vector<Tensor>& parameters, int step) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const int period = 2 + static_cast<int>(i % 3);
    if ((step + static_cast<int>(i)) % period == 0) {
      parameters[i].set_grad({});
    } else {
      parameters[i].set_grad(parameters[i].detach() * (0.5 + 0.25 * step) + 0.125);
    }
  }
}

TEST_P(OptimizerOnDevice, AGroupOfManyStepsLikeOptimizersOfEach) {
  for (const Case& optimizer_case : cases()) {
    SCOPED_TRACE(optimizer_case.name);
    const std::vector<Tensor> together = many_leaves(device());
    const std::vector<Tensor> alone = many_leaves(device());
    const auto optimizer = optimizer_case.make(together);
    std::vector<std::unique_ptr<Optimizer>> optimizers;
    for (const Tensor& parameter : alone) optimizers.push_back(optimizer_case.make({parameter}));
    for (int step = 0; step < 4; ++step) {
      set_gradients(together, step);
      optimizer->step();
      set_gradients(alone, step);
      for (const auto& one : optimizers) one->step();
    }
    const TensorMap state = optimizer->state_dict();
    for (std::size_t i = 0; i < alone.size(); ++i) {
      ASSERT_EQ(together[i].to_vector<double>(), alone[i].to_vector<double>()) << i;
      const TensorMap own = optimizers[i]->state_dict();
      const std::string prefix = "state." + std::to_string(i) + ".";
      for (const char* name : {"step", "momentum_buffer", "exp_avg", "exp_avg_sq"}) {
        const auto expected = own.find(std::string("state.0.") + name);
        ASSERT_EQ(state.count(prefix + name), expected == own.end() ? 0u : 1u) << i << name;
        if (expected == own.end()) continue;
        ASSERT_EQ(state.at(prefix + name).to_vector<double>(), expected->second.to_vector<double>())
            << i << name;
      }
    }
  }
}

TEST_P(OptimizerOnDevice, AStepThatThrowsCountsForNothing) {
  for (const Case& optimizer_case : cases()) {
    if (std::string(optimizer_case.name) == "Sgd") continue;  // has no state that could not fit
    SCOPED_TRACE(optimizer_case.name);
    nn::Linear linear(2, 1);
    linear.to(device());
    const Tensor late = leaf({1, 2}, DType::Float32, device());
    const auto optimizer = optimizer_case.make({late, linear.weight});
    linear.weight.set_grad(ones({1, 2}, {.device = device()}));
    optimizer->step();
    const TensorMap before = optimizer->state_dict();
    linear.to(DType::Float64);  // the state stays behind
    linear.weight.set_grad(ones({1, 2}, {.dtype = DType::Float64, .device = device()}));
    late.set_grad(ones({2}, {.device = device()}));
    EXPECT_THROW(optimizer->step(), Error);
    const TensorMap after = optimizer->state_dict();
    ASSERT_EQ(after.size(), before.size());
    for (const auto& [name, value] : before) {
      EXPECT_EQ(after.at(name).to_vector<double>(), value.to_vector<double>()) << name;
    }
    EXPECT_EQ(late.to_vector<double>(), (std::vector<double>{1, 2}));
  }
}

TEST_P(OptimizerOnDevice, FitsALine) {
  manual_seed(2);
  const Tensor x = randn({64, 1}).to(device());
  const Tensor y = x * 3.0 - 1.0;
  nn::Linear linear(1, 1);
  Adam optimizer(linear.parameters(), {.lr = 0.1});
  linear.to(device());  // the optimizer follows
  for (int step = 0; step < 200; ++step) {
    optimizer.zero_grad();
    ops::mse_loss(linear(x), y).backward();
    optimizer.step();
  }
  EXPECT_NEAR(linear.weight.item(), 3, 1e-3);
  EXPECT_NEAR(linear.bias.item(), -1, 1e-3);
}

// ---- what is refused ----------------------------------------------------------------------------

TEST(OptimizerBadInput, NoParameters) {
  expect_error([] { SGD(std::vector<Tensor>{}); }, {"SGD", "no parameters"});
}

TEST(OptimizerBadInput, UndefinedParameter) {
  expect_error(
      [] {
        Adam(std::vector<Tensor>{leaf({1}), Tensor()});
      },
      {"Adam", "parameter 1", "undefined"});
}

TEST(OptimizerBadInput, ComputedParameter) {
  expect_error([] { SGD(std::vector<Tensor>{leaf({1}) * 2}); }, {"SGD", "parameter 0", "leaves"});
}

TEST(OptimizerBadInput, IntegerParameter) {
  expect_error([] { AdamW(std::vector<Tensor>{arange(0, 3)}); },
               {"AdamW", "parameter 0", "int64[3]"});
}

TEST(OptimizerBadInput, ParameterTwice) {
  const Tensor parameter = leaf({1});
  expect_error([&] { SGD({parameter, parameter}); }, {"SGD", "parameter 1", "twice"});
}

TEST(OptimizerBadInput, NegativeNumbers) {
  const std::vector<Tensor> p = {leaf({1})};
  expect_error([&] { SGD(p, {.lr = -0.5}); }, {"SGD", "lr", "-0.5"});
  expect_error([&] { SGD(p, {.momentum = -1}); }, {"SGD", "momentum", "-1"});
  expect_error([&] { SGD(p, {.weight_decay = -2}); }, {"SGD", "weight_decay", "-2"});
  expect_error([&] { Adam(p, {.eps = -1e-3}); }, {"Adam", "eps", "-0.001"});
  expect_error([&] { AdamW(p, {.lr = std::nan("")}); }, {"AdamW", "lr", "nan"});
}

TEST(OptimizerBadInput, BetaOfOne) {
  const std::vector<Tensor> p = {leaf({1})};
  expect_error([&] { Adam(p, {.betas = {0.9, 1.0}}); }, {"Adam", "betas", "got 1"});
  expect_error([&] { AdamW(p, {.betas = {-0.1, 0.9}}); }, {"AdamW", "betas", "-0.1"});
}

TEST(OptimizerBadInput, NesterovWithoutMomentumOrWithDampening) {
  const std::vector<Tensor> p = {leaf({1})};
  expect_error([&] { SGD(p, {.nesterov = true}); }, {"SGD", "nesterov", "momentum 0"});
  expect_error([&] { SGD(p, {.momentum = 0.9, .dampening = 0.1, .nesterov = true}); },
               {"SGD", "nesterov", "dampening 0.1"});
}

TEST(OptimizerBadInput, UnknownOptionOrGroup) {
  SGD optimizer({leaf({1})});
  expect_error([&] { optimizer.set_option(0, "beta1", 0); }, {"SGD", "'beta1'"});
  expect_error([&] { optimizer.option(0, "speed"); }, {"'speed'"});
  expect_error([&] { optimizer.lr(1); }, {"SGD", "group 1"});
  expect_error([&] { optimizer.parameters(2); }, {"SGD", "group 2"});
}

/// Loading `state` changed by `edit` must throw with `message` and leave the optimizer as it was.
void expect_refused(const std::function<void(TensorMap&)>& edit,
                    const std::vector<std::string>& message) {
  const Tensor a = leaf(kStart), b = leaf({1, 2});
  Adam optimizer({a, b}, {.lr = 0.1});
  run(optimizer, a, 0, 2);
  TensorMap state = optimizer.state_dict();
  state.at("groups.0.lr").fill_(5);
  state.at("state.0.exp_avg").fill_(7);
  edit(state);
  expect_error([&] { optimizer.load_state_dict(state); }, message);
  EXPECT_EQ(optimizer.lr(), 0.1);
  EXPECT_NE(optimizer.state_dict().at("state.0.exp_avg").to_vector<double>()[0], 7);
}

TEST(OptimizerBadInput, LoadingStatesThatDoNotFit) {
  const auto number = [](double value) { return scalar_tensor(value, {.dtype = DType::Float64}); };
  expect_refused([](TensorMap& s) { s.erase("groups.0.lr"); },
                 {"Adam", "'groups.0.lr'", "missing"});
  expect_refused([&](TensorMap& s) { s["groups.0.momentum"] = number(1); },
                 {"Adam", "unexpected", "'groups.0.momentum'"});
  expect_refused([&](TensorMap& s) { s["groups.1.lr"] = number(1); },
                 {"Adam", "unexpected", "'groups.1.lr'"});
  expect_refused([](TensorMap& s) { s["groups.0.lr"] = zeros({}); },
                 {"Adam", "'groups.0.lr'", "float32[]", "float64[]"});
  expect_refused([](TensorMap& s) { s.at("groups.0.parameters").fill_(3); },
                 {"Adam", "'groups.0.parameters'", "3", "2 parameters"});
  expect_refused([](TensorMap& s) { s["state.0.exp_avg"] = zeros({4}, {.dtype = DType::Float64}); },
                 {"Adam", "'state.0.exp_avg'", "float64[4]", "float64[3]"});
  expect_refused([](TensorMap& s) { s["state.0.exp_avg_sq"] = zeros({3}); },
                 {"Adam", "'state.0.exp_avg_sq'", "float32[3]"});
  expect_refused([](TensorMap& s) { s.erase("state.0.exp_avg_sq"); },
                 {"Adam", "'state.0.exp_avg_sq'", "missing"});
  expect_refused([](TensorMap& s) { s.erase("state.0.step"); }, {"Adam", "unexpected", "state.0"});
  expect_refused([](TensorMap& s) { s.at("state.0.step").fill_(0); },
                 {"Adam", "'state.0.step'", "at least 1", "0"});
  expect_refused([](TensorMap& s) { s["state.2.step"] = s.at("state.0.step"); },
                 {"Adam", "unexpected", "'state.2.step'"});
  expect_refused([](TensorMap& s) { s["state.0.exp_avg"] = Tensor(); },
                 {"Adam", "'state.0.exp_avg'", "undefined"});
}

}  // namespace
}  // namespace tenon
