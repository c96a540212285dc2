// Activations, softmax and losses against tensors that PyTorch made.
#include <limits>

#include "golden.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"

namespace tenon::test {
namespace {

using Function = std::function<Tensor(const Tensor&, const Tensor&)>;

ops::Reduction reduction_of(const GoldenCase& golden) {
  const std::string name = golden.attribute<std::string>("reduction", "mean");
  return name == "none"  ? ops::Reduction::None
         : name == "sum" ? ops::Reduction::Sum
                         : ops::Reduction::Mean;
}

/// The function of a case, of its x and (for losses) its target.
Function function_of(const GoldenCase& golden) {
  const auto number = [&](const std::string& name, double fallback) {
    return golden.attribute<double>(name, fallback);
  };
  const double low = number("min", -1);
  const double high = number("max", 1);
  const double slope = number("negative_slope", 0.01);
  const double alpha = number("alpha", 1);
  const double beta = number("beta", 1);
  const double threshold = number("threshold", 20);
  const auto dim = golden.attribute<std::int64_t>("dim", 0);
  const ops::Reduction reduction = reduction_of(golden);
  const auto plain = [](Tensor (*function)(const Tensor&)) -> Function {
    return [function](const Tensor& x, const Tensor&) { return function(x); };
  };
  using X = const Tensor&;
  const std::map<std::string, Function> functions = {
      {"mish", plain(ops::mish)},
      {"silu", plain(ops::silu)},
      {"relu", plain(ops::relu)},
      {"sigmoid", plain(ops::sigmoid)},
      {"tanh", plain(ops::tanh)},
      {"exp", plain(ops::exp)},
      {"log", plain(ops::log)},
      {"sqrt", plain(ops::sqrt)},
      {"abs", plain(ops::abs)},
      {"gelu", [](X x, X) { return ops::gelu(x); }},
      {"gelu_tanh", [](X x, X) { return ops::gelu(x, ops::GeluApproximation::Tanh); }},
      {"elu", [=](X x, X) { return ops::elu(x, alpha); }},
      {"softplus", [=](X x, X) { return ops::softplus(x, beta, threshold); }},
      {"hardtanh", [=](X x, X) { return ops::hardtanh(x, low, high); }},
      {"clamp", [=](X x, X) { return ops::clamp(x, low, high); }},
      {"leaky_relu", [=](X x, X) { return ops::leaky_relu(x, slope); }},
      {"softmax", [=](X x, X) { return ops::softmax(x, dim); }},
      {"log_softmax", [=](X x, X) { return ops::log_softmax(x, dim); }},
      {"mse_loss", [=](X x, X target) { return ops::mse_loss(x, target, reduction); }},
      {"l1_loss", [=](X x, X target) { return ops::l1_loss(x, target, reduction); }},
      {"binary_cross_entropy_with_logits",
       [=](X x, X target) { return ops::bce_with_logits(x, target, {.reduction = reduction}); }},
      {"cross_entropy",
       [=](X x, X target) { return ops::cross_entropy(x, target, {.reduction = reduction}); }},
  };
  // "softplus_beta" is softplus with attributes; "gelu_tanh" an entry of its own.
  const std::string op = golden.attributes.at("op").get<std::string>();
  const auto exact = functions.find(op);
  return exact != functions.end() ? exact->second : functions.at(op.substr(0, op.rfind('_')));
}

const double kInfinity = std::numeric_limits<double>::infinity();

struct NamedCase {
  std::string file;
  std::string name;
};

std::ostream& operator<<(std::ostream& out, const NamedCase& named) { return out << named.name; }

std::vector<NamedCase> cases_of(const std::string& file) {
  std::vector<NamedCase> result;
  for (const auto& entry : read_golden(file)) result.push_back({file, entry.first});
  return result;
}

class ElementwiseGolden : public testing::TestWithParam<NamedCase> {};

TEST_P(ElementwiseGolden, MatchesPyTorchForwardAndBackward) {
  const GoldenCase golden = read_golden(GetParam().file).at(GetParam().name);
  const Function function = function_of(golden);
  for (const Device device : test_devices()) {
    for (const DType dtype : {DType::Float64, DType::Float32}) {
      // Where the range of the dtype matters, the case names the dtype.
      if (golden.attribute<std::string>("dtype", std::string(name(dtype))) != name(dtype)) continue;
      SCOPED_TRACE(testing::Message() << dtype << " on " << device);
      const Tensor x = golden.get("x").to(device, dtype).clone().requires_grad_();
      Tensor target = golden.get("target");
      if (target.defined()) {
        target = target.to(device, is_floating(target.dtype()) ? dtype : target.dtype());
      }
      const Tensor y = function(x, target);
      const double unit = tolerance_of(dtype).relative;
      const Tolerance tolerance{4 * unit, 4 * unit};
      Tensor expected = golden.get("y").to(DType::Float64);
      if (GetParam().name == "gelu_float32") {
        // PyTorch has NaN for ∞ here and, as we, ∞ in float64.
        expected = ops::where(ops::eq(golden.get("x"), kInfinity), golden.get("x"), expected);
      }
      expect_within(y, expected, tolerance, "y");
      y.backward(golden.get("grad_out").to(device, dtype));
      expect_within(x.grad(), golden.get("grad_x").to(DType::Float64), tolerance, "grad_x");
    }
  }
}

TEST(ElementwiseGoldenOnCuda, TakesPart) { TENON_SKIP_WITHOUT_GPU(); }

std::string name_of(const testing::TestParamInfo<NamedCase>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Activation, ElementwiseGolden,
                         testing::ValuesIn(cases_of("activation.safetensors")), name_of);
INSTANTIATE_TEST_SUITE_P(Loss, ElementwiseGolden, testing::ValuesIn(cases_of("loss.safetensors")),
                         name_of);

}  // namespace
}  // namespace tenon::test
