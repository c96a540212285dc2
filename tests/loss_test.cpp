#include "tenon/ops/loss.h"

#include <cmath>
#include <limits>

#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

using ops::Reduction;

Tensor float64(const std::vector<double>& values, const Shape& shape) {
  return tensor(values, shape);
}

double total(const Tensor& x) {
  double result = 0;
  for (const double value : x.to_vector<double>()) result += value;
  return result;
}

/// The reference of an elementwise loss, reduced.
std::function<Tensor(Inputs)> reduced(const std::function<double(Values)>& loss,
                                      Reduction reduction) {
  return [=](Inputs inputs) {
    const Tensor losses = elementwise(loss)(inputs);
    if (reduction == Reduction::None) return losses;
    const double count = reduction == Reduction::Mean ? static_cast<double>(losses.numel()) : 1;
    return full({}, total(losses) / count, {.dtype = DType::Float64});
  };
}

const std::vector<std::pair<std::string, Reduction>> kReductions = {
    {"none", Reduction::None}, {"mean", Reduction::Mean}, {"sum", Reduction::Sum}};

/// Input x, target t in [0.1, 0.9].
std::vector<OpCase> elementwise_cases() {
  std::vector<OpCase> cases;
  for (const auto& entry : kReductions) {
    const Reduction reduction = entry.second;
    // The last are more than one block of a kernel and one chunk of a thread hold.
    const OpCase common{.shapes = {{{3, 5}, {3, 5}},
                                   {{7}, {7}},
                                   {{}, {}},
                                   {{2, 3, 5}, {2, 3, 5}},
                                   {{1, 1}, {1, 1}},
                                   {{5, 3, 41}, {5, 3, 41}},
                                   {{71, 1031}, {71, 1031}}},
                        .low = 0.1,
                        .high = 0.9,
                        .slack = 8};
    OpCase mse = common;
    mse.name = "mse_" + entry.first;
    mse.function = [=](Inputs x) { return ops::mse_loss(x[0], x[1], reduction); };
    mse.reference = reduced([](Values v) { return (v[0] - v[1]) * (v[0] - v[1]); }, reduction);
    cases.push_back(mse);
    OpCase l1 = common;
    l1.name = "l1_" + entry.first;
    l1.function = [=](Inputs x) { return ops::l1_loss(x[0], x[1], reduction); };
    l1.reference = reduced([](Values v) { return std::abs(v[0] - v[1]); }, reduction);
    cases.push_back(l1);
    OpCase bce = common;
    bce.name = "bce_with_logits_" + entry.first;
    bce.function = [=](Inputs x) {
      return ops::bce_with_logits(x[0], x[1], {.reduction = reduction});
    };
    bce.reference = reduced(
        [](Values v) {
          const double p = 1 / (1 + std::exp(-v[0]));
          return -(v[1] * std::log(p) + (1 - v[1]) * std::log(1 - p));
        },
        reduction);
    cases.push_back(bce);
  }
  return cases;
}

TENON_OP_TESTS(ElementwiseLoss, elementwise_cases());

// ---- mse_loss and l1_loss beyond what the table above has
// ----------------------------------------

class DifferenceLoss : public DeviceTest {
 protected:
  Tensor drawn(const Shape& shape, std::uint64_t seed, DType dtype = DType::Float64) const {
    Generator generator(seed);
    return draw(shape, dtype, -1, 1, generator).to(device());
  }
};

TENON_DEVICE_TESTS(DifferenceLoss);

/// The mean of (x - target)², in float64.
double reference_mse(const Tensor& x, const Tensor& target) {
  const std::vector<double> a = x.to_vector<double>();
  const std::vector<double> b = target.to_vector<double>();
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum / static_cast<double>(a.size());
}

TEST_P(DifferenceLoss, InputAndTargetMayLieDifferently) {
  const Tensor x = drawn({3, 5, 7, 2}, 1);
  const Tensor target = drawn({3, 5, 7, 2}, 2);
  const double expected = reference_mse(x, target);
  const std::vector<double> difference = (x - target).to_vector<double>();
  std::vector<Layout> all = layouts();
  all.pop_back();  // expanded tensors hold other values
  all.push_back({"as_it_is", [](const Tensor& t) { return t; }});
  all.push_back(
      {"channels_last", [](const Tensor& t) { return t.to(MemoryFormat::ChannelsLast); }});
  for (const Layout& of_x : all) {
    for (const Layout& of_target : all) {
      SCOPED_TRACE(of_x.name + " and " + of_target.name);
      const Tensor a = of_x.apply(x).detach().requires_grad_();
      const Tensor b = of_target.apply(target).detach().requires_grad_();
      const Tensor loss = ops::mse_loss(a, b);
      EXPECT_NEAR(loss.item(), expected, 1e-14);
      loss.backward();
      std::vector<double> gradient;
      for (const double d : difference) gradient.push_back(2 * d / 210);
      expect_close(a.grad(), float64(gradient, {3, 5, 7, 2}));
      expect_close(b.grad(), -float64(gradient, {3, 5, 7, 2}));
    }
  }
}

TEST_P(DifferenceLoss, GradientsKeepTheMemoryFormat) {
  const Tensor x = drawn({2, 3, 4, 5}, 1).to(MemoryFormat::ChannelsLast).detach();
  const Tensor leaf = x.requires_grad_();
  const Tensor y = leaf * 2;
  y.retain_grad();
  ops::mse_loss(y, drawn({2, 3, 4, 5}, 2).to(MemoryFormat::ChannelsLast)).backward();
  EXPECT_TRUE(y.grad().is_contiguous(MemoryFormat::ChannelsLast));
}

TEST_P(DifferenceLoss, OnlyTheGradientsAskedForAreComputed) {
  for (const auto& loss : {ops::mse_loss, ops::l1_loss}) {
    const Tensor x = drawn({7}, 1);
    const Tensor target = drawn({7}, 2);
    x.requires_grad_();
    loss(x, target, Reduction::Mean).backward();
    EXPECT_TRUE(x.grad().defined());
    EXPECT_FALSE(target.grad().defined());
    const Tensor fixed = x.detach();
    target.requires_grad_();
    loss(fixed, target, Reduction::Mean).backward();
    EXPECT_FALSE(fixed.grad().defined());
    expect_close(target.grad(), -x.grad());
  }
}

TEST_P(DifferenceLoss, OfATensorWithItselfIsZeroWithGradientZero) {
  for (const auto& loss : {ops::mse_loss, ops::l1_loss}) {
    const Tensor x = drawn({33}, 1);
    x.requires_grad_();
    const Tensor result = loss(x, x, Reduction::Sum);
    EXPECT_EQ(result.item(), 0);
    result.backward();
    EXPECT_EQ(x.grad().to_vector<double>(), std::vector<double>(33, 0.0));
  }
}

TEST_P(DifferenceLoss, DifferentDtypesArePromoted) {
  const Tensor x = drawn({3, 7}, 1, DType::Float32);
  const Tensor target = drawn({3, 7}, 2);
  x.requires_grad_();
  const Tensor loss = ops::mse_loss(x, target);
  EXPECT_EQ(loss.dtype(), DType::Float64);
  EXPECT_NEAR(loss.item(), reference_mse(x, target), 1e-14);
  loss.backward();
  EXPECT_EQ(x.grad().dtype(), DType::Float32);
}

TEST_P(DifferenceLoss, IntegersAreSummedButHaveNoMean) {
  const Tensor x = tensor<std::int64_t>({1, 5, -2}).to(device());
  const Tensor target = tensor<std::int64_t>({3, 5, 2}).to(device());
  EXPECT_EQ(ops::mse_loss(x, target, Reduction::Sum).item<std::int64_t>(), 20);
  EXPECT_EQ(ops::l1_loss(x, target, Reduction::Sum).item<std::int64_t>(), 6);
  expect_error([&] { ops::mse_loss(x, target); }, {"mean", "floating"});
}

TEST_P(DifferenceLoss, TheMeanOverManyElementsDoesNotOverflow) {
  const TensorOptions options{.dtype = DType::Float16, .device = device()};
  const Tensor x = full({70000}, 16, options);
  x.requires_grad_();
  const Tensor loss = ops::mse_loss(x, zeros({70000}, options));
  EXPECT_EQ(loss.item(), 256);
  loss.backward();
  expect_close(x.grad().narrow(0, 0, 3), full({3}, 2 * 16 / 70000.0, {.dtype = DType::Float64}));
}

TEST_P(DifferenceLoss, OfNoElements) {
  const Tensor x = zeros({3, 0}, {.device = device()});
  x.requires_grad_();
  const Tensor target = zeros({3, 0}, {.device = device()});
  EXPECT_EQ(ops::mse_loss(x, target, Reduction::Sum).item(), 0);
  EXPECT_EQ(ops::l1_loss(x, target, Reduction::Sum).item(), 0);
  const Tensor mean = ops::mse_loss(x, target);
  EXPECT_TRUE(std::isnan(mean.item()));
  mean.backward();
  EXPECT_EQ(x.grad().shape(), (Shape{3, 0}));
}

TEST_P(DifferenceLoss, NanComesThrough) {
  const Tensor x = tensor<float>({1, NAN, 2}).to(device());
  const Tensor target = zeros({3}, {.device = device()});
  EXPECT_TRUE(std::isnan(ops::mse_loss(x, target).item()));
  EXPECT_TRUE(std::isnan(ops::l1_loss(x, target).item()));
}

TEST_P(DifferenceLoss, GivesTheSameBitsAgain) {
  const Tensor x = drawn({64, 784}, 1, DType::Float32);
  const Tensor target = drawn({64, 784}, 2, DType::Float32);
  const float first = ops::mse_loss(x, target).item<float>();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ops::mse_loss(x, target).item<float>(), first);
}

/// Target classes of as many samples as an input [N, C, ...] has: 0, 1, …, C-1, 0, …
Tensor counting_target(const Shape& shape) {
  Shape samples = shape;
  samples.erase(1);
  std::vector<std::int64_t> classes;
  for (std::int64_t i = 0; i < samples.numel(); ++i) classes.push_back(i % shape[1]);
  return tensor(classes, samples);
}

/// Cross entropy of every sample from the definition.
Tensor reference_cross_entropy(const Tensor& x, Reduction reduction) {
  const Shape& shape = x.shape();
  const std::vector<double> scores = x.to_vector<double>();
  const Tensor target = counting_target(shape);
  const std::vector<std::int64_t> classes = target.to_vector<std::int64_t>();
  const std::int64_t inner = contiguous_strides(shape)[1];
  std::vector<double> losses;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    const std::int64_t n = static_cast<std::int64_t>(i) / inner;
    const std::int64_t first = n * shape[1] * inner + static_cast<std::int64_t>(i) % inner;
    const auto score = [&](std::int64_t c) {
      return scores[static_cast<std::size_t>(first + c * inner)];
    };
    double sum = 0;
    for (std::int64_t c = 0; c < shape[1]; ++c) sum += std::exp(score(c));
    losses.push_back(std::log(sum) - score(classes[i]));
  }
  const Tensor all = tensor(losses, target.shape());
  if (reduction == Reduction::None) return all;
  const double count = reduction == Reduction::Mean ? static_cast<double>(losses.size()) : 1;
  return full({}, total(all) / count, {.dtype = DType::Float64});
}

std::vector<OpCase> cross_entropy_cases() {
  std::vector<OpCase> cases;
  for (const auto& entry : kReductions) {
    const Reduction reduction = entry.second;
    cases.push_back(
        {.name = "cross_entropy_" + entry.first,
         .function =
             [=](Inputs x) {
               return ops::cross_entropy(x[0], counting_target(x[0].shape()).to(x[0].device()),
                                         {.reduction = reduction});
             },
         .reference = [=](Inputs x) { return reference_cross_entropy(x[0], reduction); },
         .shapes = {{{3, 5}}, {{7, 3}}, {{1, 1}}, {{2, 5, 3}}, {{2, 3, 2, 2}}, {{131, 10}}},
         .slack = 8});
  }
  return cases;
}

TENON_OP_TESTS(CrossEntropy, cross_entropy_cases());

// ---- values and gradients that PyTorch 2.15 gives -----------------------------------------------

Tensor scores(Device device) {
  const Tensor x =
      float64({0.5, -1.25, 2.0, 1.5, 0.25, -0.75, -2.0, 0.0, 1.0, 0.125, 3.0, -0.5}, {4, 3})
          .to(device);
  return x.requires_grad_();
}

Tensor target_with_one_ignored(Device device) {
  return tensor<std::int64_t>({2, -100, 1, 1}).to(device);
}

class CrossEntropyOptions : public DeviceTest {};

TENON_DEVICE_TESTS(CrossEntropyOptions);

void expect_loss(const Tensor& loss, const Tensor& x, double value,
                 const std::vector<double>& gradient) {
  expect_close(loss, full({}, value, {.dtype = DType::Float64}), 10);
  loss.backward();
  expect_close(x.grad(), float64(gradient, x.shape()), 100, "gradient");
}

TEST_P(CrossEntropyOptions, IgnoredSamplesCountForNothing) {
  const Tensor x = scores(device());
  expect_loss(ops::cross_entropy(x, target_with_one_ignored(device())), x, 0.5549000667006966,
              {0.05894006070248143, 0.01024224677547881, -0.06918230747796024, 0, 0, 0,
               0.01170634231977991, -0.24683451321919364, 0.23512817089941368, 0.01730641063986782,
               -0.0265698647214998, 0.0092634540816319});
}

TEST_P(CrossEntropyOptions, LabelSmoothing) {
  const Tensor x = scores(device());
  expect_loss(
      ops::cross_entropy(x, tensor<std::int64_t>({2, 0, 1, 1}).to(device()),
                         {.label_smoothing = 0.1}),
      x, 0.6290515357106619,
      {0.03587171219352774, -0.00065164825172423, -0.03522006394180352, -0.05372324804556711,
       0.04312581766607956, 0.01059743037948755, 0.0004464234065016, -0.16845921824772858,
       0.16801279484122694, 0.00464647464656754, -0.00326073187445819, -0.00138574277210941});
}

TEST_P(CrossEntropyOptions, WeightsIgnoredSamplesAndSmoothingTogether) {
  const Tensor weight = tensor<double>({0.5, 1, 2}).to(device());
  const Tensor x = scores(device());
  expect_loss(ops::cross_entropy(x, target_with_one_ignored(device()),
                                 {.weight = weight, .label_smoothing = 0.1}),
              x, 0.5707637470572385,
              {0.08055967059315039, 0.00638989640641746, -0.08694956699956784, 0, 0, 0,
               0.00475941935216551, -0.1673779829963018, 0.1626185636441363, 0.00902947144623255,
               0.00057381148318977, -0.00960328292942234});
  const Tensor none =
      ops::cross_entropy(x, target_with_one_ignored(device()),
                         {.weight = weight, .reduction = Reduction::None, .label_smoothing = 0.1});
  expect_close(none,
               tensor<double>({0.5791921342788959, 0, 1.3381624203809896, 0.3657004335690684}), 10);
}

TEST_P(CrossEntropyOptions, TargetsMayBeProbabilities) {
  const Tensor target =
      float64({.2, .3, .5, 1, 0, 0, .25, .25, .5, 0, .5, .5}, {4, 3}).to(device());
  const Tensor x = scores(device());
  expect_loss(
      ops::cross_entropy(
          x, target, {.weight = tensor<double>({0.5, 1, 2}).to(device()), .label_smoothing = 0.1}),
      x, 1.6291645631537222,
      {0.03418894600864541, -0.06525821353765146, 0.03106926752900606, -0.01488761833693247,
       0.02082685223300064, -0.00593923389606817, -0.0204024127481402, 0.02326703084508979,
       -0.00286461809694962, 0.01487038503718794, 0.2166064821396836, -0.23147686717687158});
}

TEST_P(CrossEntropyOptions, NothingButIgnoredSamplesGivesNan) {
  const Tensor target = tensor<std::int64_t>({-100, -100}).to(device());
  EXPECT_TRUE(std::isnan(ops::cross_entropy(zeros({2, 3}, {.device = device()}), target).item()));
}

TEST_P(CrossEntropyOptions, OneSampleNeedsNoBatchDimension) {
  const Tensor x = scores(device());
  const Tensor one =
      ops::cross_entropy(x.select(0, 0), full({}, 2, {.dtype = DType::Int64, .device = device()}));
  EXPECT_EQ(one.shape(), (Shape{}));
  const Tensor all = ops::cross_entropy(x, tensor<std::int64_t>({2, 0, 1, 1}).to(device()),
                                        {.reduction = Reduction::None});
  EXPECT_EQ(one.item(), all.to_vector<double>()[0]);
}

TEST_P(CrossEntropyOptions, IsNllLossOfLogSoftmax) {
  const Tensor x = scores(device());
  const Tensor target = target_with_one_ignored(device());
  EXPECT_EQ(ops::cross_entropy(x, target).item(),
            ops::nll_loss(ops::log_softmax(x, 1), target).item());
}

TEST_P(CrossEntropyOptions, TheMeanOverManySamplesDoesNotOverflow) {
  const Tensor x = zeros({70000, 2}, {.dtype = DType::Float16, .device = device()});
  const Tensor target = zeros({70000}, {.dtype = DType::Int64, .device = device()});
  EXPECT_NEAR(ops::cross_entropy(x, target).item(), std::log(2.0), 1e-3);
}

TEST(CrossEntropyErrors, NameTheTargetOrTheShapes) {
  const Tensor x = zeros({2, 3});
  expect_error(
      [&] {
        ops::cross_entropy(x, tensor<std::int64_t>({0, 3}));
      },
      {"target 3", "[0, 3)"});
  expect_error([&] { ops::cross_entropy(x, tensor<std::int64_t>({-1, 0})); }, {"target -1"});
  expect_error([&] { ops::cross_entropy(x, tensor<std::int64_t>({0})); }, {"[2, 3]", "[1]"});
  expect_error([&] { ops::cross_entropy(x, zeros({2, 4})); }, {"cross_entropy", "[2, 4]"});
  expect_error([&] { ops::nll_loss(x, zeros({2})); }, {"nll_loss", "int64"});
  const Tensor target = tensor<std::int64_t>({0, 1});
  expect_error([&] { ops::cross_entropy(x, target, {.weight = ones({2})}); }, {"weight", "[2]"});
  expect_error([&] { ops::cross_entropy(x, target, {.label_smoothing = 1.5}); },
               {"label_smoothing", "1.5"});
}

TEST(BceOptions, WeightsOfElementsAndOfThePositiveClass) {
  const Tensor target = float64({0, 1, .25, 1, 1, 0, .5, 0, 1, 0, 0, 1}, {4, 3});
  const Tensor x = scores(Device::cpu());
  expect_loss(
      ops::bce_with_logits(
          x, target,
          {.weight = tensor<double>({1, 2, 0.5}), .pos_weight = tensor<double>({2, 0.5, 1})}),
      x, 1.2947334168289109,
      {0.05187161093348788, -0.06477498843122427, 0.02628321158241176, -0.03040425396772606,
       -0.03648529159285016, 0.01336755420102529, -0.06843296808056865, 0.08333333333333333,
       -0.01120589255708313, 0.04426744778114636, 0.15876235447040557, -0.02593580546674394});
}

TEST(BceOptions, StaysAccurateForLargeScores) {
  const Tensor x = tensor<float>({30, 200, -200});
  const Tensor target = tensor<float>({1, 0, 1});
  const Tensor losses = ops::bce_with_logits(x, target, {.reduction = Reduction::None});
  const double tiny = std::exp(-30.0);
  expect_within(losses, tensor<double>({tiny, 200, 200}), {1e-6, 0}, "loss");
}

TEST(ElementwiseLossErrors, ShapesMustAgree) {
  expect_error([] { ops::mse_loss(zeros({2, 3}), zeros({3})); }, {"mse_loss", "[2, 3]", "[3]"});
  expect_error([] { ops::l1_loss(zeros({2}), zeros({2, 1})); }, {"l1_loss", "[2, 1]"});
  expect_error([] { ops::bce_with_logits(zeros({2}), zeros({1})); }, {"bce_with_logits", "[1]"});
}

}  // namespace
}  // namespace tenon::test
