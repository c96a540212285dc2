#include "tenon/ops/optimizer_step.h"

#include <array>
#include <cmath>

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
    bool first = true;
    for (const std::vector<double>& gradient : kGradients) {
      const Tensor grad = tensor(gradient, {3}).to(options.device, options.dtype);
      ops::sgd_step({parameter, grad, buffer, first}, GetParam().step);
      first = false;
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
    std::int64_t count = 0;
    for (const std::vector<double>& gradient : kGradients) {
      const Tensor grad = tensor(gradient, {3}).to(options.device, options.dtype);
      ops::adam_step({parameter, grad, m, v, ++count}, GetParam().step);
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
    ops::adam_step({parameter, grad, m, v}, {.learning_rate = 0.1});
    const Tensor buffer = zeros_like(parameter);
    ops::sgd_step({parameter, grad, buffer}, {.learning_rate = 0.1, .momentum = 0.5});
    ops::sgd_step({parameter, grad}, {.learning_rate = 0.1, .weight_decay = 0.5});
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

// ---- many parameters in one call ----------------------------------------------------------------

constexpr std::size_t kTensors = 4;  // of a parameter: itself, its gradient, two of state

/// A parameter's tensors, laid out in one of several ways.
using Parts = std::array<Tensor, kTensors>;

/// Sizes around those of a pack of 16 bytes, of a block and of several, among them none.
std::int64_t elements_of(std::size_t i) {
  constexpr std::array<std::int64_t, 11> kSizes{1, 7, 0, 8, 33, 1023, 1024, 1025, 2051, 4099, 3};
  return kSizes[i % kSizes.size()];
}

/// Number `i`, drawn in `dtype`; what will be a second moment is not negative.
Parts draw_parts(std::size_t i, DType dtype, Device device) {
  Generator generator(1000 + i);
  Parts parts;
  for (std::size_t k = 0; k < kTensors; ++k) {
    const double low = k == 3 ? 0 : -1;
    parts[k] = draw({elements_of(i)}, dtype, low, 1, generator).to(device);
  }
  return parts;
}

/// The same numbers one element behind the beginning of their memory, so without alignment.
Tensor shifted(const Tensor& x) {
  const Tensor wide = zeros({x.numel() + 1}, {.dtype = x.dtype(), .device = x.device()});
  const Tensor view = wide.narrow(0, 1, x.numel());
  view.copy_(x);
  return view;
}

/// As [n, 1, 3] in column-major order where 3 divides the size; otherwise a plain copy.
Tensor turned(const Tensor& x) {
  return x.numel() % 3 == 0 ? permuted(x.reshape({-1, 1, 3})) : x.clone();
}

/// The layout of part `k` of parameter `i`: mostly all parts lie alike, at times they do not.
Tensor laid_out(const Tensor& x, std::size_t i, std::size_t k) {
  switch (i % 6) {
    case 0:
      return shifted(x);
    case 1:
      return turned(x);
    case 2:
      return k == 1 ? shifted(x) : x.clone();
    case 3:
      return k == 2 ? strided(x) : x.clone();
    default:
      return x.clone();
  }
}

/// More than one table of the GPU's kernel holds, whatever the optimizer.
constexpr std::size_t kParameters = 280;

class ManyParameters : public DeviceTest {
 protected:
  /// Changes all parameters in one call of `together`, and each without density and alone by
  /// `alone`; both take parts and number. Expects the same bits everywhere.
  template <class Together, class Alone>
  void expect_same(const std::vector<DType>& dtypes, const Together& together,
                   const Alone& alone) const {
    std::vector<Parts> parts(kParameters);
    for (std::size_t i = 0; i < kParameters; ++i) {
      const Parts drawn = draw_parts(i, dtypes[i % dtypes.size()], device());
      for (std::size_t k = 0; k < kTensors; ++k) parts[i][k] = laid_out(drawn[k], i, k);
    }
    together(parts);
    for (std::size_t i = 0; i < kParameters; ++i) {
      Parts drawn = draw_parts(i, dtypes[i % dtypes.size()], device());
      for (Tensor& part : drawn) part = strided(part);
      alone(drawn, i);
      for (std::size_t k = 0; k < kTensors; ++k) {
        const Tensor flat = parts[i][k].reshape({-1});
        ASSERT_EQ(flat.to_vector<double>(), drawn[k].to_vector<double>())
            << "part " << k << " of parameter " << i << ", " << flat.spec();
      }
    }
  }
};

TENON_DEVICE_TESTS(ManyParameters);

const std::vector<std::vector<DType>> kMixtures = {
    {DType::Float32},
    {DType::Float64},
    {DType::Float16},
    {DType::BFloat16},
    {DType::Float32, DType::BFloat16, DType::Float32, DType::Float64, DType::Float16}};

TEST_P(ManyParameters, AdamGivesTheBitsOfEachAlone) {
  const ops::AdamStep step{.learning_rate = 0.1, .weight_decay = 0.3};
  const auto operands = [](const Parts& p, std::size_t i) {
    return ops::AdamOperands{p[0], p[1], p[2], p[3], static_cast<std::int64_t>(1 + i % 4)};
  };
  for (const std::vector<DType>& dtypes : kMixtures) {
    expect_same(
        dtypes,
        [&](const std::vector<Parts>& parts) {
          std::vector<ops::AdamOperands> all;
          for (const Parts& p : parts) all.push_back(operands(p, all.size()));
          ops::adam_step(all, step);
        },
        [&](const Parts& p, std::size_t i) { ops::adam_step(operands(p, i), step); });
  }
}

TEST_P(ManyParameters, SgdGivesTheBitsOfEachAlone) {
  const auto operands = [](const Parts& p, std::size_t i) {
    return ops::SgdOperands{p[0], p[1], p[2], i % 3 == 0};
  };
  for (const ops::SgdStep& step :
       {ops::SgdStep{.learning_rate = 0.1, .weight_decay = 0.3},
        ops::SgdStep{.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.2, .maximize = true},
        ops::SgdStep{.learning_rate = 0.1, .momentum = 0.9, .nesterov = true}}) {
    for (const std::vector<DType>& dtypes : {kMixtures.front(), kMixtures.back()}) {
      expect_same(
          dtypes,
          [&](const std::vector<Parts>& parts) {
            std::vector<ops::SgdOperands> all;
            for (const Parts& p : parts) all.push_back(operands(p, all.size()));
            ops::sgd_step(all, step);
          },
          [&](const Parts& p, std::size_t i) { ops::sgd_step(operands(p, i), step); });
    }
  }
}

TEST_P(ManyParameters, AdamFollowsItsFormula) {
  const ops::AdamStep step{.learning_rate = 0.1, .epsilon = 1e-3, .weight_decay = 0.3};
  for (const DType dtype : {DType::Float64, DType::Float32}) {
    std::vector<ops::AdamOperands> all;
    for (std::size_t i = 0; i < kParameters; ++i) {
      const Parts p = draw_parts(i, dtype, device());
      all.push_back({p[0].clone(), p[1], p[2].clone(), p[3].clone(), 2});
    }
    ops::adam_step(all, step);
    for (std::size_t i = 0; i < kParameters; ++i) {
      std::array<std::vector<double>, kTensors> x;
      const Parts p = draw_parts(i, dtype, Device::cpu());
      for (std::size_t k = 0; k < kTensors; ++k) x[k] = p[k].to_vector<double>();
      for (std::size_t e = 0; e < x[0].size(); ++e) {
        const double g = x[1][e] + 0.3 * x[0][e];
        const double m = 0.9 * x[2][e] + 0.1 * g;
        const double v = 0.999 * x[3][e] + 0.001 * g * g;
        const double root = std::sqrt(v) / std::sqrt(1 - 0.999 * 0.999);
        x[0][e] -= 0.1 / (1 - 0.9 * 0.9) * m / (root + 1e-3);
      }
      expect_close(all[i].parameter, tensor(x[0], {elements_of(i)}), 20);
    }
  }
}

TEST_P(ManyParameters, LargeOnesGiveTheBitsOfEachAlone) {
  // More than a grid has threads for, so that each thread changes several packs.
  const std::array<std::int64_t, 3> sizes{1'200'003, 5, 1'100'000};
  const ops::AdamStep step{.learning_rate = 0.1};
  std::vector<ops::AdamOperands> all;
  std::vector<ops::AdamOperands> each;
  for (const std::int64_t size : sizes) {
    Parts x;
    for (std::size_t k = 0; k < kTensors; ++k) {
      Generator generator(k);
      x[k] = draw({size}, DType::Float64, 0.1, 1, generator).to(device());
    }
    all.push_back({x[0].clone(), x[1], x[2].clone(), x[3].clone()});
    each.push_back({strided(x[0]), x[1], strided(x[2]), strided(x[3])});
  }
  ops::adam_step(all, step);
  for (std::size_t i = 0; i < all.size(); ++i) {
    ops::adam_step(each[i], step);
    EXPECT_TRUE(all[i].parameter.to_vector<double>() == each[i].parameter.to_vector<double>());
    EXPECT_TRUE(all[i].v.to_vector<double>() == each[i].v.to_vector<double>());
  }
}

TEST_P(ManyParameters, ViewsOfOneTensorAreChangedOneAfterTheOther) {
  const Tensor whole = draw_parts(4, DType::Float64, device())[0];
  const Tensor other = whole.clone();
  const ops::SgdStep step{.learning_rate = 0.1, .weight_decay = 0.5};
  const auto views = [&](const Tensor& base) {
    const Tensor grad = ones({20}, {.dtype = DType::Float64, .device = device()});
    return std::vector<ops::SgdOperands>{{base.narrow(0, 0, 20), grad},
                                         {base.narrow(0, 10, 20), grad * 2},
                                         {base.narrow(0, 5, 20), grad * 3}};
  };
  ops::sgd_step(views(whole), step);
  for (const ops::SgdOperands& view : views(other)) ops::sgd_step(view, step);
  EXPECT_EQ(whole.to_vector<double>(), other.to_vector<double>());
}

TEST_P(ManyParameters, NothingIsChangedWhereOneDoesNotFit) {
  const TensorOptions options{.device = device()};
  std::vector<ops::SgdOperands> all{{ones({3}, options), ones({3}, options)},
                                    {ones({3}, options), ones({4}, options)}};
  expect_error([&] { ops::sgd_step(all, {}); }, {"sgd_step", "[3]", "[4]"});
  EXPECT_EQ(all[0].parameter.to_vector<double>(), (std::vector<double>{1, 1, 1}));
}

TEST_P(ManyParameters, TheVersionsOfAllAreBumped) {
  std::vector<ops::AdamOperands> all;
  std::vector<Tensor> results;
  for (int i = 0; i < 3; ++i) {
    const TensorOptions options{.device = device()};
    all.push_back({ones({2}, options), ones({2}, options), ones({2}, options), ones({2}, options)});
    all.back().parameter.requires_grad_();
    results.push_back(ops::sum(ops::square(all.back().parameter)));
  }
  ops::adam_step(all, {});
  for (const Tensor& result : results) EXPECT_THROW(result.backward(), Error);
}

TEST(OptimizerStep, OfNoParametersDoesNothing) {
  ops::adam_step(std::vector<ops::AdamOperands>(), {});
  ops::sgd_step(std::vector<ops::SgdOperands>(), {});
}

TEST(OptimizerStep, BumpsTheVersionSoThatAutogradNotices) {
  const Tensor parameter = tensor<double>({1, 2});
  parameter.requires_grad_();
  const Tensor y = ops::square(parameter);
  ops::sgd_step({parameter, ones({2}, {.dtype = DType::Float64})}, {});
  EXPECT_THROW(y.backward(ones({2}, {.dtype = DType::Float64})), Error);
}

TEST(OptimizerStepErrors, NameTheStepAndWhatIsWrong) {
  const Tensor parameter = ones({2});
  expect_error([&] { ops::sgd_step({parameter, ones({3})}, {}); }, {"sgd_step", "[2]", "[3]"});
  expect_error(
      [&] {
        ops::sgd_step({parameter, ones({2})}, {.momentum = 0.9});
      },
      {"sgd_step", "undefined"});
  const Tensor wide = ones({2}, {.dtype = DType::Float64});
  expect_error(
      [&] {
        ops::adam_step({parameter, wide, parameter, parameter}, {});
      },
      {"adam_step", "float64"});
  expect_error(
      [&] {
        ops::adam_step({parameter, ones({2}), ones({2}), ones({2}), 0}, {});
      },
      {"adam_step", "0"});
}

}  // namespace
}  // namespace tenon::test
