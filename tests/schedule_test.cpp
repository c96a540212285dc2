#include "tenon/nn/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tenon/core/factories.h"
#include "tenon/nn/optim.h"
#include "tenon/tests/support/matchers.h"

namespace tenon {
namespace {

using nn::TensorMap;
using optim::Adam;
using optim::Anneal;
using optim::CosineAnnealingLR;
using optim::OneCycleLR;
using optim::OneCycleLROptions;
using optim::Schedule;
using optim::SGD;
using optim::StepLR;
using test::expect_error;

Tensor leaf() { return zeros({1}, {.requires_grad = true}); }

/// An option of the optimizer at steps 0 … expected.size() − 1.
void expect_course(const optim::Optimizer& optimizer, Schedule& schedule, std::string_view option,
                   const std::vector<double>& expected) {
  for (std::size_t step = 0; step < expected.size(); ++step) {
    if (step > 0) schedule.step();
    EXPECT_NEAR(optimizer.option(0, option), expected[step], 1e-14) << option << " at " << step;
  }
}

// ---- StepLR -------------------------------------------------------------------------------------

TEST(StepLR, AgreesWithPyTorch) {
  SGD optimizer({leaf()}, {.lr = 0.4});
  StepLR schedule(optimizer, {.step_size = 3, .gamma = 0.5});
  expect_course(optimizer, schedule, "lr", {0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1, 0.1});
}

TEST(StepLR, IsTheRepeatedProduct) {
  // PyTorch's recursion: multiply whenever the step is a multiple of the size.
  SGD optimizer({leaf()}, {.lr = 0.7});
  StepLR schedule(optimizer, {.step_size = 4, .gamma = 0.9});
  double expected = 0.7;
  for (int step = 1; step < 100; ++step) {
    schedule.step();
    if (step % 4 == 0) expected *= 0.9;
    EXPECT_NEAR(schedule.lr(), expected, 1e-15);
  }
}

TEST(StepLR, ScalesTheRateOfEachGroup) {
  SGD optimizer(std::vector<optim::ParameterGroup<optim::SGDOptions>>{{{leaf()}, {.lr = 1}},
                                                                      {{leaf()}, {.lr = 0.25}}});
  StepLR schedule(optimizer, {.step_size = 1, .gamma = 0.5});
  schedule.step();
  EXPECT_EQ(schedule.lr(0), 0.5);
  EXPECT_EQ(schedule.lr(1), 0.125);
}

// ---- CosineAnnealingLR --------------------------------------------------------------------------

TEST(CosineAnnealingLR, AgreesWithPyTorchAlsoBeyondTMax) {
  SGD optimizer({leaf()}, {.lr = 0.4});
  CosineAnnealingLR schedule(optimizer, {.t_max = 6, .eta_min = 0.1});
  expect_course(optimizer, schedule, "lr",
                {0.40000000000000002, 0.37990381056766587, 0.32500000000000007, 0.25,
                 0.17500000000000004, 0.1200961894323342, 0.10000000000000001, 0.1200961894323342,
                 0.17500000000000002, 0.25000000000000011, 0.32500000000000023, 0.37990381056766609,
                 0.40000000000000036, 0.3799038105676662});
}

TEST(CosineAnnealingLR, AgreesWithPyTorchsRecursion) {
  const double eta_min = 1e-3;
  const int t_max = 37;
  SGD optimizer({leaf()}, {.lr = 0.2});
  CosineAnnealingLR schedule(optimizer, {.t_max = t_max, .eta_min = eta_min});
  double expected = 0.2;
  for (int step = 1; step < 3 * t_max; ++step) {
    const double now = 1 + std::cos(std::numbers::pi * step / t_max);
    const double before = 1 + std::cos(std::numbers::pi * (step - 1) / t_max);
    if ((step - 1 - t_max) % (2 * t_max) == 0) {
      expected += (0.2 - eta_min) * (1 - std::cos(std::numbers::pi / t_max)) / 2;
    } else {
      expected = now / before * (expected - eta_min) + eta_min;
    }
    schedule.step();
    EXPECT_NEAR(schedule.lr(), expected, 1e-12) << step;
  }
}

// ---- OneCycleLR ---------------------------------------------------------------------------------

TEST(OneCycleLR, AgreesWithPyTorch) {
  const std::vector<double> lr = {0.040000000000000036,  0.52000000000000002, 1,
                                  0.95048463201347366,   0.81174565394976306, 0.61126202193628931,
                                  0.38874197806371075,   0.18825834605023697, 0.049519367986526286,
                                  3.9999999999999998e-06};
  const std::vector<double> momentum = {
      0.94999999999999996, 0.89999999999999991, 0.84999999999999998, 0.85495155660487898,
      0.86882550990706331, 0.88887395330218422, 0.91112604669781572, 0.93117449009293662,
      0.94504844339512095, 0.94999999999999996};
  for (const char* option : {"lr", "momentum"}) {
    SGD optimizer({leaf()}, {.lr = 0.4, .momentum = 0.9});
    OneCycleLR schedule(optimizer, {.max_lr = 1, .total_steps = 10});
    expect_course(optimizer, schedule, option, option[0] == 'l' ? lr : momentum);
  }
}

TEST(OneCycleLR, ThreeLinearPhasesAgreeWithPyTorch) {
  const std::vector<double> lr = {
      0.050000000000000003, 0.16842105263157892,  0.28684210526315784,  0.40526315789473677,
      0.4763157894736843,   0.35789473684210538,  0.23947368421052645,  0.12105263157894752,
      0.044176470588235317, 0.029617647058823544, 0.015058823529411777, 0.00050000000000000044};
  const std::vector<double> momentum = {
      0.90000000000000002, 0.84736842105263155, 0.79473684210526319, 0.74210526315789471,
      0.71052631578947356, 0.76315789473684204, 0.8157894736842104,  0.86842105263157887,
      0.90000000000000002, 0.90000000000000002, 0.90000000000000002, 0.90000000000000002};
  for (const char* option : {"lr", "momentum"}) {
    SGD optimizer({leaf()}, {.lr = 0.4, .momentum = 0.9});
    OneCycleLR schedule(optimizer, {.max_lr = 0.5,
                                    .total_steps = 12,
                                    .pct_start = 0.4,
                                    .anneal = Anneal::Linear,
                                    .base_momentum = 0.7,
                                    .max_momentum = 0.9,
                                    .div_factor = 10,
                                    .final_div_factor = 100,
                                    .three_phase = true});
    expect_course(optimizer, schedule, option, option[0] == 'l' ? lr : momentum);
  }
}

TEST(OneCycleLR, CyclesTheFirstBetaOfAdam) {
  Adam optimizer({leaf()}, {.betas = {0.5, 0.99}});
  OneCycleLR schedule(optimizer, {.max_lr = 1, .total_steps = 5});
  expect_course(optimizer, schedule, "beta1",
                {0.94999999999999996, 0.85495155660487898, 0.88887395330218422, 0.93117449009293662,
                 0.94999999999999996});
  EXPECT_EQ(optimizer.option(0, "beta2"), 0.99);
}

TEST(OneCycleLR, MomentumStaysWhenNotCycled) {
  SGD optimizer({leaf()}, {.momentum = 0.6});
  OneCycleLR schedule(optimizer, {.max_lr = 1, .total_steps = 5, .cycle_momentum = false});
  schedule.step();
  EXPECT_EQ(optimizer.option(0, "momentum"), 0.6);
}

TEST(OneCycleLR, CyclesOfVeryFewStepsAgreeWithPyTorch) {
  const std::vector<std::vector<double>> expected = {
      {3.9999999999999998e-06},
      {0.81174565394976295, 3.9999999999999998e-06},
      {0.99441543545091171, 0.46263710266697505, 3.9999999999999998e-06},
      {0.040000000000000036, 0.81174565394976295, 0.28306099820869923, 3.9999999999999998e-06}};
  for (const std::vector<double>& course : expected) {
    SGD optimizer({leaf()}, {.momentum = 0.9});
    OneCycleLR schedule(optimizer,
                        {.max_lr = 1, .total_steps = static_cast<std::int64_t>(course.size())});
    expect_course(optimizer, schedule, "lr", course);
  }
}

TEST(OneCycleLR, RisesThenFalls) {
  SGD optimizer({leaf()}, {});
  OneCycleLR schedule(optimizer, {.max_lr = 0.3, .total_steps = 100});
  double before = schedule.lr();
  EXPECT_NEAR(before, 0.3 / 25, 1e-15);
  for (int step = 1; step < 100; ++step) {
    schedule.step();
    EXPECT_EQ(schedule.lr() > before, step <= 29) << step;
    before = schedule.lr();
  }
  EXPECT_NEAR(before, 0.3 / 25 / 1e4, 1e-15);
}

// ---- state --------------------------------------------------------------------------------------

TEST(Schedule, StateRestoresTheStepAndTheBaseRates) {
  SGD optimizer({leaf()}, {.lr = 0.4});
  CosineAnnealingLR schedule(optimizer, {.t_max = 9});
  for (int i = 0; i < 4; ++i) schedule.step();
  const TensorMap state = schedule.state_dict();

  SGD other({leaf()}, {.lr = 77});
  CosineAnnealingLR restored(other, {.t_max = 9});
  restored.load_state_dict(state);
  EXPECT_EQ(restored.step_count(), 4);
  EXPECT_EQ(restored.lr(), schedule.lr());
  schedule.step();
  restored.step();
  EXPECT_EQ(restored.lr(), schedule.lr());
}

// ---- what is refused ----------------------------------------------------------------------------

TEST(ScheduleBadInput, StepSizeZero) {
  SGD optimizer({leaf()});
  expect_error([&] { StepLR(optimizer, {.step_size = 0}); }, {"StepLR", "step_size", "0"});
}

TEST(ScheduleBadInput, TMaxZero) {
  SGD optimizer({leaf()});
  expect_error([&] { CosineAnnealingLR(optimizer, {.t_max = 0}); },
               {"CosineAnnealingLR", "t_max", "0"});
}

TEST(ScheduleBadInput, OneCycleNumbers) {
  SGD optimizer({leaf()}, {.lr = 0.4});
  const auto refused = [&](OneCycleLROptions options, const std::vector<std::string>& message) {
    expect_error([&] { OneCycleLR(optimizer, options); }, message);
    EXPECT_EQ(optimizer.lr(), 0.4);
  };
  refused({.total_steps = 0}, {"OneCycleLR", "total_steps", "0"});
  refused({.total_steps = 5, .pct_start = 1.5}, {"OneCycleLR", "pct_start", "1.5"});
  refused({.total_steps = 5, .div_factor = 0}, {"OneCycleLR", "div_factor", "0"});
  refused({.total_steps = 5, .final_div_factor = -2}, {"OneCycleLR", "final_div_factor", "-2"});
}

TEST(ScheduleBadInput, SteppingBeyondTheCycle) {
  SGD optimizer({leaf()});
  OneCycleLR schedule(optimizer, {.max_lr = 1, .total_steps = 2});
  schedule.step();
  schedule.step();  // after the last batch; it changes nothing that is still used
  const double last = schedule.lr();
  expect_error([&] { schedule.step(); }, {"OneCycleLR", "step 3", "total_steps 2"});
  EXPECT_EQ(schedule.lr(), last);
  EXPECT_EQ(schedule.step_count(), 2);
}

TEST(ScheduleBadInput, LoadingStatesThatDoNotFit) {
  SGD optimizer({leaf()}, {.lr = 0.4});
  OneCycleLR schedule(optimizer, {.max_lr = 1, .total_steps = 10});
  const auto refused = [&](const std::function<void(TensorMap&)>& edit,
                           const std::vector<std::string>& message) {
    TensorMap state = schedule.state_dict();
    state.at("step").fill_(3);
    edit(state);
    expect_error([&] { schedule.load_state_dict(state); }, message);
    EXPECT_EQ(schedule.step_count(), 0);
  };
  refused([](TensorMap& s) { s.erase("step"); }, {"OneCycleLR", "'step'", "missing"});
  refused([](TensorMap& s) { s.erase("base_lr"); }, {"OneCycleLR", "'base_lr'", "missing"});
  refused([](TensorMap& s) { s["extra"] = zeros({}); }, {"OneCycleLR", "unexpected", "'extra'"});
  refused([](TensorMap& s) { s["step"] = zeros({}); }, {"OneCycleLR", "'step'", "float32[]"});
  refused([](TensorMap& s) { s["base_lr"] = zeros({2}, {.dtype = DType::Float64}); },
          {"OneCycleLR", "'base_lr'", "float64[2]", "float64[1]"});
  refused([](TensorMap& s) { s.at("step").fill_(-1); }, {"OneCycleLR", "'step'", "-1"});
  refused([](TensorMap& s) { s.at("step").fill_(11); }, {"OneCycleLR", "step 11"});
}

}  // namespace
}  // namespace tenon
