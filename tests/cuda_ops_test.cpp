// Kernels on a GPU beside those on the CPU, where the cases of each op's own test do not reach:
// special values, integers, random numbers, indices that are wrong, sizes that take other paths.
#include <cmath>
#include <limits>

#include "tenon/core/stream.h"
#include "tenon/ops/ops.h"
#include "tenon/tests/op_harness.h"
#include "tenon/tests/support/matchers.h"

namespace tenon::test {
namespace {

constexpr DType kFloating[] = {DType::Float32, DType::Float64, DType::Float16, DType::BFloat16};

class CudaOps : public testing::Test {
 protected:
  void SetUp() override { TENON_SKIP_WITHOUT_GPU(); }
};

using UnaryFunction = std::function<Tensor(const Tensor&)>;

std::vector<std::pair<std::string, UnaryFunction>> functions() {
  using ops::GeluApproximation;
  return {
      {"neg", ops::neg},
      {"abs", ops::abs},
      {"sign", ops::sign},
      {"square", ops::square},
      {"floor", ops::floor},
      {"exp", ops::exp},
      {"log", ops::log},
      {"sqrt", ops::sqrt},
      {"rsqrt", ops::rsqrt},
      {"reciprocal", ops::reciprocal},
      {"sin", ops::sin},
      {"cos", ops::cos},
      {"relu", ops::relu},
      {"leaky_relu", [](const Tensor& x) { return ops::leaky_relu(x, 0.25); }},
      {"hardtanh", [](const Tensor& x) { return ops::hardtanh(x, -1, 2); }},
      {"clamp", [](const Tensor& x) { return ops::clamp(x, -1, 2); }},
      {"tanh", ops::tanh},
      {"sigmoid", ops::sigmoid},
      {"log_sigmoid", ops::log_sigmoid},
      {"softplus", [](const Tensor& x) { return ops::softplus(x, 1.5, 6); }},
      {"elu", [](const Tensor& x) { return ops::elu(x, 1.5); }},
      {"gelu", [](const Tensor& x) { return ops::gelu(x); }},
      {"gelu_tanh", [](const Tensor& x) { return ops::gelu(x, GeluApproximation::Tanh); }},
      {"silu", ops::silu},
      {"mish", ops::mish},
      {"plus_scalar", [](const Tensor& x) { return x + 0.1; }},
      {"scalar_minus", [](const Tensor& x) { return 0.1 - x; }},
      {"minus_scalar", [](const Tensor& x) { return x - 0.1; }},
      {"times_scalar", [](const Tensor& x) { return x * 3.7; }},
      {"over_scalar", [](const Tensor& x) { return x / 3.7; }},
      {"scalar_over", [](const Tensor& x) { return 3.7 / x; }},
      {"pow_1", [](const Tensor& x) { return ops::pow(x, 1); }},
      {"pow_2", [](const Tensor& x) { return ops::pow(x, 2); }},
      {"pow_3", [](const Tensor& x) { return ops::pow(x, 3); }},
      {"pow_-1", [](const Tensor& x) { return ops::pow(x, -1); }},
      {"pow_0.5", [](const Tensor& x) { return ops::pow(x, 0.5); }},
      {"scalar_pow", [](const Tensor& x) { return ops::pow(1.5, x); }},
      {"isnan", ops::isnan},
      {"isfinite", ops::isfinite},
      {"logical_not", ops::logical_not},
      {"eq_1", [](const Tensor& x) { return ops::eq(x, 1); }},
      {"ne_1", [](const Tensor& x) { return ops::ne(x, 1); }},
      {"lt_1", [](const Tensor& x) { return x < 1; }},
      {"le_1", [](const Tensor& x) { return x <= 1; }},
      {"gt_1", [](const Tensor& x) { return x > 1; }},
      {"ge_1", [](const Tensor& x) { return x >= 1; }},
  };
}

Tensor special_values() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<double> values{0.0, -0.0, std::nan("")};
  for (const double magnitude :
       {kInfinity, 1e-40, 1e-6, 1e-3, 0.25, 1.0, 2.0, 6.5, 19.9, 20.1, 88.0, 110.0, 1e4}) {
    values.push_back(magnitude);
    values.push_back(-magnitude);
  }
  return tensor(values, {static_cast<std::int64_t>(values.size())});
}

TEST_F(CudaOps, SpecialValuesAndTheirGradientsAsOnTheCpu) {
  for (const auto& [label, function] : functions()) {
    for (const DType dtype : kFloating) {
      const Tensor here = special_values().to(dtype).detach().requires_grad_();
      const Tensor there = here.detach().to(Device::cuda()).requires_grad_();
      const Tensor y = function(here);
      const Tensor y_there = function(there);
      const std::string what = tenon::detail::concat(label, " of ", dtype);
      expect_close(y_there, y.to(DType::Float64), 4, what);
      if (!y.requires_grad()) continue;
      y.backward(ones_like(y));
      y_there.backward(ones_like(y_there));
      expect_close(there.grad(), here.grad().to(DType::Float64), 32, what + ", gradient");
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaOps, PairsOfSpecialValuesAsOnTheCpu) {
  using BinaryFunction = Tensor (*)(const Tensor&, const Tensor&);
  const std::vector<std::pair<std::string, BinaryFunction>> functions = {
      {"add", ops::add},
      {"sub", ops::sub},
      {"mul", ops::mul},
      {"div", ops::div},
      {"maximum", ops::maximum},
      {"minimum", ops::minimum},
      {"pow", ops::pow},
      {"eq", ops::eq},
      {"ne", ops::ne},
      {"lt", ops::lt},
      {"le", ops::le},
      {"gt", ops::gt},
      {"ge", ops::ge},
      {"logical_and", ops::logical_and},
      {"logical_or", ops::logical_or}};
  for (const DType dtype : kFloating) {
    const Tensor x = special_values().to(dtype);
    const Tensor a = x.unsqueeze(1);
    const Tensor b = x.unsqueeze(0);
    for (const auto& [label, function] : functions) {
      const Tensor there = function(a.to(Device::cuda()), b.to(Device::cuda()));
      expect_close(there, function(a, b).to(DType::Float64), 4,
                   tenon::detail::concat(label, " of ", dtype));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(CudaOps, IntegersWrapAndTruncateAsOnTheCpu) {
  const Device gpu = Device::cuda();
  const Tensor values = tensor<std::int64_t>({-7, -3, -1, 0, 1, 2, 5, 250, 255, INT64_MAX});
  for (const DType dtype : {DType::Int64, DType::UInt8, DType::Bool}) {
    SCOPED_TRACE(name(dtype));
    const Tensor x = values.to(dtype);
    const Tensor a = x.unsqueeze(1);
    const Tensor b = x.unsqueeze(0);
    const auto agree = [&](const std::function<Tensor(const Tensor&, const Tensor&)>& function) {
      const Tensor there = function(a.to(gpu), b.to(gpu));
      EXPECT_EQ(there.dtype(), function(a, b).dtype());
      EXPECT_EQ(there.to_vector<std::int64_t>(), function(a, b).to_vector<std::int64_t>());
    };
    agree([](const Tensor& u, const Tensor& v) { return u + v; });
    agree([](const Tensor& u, const Tensor& v) { return u * v; });
    agree([](const Tensor& u, const Tensor& v) { return ops::maximum(u, v); });
    agree([](const Tensor& u, const Tensor& v) { return ops::minimum(u, v); });
    agree([](const Tensor& u, const Tensor& v) { return ops::pow(u, v); });
    agree([](const Tensor& u, const Tensor& v) { return u < v; });
    agree([](const Tensor& u, const Tensor& v) { return ops::where(ops::gt(u, 1), u, v); });
    agree([](const Tensor& u, const Tensor&) { return u + 7; });
    agree([](const Tensor& u, const Tensor&) { return ops::pow(u, 3); });
    agree([](const Tensor& u, const Tensor&) { return ops::pow(2, u); });
    agree([](const Tensor& u, const Tensor&) { return ops::square(u); });
    agree([](const Tensor& u, const Tensor&) { return ops::sum(u, {0}); });
    agree([](const Tensor& u, const Tensor&) { return ops::amax(u, {0}); });
    if (dtype == DType::Bool) continue;
    agree([](const Tensor& u, const Tensor& v) { return u - v; });
    agree([](const Tensor& u, const Tensor&) { return 7 - u; });
    agree([](const Tensor& u, const Tensor&) { return -u; });
    agree([](const Tensor& u, const Tensor&) { return ops::abs(u); });
    agree([](const Tensor& u, const Tensor&) { return ops::sign(u); });
    agree([](const Tensor& u, const Tensor&) { return ops::clamp(u, 1, 200); });
    agree([](const Tensor& u, const Tensor&) { return ops::relu(u); });
  }
}

// ---- random numbers -----------------------------------------------------------------------------

TEST_F(CudaOps, RandomNumbersAreThoseOfTheCpu) {
  for (const DType dtype : kFloating) {
    for (const std::int64_t count : {1, 3, 4, 1031, 4096}) {
      SCOPED_TRACE(tenon::detail::concat(dtype, " x ", count));
      const auto drawn = [&](Device device, const auto& fill) {
        Generator generator;
        generator.set_state(0x123456789abcdef0, 0xfffffff0);
        const Tensor x = empty({count}, {.dtype = dtype, .device = device});
        fill(x, generator);
        EXPECT_EQ(generator.offset(), 0xfffffff0 + static_cast<std::uint64_t>((count + 3) / 4));
        return x.to(Device::cpu());
      };
      const auto uniform = [](const Tensor& x, Generator& g) { uniform_(x, -0.3, 1.7, g); };
      EXPECT_EQ(drawn(Device::cuda(), uniform).to_vector<double>(),
                drawn(Device::cpu(), uniform).to_vector<double>());
      const auto bernoulli = [](const Tensor& x, Generator& g) { bernoulli_(x, 0.3, g); };
      EXPECT_EQ(drawn(Device::cuda(), bernoulli).to_vector<double>(),
                drawn(Device::cpu(), bernoulli).to_vector<double>());
      // Logarithm, sine and cosine may differ in their last bit, and so the last of the result.
      const auto normal = [](const Tensor& x, Generator& g) { normal_(x, 0.5, 2, g); };
      expect_close(drawn(Device::cuda(), normal), drawn(Device::cpu(), normal).to(DType::Float64));
    }
  }
}

TEST_F(CudaOps, RandomNumbersFillStridedTensors) {
  const auto drawn = [](Device device) {
    Generator generator(3);
    const Tensor x = zeros({7, 5, 3}, {.device = device});
    uniform_(x.permute({2, 0, 1}).slice(1, 1, 7, 2), 1, 2, generator);
    return x.to_vector<float>();
  };
  EXPECT_EQ(drawn(Device::cuda()), drawn(Device::cpu()));
}

TEST_F(CudaOps, DropoutKeepsTheSameElements) {
  const Tensor x = randn({33, 31});
  const auto dropped = [&](Device device) {
    manual_seed(11);
    return ops::dropout(x.to(device), 0.3, true).to_vector<float>();
  };
  EXPECT_EQ(dropped(Device::cuda()), dropped(Device::cpu()));
}

// ---- indices ------------------------------------------------------------------------------------

TEST_F(CudaOps, AWrongIndexIsThrownAtTheNextSynchronisation) {
  const Device gpu = Device::cuda();
  const Tensor x = ones({2, 3}, {.device = gpu});
  const Tensor index = tensor(std::vector<std::int64_t>{0, 7}, {2, 1}).to(gpu);
  const Tensor picked = ops::gather(x, 1, index);
  expect_error([&] { synchronize(gpu); }, {"gather: index 7 is outside [0, 3)"});
  EXPECT_EQ(picked.to_vector<float>(), (std::vector<float>{1, 0})) << "thrown once";
  const Tensor added = ops::scatter_add(x.narrow(1, 0, 1), 1, index, 4);
  expect_error([&] { added.to_vector<float>(); }, {"scatter_add: index 7 is outside [0, 4)"});
  const Tensor target = tensor<std::int64_t>({2, -1}).to(gpu);
  const Tensor loss = ops::cross_entropy(x, target);
  expect_error([&] { loss.item(); }, {"nll_loss: target -1 is outside [0, 3)"});
  EXPECT_TRUE(std::isnan(loss.item()));
  EXPECT_EQ(ops::sum(x).item(), 6) << "everything works on";
}

TEST_F(CudaOps, ScatterAddCollisionsAreSummedInTheOrderOfTheCpu) {
  Generator generator(4);
  const Tensor x = randn({5, 400, 3}, {}, generator);
  const Tensor index = randint(0, 7, {5, 400, 3}, {.dtype = DType::Int64}, generator);
  for (const DType dtype : kFloating) {
    const Tensor here = ops::scatter_add(x.to(dtype), 1, index, 7);
    const Tensor there =
        ops::scatter_add(x.to(Device::cuda(), dtype), 1, index.to(Device::cuda()), 7);
    EXPECT_EQ(there.to_vector<double>(), here.to_vector<double>()) << dtype;
  }
}

TEST_F(CudaOps, ScatterAddIntoOneLongRow) {
  Generator generator(4);
  const Tensor x = randn({100'003}, {}, generator);
  const Tensor index = randint(0, 5003, {100'003}, {.dtype = DType::Int64}, generator);
  EXPECT_EQ(
      ops::scatter_add(x.to(Device::cuda()), 0, index.to(Device::cuda()), 5003).to_vector<float>(),
      ops::scatter_add(x, 0, index, 5003).to_vector<float>());
}

// ---- sizes --------------------------------------------------------------------------------------

TEST_F(CudaOps, SoftmaxOfLongRowsAndManyColumns) {
  for (const Shape& shape : {Shape{3, 2048}, Shape{3, 2049}, Shape{2, 100'003}, Shape{70'001, 3}}) {
    const Tensor x = randn(shape, {.dtype = DType::Float64}) * 5;
    for (const std::int64_t dim : {0, 1}) {
      for (const bool logarithm : {false, true}) {
        const auto function = [&](const Tensor& input) {
          return logarithm ? ops::log_softmax(input, dim) : ops::softmax(input, dim);
        };
        expect_close(function(x.to(Device::cuda())), function(x), 4,
                     tenon::detail::concat(shape, " along ", dim));
      }
    }
  }
}

TEST_F(CudaOps, SoftmaxOfInfiniteScoresIsThatOfTheCpu) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const Tensor x = tensor(std::vector<float>{1, kInfinity, 2,                     //
                                             1, -kInfinity, 2,                    //
                                             -kInfinity, -kInfinity, -kInfinity,  //
                                             1, std::nanf(""), 2},
                          {4, 3});
  for (const std::int64_t dim : {0, 1}) {
    expect_close(ops::softmax(x.to(Device::cuda()), dim), ops::softmax(x, dim).to(DType::Float64));
    expect_close(ops::log_softmax(x.to(Device::cuda()), dim),
                 ops::log_softmax(x, dim).to(DType::Float64));
  }
}

TEST_F(CudaOps, TheFirstExtremeOfMillionsIsFound) {
  const Device gpu = Device::cuda();
  const std::int64_t count = 3'000'017;
  const Tensor x = zeros({count}, {.device = gpu});
  EXPECT_EQ(ops::argmax(x).item<std::int64_t>(), 0);
  for (const std::int64_t place : {std::int64_t{2'000'003}, std::int64_t{1'500'000}}) {
    x.narrow(0, place, 1).fill_(4);
    EXPECT_EQ(ops::argmax(x).item<std::int64_t>(), place);
    EXPECT_EQ(ops::max(x).item(), 4);
  }
  x.narrow(0, 2'999'999, 2).fill_(std::nan(""));
  EXPECT_EQ(ops::argmax(x).item<std::int64_t>(), 2'999'999);
  EXPECT_EQ(ops::argmin(x).item<std::int64_t>(), 2'999'999);
  EXPECT_TRUE(std::isnan(ops::max(x).item()));
  const Tensor lowest = full({5, 7}, -std::numeric_limits<double>::infinity(), {.device = gpu});
  EXPECT_EQ(ops::argmax(lowest, 1).to_vector<std::int64_t>(), std::vector<std::int64_t>(5, 0));
}

TEST_F(CudaOps, StridedOperandsOfBillionsOfElements) {
  const std::int64_t rows = 3;
  const std::int64_t columns = 800'000'000;
  const Tensor x = zeros({rows, columns}, {.dtype = DType::UInt8, .device = Device::cuda()});
  x.narrow(0, 2, 1).fill_(20);
  x.narrow(1, columns - 1, 1).fill_(90);
  const Tensor bias = tensor<std::uint8_t>({1, 2, 3}).to(Device::cuda());
  const Tensor y = x.transpose(0, 1) + bias;
  EXPECT_EQ(y.shape(), (Shape{columns, rows}));
  EXPECT_EQ(y.narrow(0, 0, 1).to_vector<std::int64_t>(), (std::vector<std::int64_t>{1, 2, 23}));
  EXPECT_EQ(y.narrow(0, columns - 2, 2).to_vector<std::int64_t>(),
            (std::vector<std::int64_t>{1, 2, 23, 91, 92, 93}));
}

}  // namespace
}  // namespace tenon::test
