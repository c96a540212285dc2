#include "tenon/ops/activation.h"

#include <limits>

#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

const double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::numeric_limits<double>::quiet_NaN();

double reference_softplus(double x, double beta = 1, double threshold = 20) {
  return x * beta > threshold ? x : std::log1p(std::exp(x * beta)) / beta;
}
double reference_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double reference_mish(double x) { return x * std::tanh(std::log1p(std::exp(x))); }
double reference_gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }
double reference_gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

OpCase make(const std::string& name, const std::function<Tensor(const Tensor&)>& function,
            const std::function<double(double)>& reference, double low = -5, double high = 5) {
  return {.name = name,
          .function = [function](Inputs x) { return function(x[0]); },
          .reference = elementwise([reference](Values v) { return reference(v[0]); }),
          .shapes = unary_shapes(),
          .low = low,
          .high = high};
}

std::vector<OpCase> activation_cases() {
  return {
      make("relu", ops::relu, [](double x) { return x > 0 ? x : 0; }),
      make(
          "leaky_relu", [](const Tensor& x) { return ops::leaky_relu(x, 0.25); },
          [](double x) { return x > 0 ? x : 0.25 * x; }),
      make(
          "hardtanh", [](const Tensor& x) { return ops::hardtanh(x, -1.5, 2); },
          [](double x) { return std::min(std::max(x, -1.5), 2.0); }),
      make(
          "hardtanh_negative_bounds", [](const Tensor& x) { return ops::hardtanh(x, -4, -0.5); },
          [](double x) { return std::min(std::max(x, -4.0), -0.5); }),
      make(
          "clamp", [](const Tensor& x) { return ops::clamp(x, -1.5, 2); },
          [](double x) { return std::min(std::max(x, -1.5), 2.0); }),
      make(
          "clamp_min", [](const Tensor& x) { return ops::clamp(x, 1); },
          [](double x) { return std::max(x, 1.0); }),
      make(
          "clamp_max", [](const Tensor& x) { return ops::clamp(x, std::nullopt, 1); },
          [](double x) { return std::min(x, 1.0); }),
      make("tanh", ops::tanh, [](double x) { return std::tanh(x); }),
      make(
          "tanh_small", ops::tanh, [](double x) { return std::tanh(x); }, -0.02, 0.02),
      make("sigmoid", ops::sigmoid, reference_sigmoid),
      make("sigmoid_tail", ops::sigmoid, reference_sigmoid, -9, -5),
      make("log_sigmoid", ops::log_sigmoid, [](double x) { return -reference_softplus(-x); }),
      make(
          "softplus", [](const Tensor& x) { return ops::softplus(x); },
          [](double x) { return reference_softplus(x); }),
      make(
          "softplus_beta", [](const Tensor& x) { return ops::softplus(x, 2.5, 6); },
          [](double x) { return reference_softplus(x, 2.5, 6); }),
      make(
          "softplus_negative_beta", [](const Tensor& x) { return ops::softplus(x, -2); },
          [](double x) { return reference_softplus(x, -2); }),
      make(
          "elu", [](const Tensor& x) { return ops::elu(x, 1.5); },
          [](double x) { return x > 0 ? x : 1.5 * std::expm1(x); }),
      make(
          "elu_small", [](const Tensor& x) { return ops::elu(x); },
          [](double x) { return x > 0 ? x : std::expm1(x); }, -1e-3, 1e-3),
      make(
          "gelu", [](const Tensor& x) { return ops::gelu(x); }, reference_gelu),
      make(
          "gelu_tanh", [](const Tensor& x) { return ops::gelu(x, ops::GeluApproximation::Tanh); },
          reference_gelu_tanh, -3, 5),
      make("silu", ops::silu, [](double x) { return x * reference_sigmoid(x); }),
      make("mish", ops::mish, reference_mish),
      make("mish_small", ops::mish, reference_mish, -1e-3, 1e-3),
      make("mish_tail", ops::mish, reference_mish, -9, -5),
  };
}

TENON_OP_TESTS(Activation, activation_cases());

// ---- the ends of the range: values as PyTorch 2.15 gives them -----------------------------------

struct EdgeCase {
  std::string name;
  std::function<Tensor(const Tensor&)> function;
  std::vector<double> values;     // at -∞, ∞, NaN, -1e4, 1e4
  std::vector<double> gradients;  // likewise
};

std::ostream& operator<<(std::ostream& out, const EdgeCase& edge) { return out << edge.name; }

std::vector<EdgeCase> edge_cases() {
  const double inf = kInfinity;
  const double nan = kNan;
  return {
      {"mish", ops::mish, {nan, inf, nan, 0, 1e4}, {nan, nan, nan, 0, 1}},
      {"softplus",
       [](const Tensor& x) { return ops::softplus(x); },
       {0, inf, nan, 0, 1e4},
       {0, 1, nan, 0, 1}},
      {"silu", ops::silu, {nan, inf, nan, 0, 1e4}, {nan, nan, nan, 0, 1}},
      {"elu",
       [](const Tensor& x) { return ops::elu(x); },
       {-1, inf, nan, -1, 1e4},
       {0, 1, nan, 0, 1}},
      {"relu", ops::relu, {0, inf, nan, 0, 1e4}, {0, 1, 1, 0, 1}},
      {"hardtanh",
       [](const Tensor& x) { return ops::hardtanh(x); },
       {-1, 1, nan, -1, 1},
       {0, 0, 0, 0, 0}},
      {"clamp",
       [](const Tensor& x) { return ops::clamp(x, -1, 1); },
       {-1, 1, nan, -1, 1},
       {0, 0, 0, 0, 0}},
      {"clamp_min",
       [](const Tensor& x) { return ops::clamp(x, -1); },
       {-1, inf, nan, -1, 1e4},
       {0, 1, 0, 0, 1}},
      {"leaky_relu",
       [](const Tensor& x) { return ops::leaky_relu(x, 0.25); },
       {-inf, inf, nan, -2500, 1e4},
       {0.25, 1, 0.25, 0.25, 1}},
      {"log_sigmoid", ops::log_sigmoid, {-inf, 0, nan, -1e4, 0}, {1, 0, nan, 1, 0}},
      {"tanh", ops::tanh, {-1, 1, nan, -1, 1}, {0, 0, nan, 0, 0}},
      {"sigmoid", ops::sigmoid, {0, 1, nan, 0, 1}, {0, 0, nan, 0, 0}},
      {"gelu_tanh",
       [](const Tensor& x) { return ops::gelu(x, ops::GeluApproximation::Tanh); },
       {nan, inf, nan, 0, 1e4},
       {nan, nan, nan, 0, 1}},
  };
}

class ActivationEdge : public testing::TestWithParam<EdgeCase> {};

TEST_P(ActivationEdge, InfiniteAndNanAsPyTorch) {
  for (const DType dtype : {DType::Float32, DType::Float64}) {
    SCOPED_TRACE(name(dtype));
    const Tensor x = tensor<double>({-kInfinity, kInfinity, kNan, -1e4, 1e4}).to(dtype);
    x.requires_grad_();
    const Tensor y = GetParam().function(x);
    expect_close(y, tensor(GetParam().values, {5}));
    y.backward(ones_like(y));
    expect_close(x.grad(), tensor(GetParam().gradients, {5}), 1, "gradient");
  }
}

INSTANTIATE_TEST_SUITE_P(Op, ActivationEdge, testing::ValuesIn(edge_cases()),
                         [](const auto& info) { return info.param.name; });

Tensor gradient_at(const std::function<Tensor(const Tensor&)>& function,
                   const std::vector<double>& points) {
  const Tensor x = tensor(points, {static_cast<std::int64_t>(points.size())});
  x.requires_grad_();
  const Tensor y = function(x);
  y.backward(ones_like(y));
  return x.grad();
}

TEST(ActivationBounds, HardtanhHasNoGradientAtItsBounds) {
  const Tensor g =
      gradient_at([](const Tensor& x) { return ops::hardtanh(x, -1, 2); }, {-1, -0.9, 1.9, 2});
  expect_values(g, {4}, {0, 1, 1, 0});
}

TEST(ActivationBounds, ClampPassesTheGradientAtItsBounds) {
  const Tensor g = gradient_at([](const Tensor& x) { return ops::clamp(x, -1, 2); },
                               {-1.1, -1, -0.9, 1.9, 2, 2.1});
  expect_values(g, {6}, {0, 1, 1, 1, 1, 0});
}

TEST(ActivationBounds, ReluHasNoGradientAtZero) {
  expect_values(gradient_at(ops::relu, {-1, 0, 1}), {3}, {0, 0, 1});
}

TEST(ActivationBounds, ClampToCrossedBoundsGivesTheUpperOne) {
  const Tensor x = tensor<double>({-3, 0, 3});
  expect_values(ops::clamp(x, 2, -1), {3}, {-1, -1, -1});
}

TEST(ActivationBounds, FloatUnderflowAndOverflowAreReached) {
  const Tensor x = tensor<float>({-200, -100, -95, 95, 200});
  const std::vector<double> y = ops::silu(x).to_vector<double>();
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[3], 95);
  EXPECT_EQ(y[4], 200);
  const std::vector<double> m = ops::mish(x).to_vector<double>();
  EXPECT_NEAR(m[1] / (-100 * std::exp(-100.0)), 1, 0.05);  // a denormal number of few bits
  EXPECT_EQ(m[4], 200);
}

TEST(ActivationDtypes, IntegersStayWhereTheFunctionAllowsIt) {
  const Tensor x = tensor<std::int64_t>({-7, 0, 7});
  EXPECT_EQ(ops::relu(x).dtype(), DType::Int64);
  expect_values(ops::relu(x), {3}, {0, 0, 7});
  EXPECT_EQ(ops::clamp(x, -2, 3).dtype(), DType::Int64);
  expect_values(ops::clamp(x, -2, 3), {3}, {-2, 0, 3});
  EXPECT_EQ(ops::clamp(x, -1.5).dtype(), DType::Float32);
  expect_values(ops::clamp(x, -1.5), {3}, {-1.5, 0, 7});
  EXPECT_EQ(ops::sigmoid(x).dtype(), DType::Float32);
}

TEST(ActivationErrors, NameTheOpAndTheValue) {
  const Tensor x = ones({2});
  expect_error([&] { ops::hardtanh(x, 2, 1); }, {"hardtanh", "2", "1"});
  expect_error([&] { ops::clamp(x, std::nullopt); }, {"clamp"});
  expect_error([&] { ops::softplus(x, 0); }, {"softplus", "beta"});
  expect_error([&] { ops::relu(ones({2}, {.dtype = DType::Bool})); }, {"relu", "bool"});
}

TEST(ActivationAttributes, SayWhatDistinguishesTheOps) {
  using ops::ActivationKind;
  using ops::ActivationOp;
  const ActivationOp hardtanh(ActivationKind::Hardtanh, {.first = -1, .second = 2.5});
  EXPECT_EQ(hardtanh.name(), "hardtanh");
  EXPECT_EQ(hardtanh.attributes(), (Attributes{{"min", -1.0}, {"max", 2.5}}));
  const ActivationOp half_open(ActivationKind::Clamp, {.first = -kInfinity, .second = 3});
  EXPECT_EQ(half_open.attributes(), (Attributes{{"max", 3.0}}));
  EXPECT_FALSE(same_op(ActivationOp(ActivationKind::Gelu), ActivationOp(ActivationKind::GeluTanh)));
}

}  // namespace
}  // namespace tenon::test
