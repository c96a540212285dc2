// On the CPU a result depends on its operands' values, not on where they lie: neither their address
// nor the stack's, nor an element's place in a tensor, shows in the last bits.
#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "compare.h"
#include "tenon/core/autograd.h"
#include "tenon/core/parallel.h"
#include "tenon/ops/cpu/gemm.h"
#include "tenon/ops/fused/conv_transpose2d_epilogue.h"
#include "tenon/ops/ops.h"
#include "tenon/ops/optimizer_step.h"

namespace tenon {
namespace {

using test::expect_same_bits;
using test::normal;

/// Memory of tensors begins at a multiple of 64 bytes, so this many places differ for float32.
constexpr std::int64_t kPlaces = 16;

/// A contiguous copy of `values` that begins `place` elements behind a multiple of 64 bytes.
Tensor placed(const Tensor& values, std::int64_t place) {
  const Tensor room = empty({values.numel() + place}, {.dtype = values.dtype()});
  const Tensor copy = room.narrow(0, place, values.numel()).reshape(values.shape());
  copy.copy_(values.detach());
  return copy;
}

/// Calls `function` with the stack `bytes` lower than it would be.
template <class Function>
auto with_stack_moved(std::size_t bytes, const Function& function) {
  volatile char* room = static_cast<volatile char*>(__builtin_alloca(bytes));
  room[0] = 0;
  return function();
}

// ---- elementwise ops: an element's result and gradient depend on that element alone
// --------------

struct Elementwise {
  const char* name;
  std::function<Tensor(const Tensor&)> apply;
};

std::ostream& operator<<(std::ostream& out, const Elementwise& op) { return out << op.name; }

/// Ops of Eigen's vector functions and of sums of products, where code for single elements could
/// round otherwise.
const std::array kElementwise = {
    Elementwise{"exp", [](const Tensor& x) { return ops::exp(x); }},
    Elementwise{"log", [](const Tensor& x) { return ops::log(ops::square(x)); }},
    Elementwise{"sqrt", [](const Tensor& x) { return ops::sqrt(ops::square(x) + 0.1); }},
    Elementwise{"rsqrt", [](const Tensor& x) { return ops::rsqrt(ops::square(x) + 0.1); }},
    Elementwise{"reciprocal", [](const Tensor& x) { return ops::reciprocal(x); }},
    Elementwise{"sin", [](const Tensor& x) { return ops::sin(x); }},
    Elementwise{"cos", [](const Tensor& x) { return ops::cos(x); }},
    Elementwise{"pow", [](const Tensor& x) { return ops::pow(ops::abs(x) + 0.1, 1.7); }},
    Elementwise{"cube", [](const Tensor& x) { return ops::pow(x, 3); }},
    Elementwise{"chain", [](const Tensor& x) { return x * x * 0.3 - x / 1.7 + 2.0; }},
    Elementwise{"tanh", [](const Tensor& x) { return ops::tanh(x); }},
    Elementwise{"sigmoid", [](const Tensor& x) { return ops::sigmoid(x); }},
    Elementwise{"log_sigmoid", [](const Tensor& x) { return ops::log_sigmoid(x); }},
    Elementwise{"softplus", [](const Tensor& x) { return ops::softplus(x, 1.5); }},
    Elementwise{"elu", [](const Tensor& x) { return ops::elu(x, 1.3); }},
    Elementwise{"gelu", [](const Tensor& x) { return ops::gelu(x); }},
    Elementwise{"gelu_tanh",
                [](const Tensor& x) { return ops::gelu(x, ops::GeluApproximation::Tanh); }},
    Elementwise{"silu", [](const Tensor& x) { return ops::silu(x); }},
    Elementwise{"mish", [](const Tensor& x) { return ops::mish(x); }},
};

class ElementAlone : public testing::TestWithParam<Elementwise> {
 protected:
  /// The results and the gradient for `x`, whose results have the gradient `grad_out`.
  static std::array<Tensor, 2> run(const Tensor& x, const Tensor& grad_out) {
    const Tensor input = x.detach().requires_grad_();
    const std::array outputs{GetParam().apply(input)};
    return {outputs[0].detach(), grad(outputs, std::array{input}, std::array{grad_out})[0]};
  }
};

TEST_P(ElementAlone, DecidesItsResult) {
  for (const DType dtype : {DType::Float32, DType::Float64}) {
    const Tensor x = normal({600}, dtype, 11) * 3;
    const Tensor grad_out = normal({600}, dtype, 12);
    const std::array<Tensor, 2> whole = run(x, grad_out);
    for (std::int64_t start = 0; start < kPlaces; ++start) {
      for (const std::int64_t length : {1, 7, 16, 37, 530}) {
        SCOPED_TRACE(testing::Message() << length << " elements from " << start);
        const std::array<Tensor, 2> part =
            run(x.narrow(0, start, length), grad_out.narrow(0, start, length));
        for (std::size_t i = 0; i < 2; ++i) {
          expect_same_bits(part[i], whole[i].narrow(0, start, length));
        }
      }
    }
  }
}

TEST_P(ElementAlone, DecidesItsResultInRowsAndColumns) {
  const Tensor x = normal({13, 21}, DType::Float32, 13) * 3;
  const Tensor grad_out = normal({13, 21}, DType::Float32, 14);
  const std::array<Tensor, 2> whole = run(x, grad_out);
  const std::array<Tensor, 2> turned = run(x.transpose(0, 1), grad_out.transpose(0, 1));
  const std::array<Tensor, 2> cut = run(x.narrow(1, 2, 18), grad_out.narrow(1, 2, 18));
  for (std::size_t i = 0; i < 2; ++i) {
    expect_same_bits(turned[i].transpose(0, 1), whole[i]);
    expect_same_bits(cut[i], whole[i].narrow(1, 2, 18));
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, ElementAlone, testing::ValuesIn(kElementwise),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ElementAlone, HasTheSameLogarithmBesideADenormalNumber) {
  const Tensor x = ops::abs(normal({64}, DType::Float32, 15)) + 0.01;
  const Tensor y = ops::log(x);
  const Tensor beside = x.clone();
  beside.narrow(0, 20, 1).fill_(1e-40);
  expect_same_bits(ops::log(beside).narrow(0, 21, 43), y.narrow(0, 21, 43));
}

// ---- everything else: the same operands at another address
// ---------------------------------------

using Results = std::vector<Tensor>;

/// A computation, and the shapes of its operands.
struct Computation {
  const char* name;
  std::vector<Shape> operands;
  std::function<Results(std::span<const Tensor>)> run;
};

std::ostream& operator<<(std::ostream& out, const Computation& c) { return out << c.name; }

/// The result of `forward` and the gradients of its operands; the last operand is the result's
/// gradient.
template <class Forward>
auto with_gradients(Forward forward) {
  return [forward](std::span<const Tensor> operands) {
    Results leaves;
    for (const Tensor& operand : operands.first(operands.size() - 1)) {
      leaves.push_back(operand.detach().requires_grad_());
    }
    const std::array outputs{forward(leaves)};
    Results results = grad(outputs, leaves, std::array{operands.back()});
    results.push_back(outputs[0].detach());
    return results;
  };
}

const ops::ConvTranspose2dOptions kUpsample{.stride = 2, .padding = 1, .output_padding = 1};

auto fused_block() {
  return with_gradients([](const Results& in) {
    return ops::conv_transpose2d_epilogue(in[0], in[1], in[2], kUpsample,
                                          {.add = 0.5, .min = -1, .max = 1, .scale = 2});
  });
}

auto product() {
  return with_gradients([](const Results& in) { return ops::matmul(in[0], in[1]); });
}

std::vector<Computation> computations() {
  return {
      {"sum", {{1200}}, [](auto in) { return Results{ops::sum(in[0])}; }},
      {"sum_of_rows", {{5, 700}}, [](auto in) { return Results{ops::sum(in[0], {1})}; }},
      {"sum_of_columns", {{70, 37}}, [](auto in) { return Results{ops::sum(in[0], {0})}; }},
      {"mean_and_var",
       {{9, 131}},
       [](auto in) {
         return Results{ops::mean(in[0], {1}), ops::var(in[0], {1})};
       }},
      {"softmax", {{6, 531}}, [](auto in) { return Results{ops::softmax(in[0], 1)}; }},
      {"log_softmax", {{6, 133, 5}}, [](auto in) { return Results{ops::log_softmax(in[0], 1)}; }},
      {"cross_entropy",
       {{7, 29}},
       [](auto in) {
         return Results{ops::cross_entropy(in[0], zeros({7}, {.dtype = DType::Int64}))};
       }},
      {"matmul", {{37, 45}, {45, 29}, {37, 29}}, product()},
      {"matmul_of_small_matrices", {{3, 5}, {5, 7}, {3, 7}}, product()},
      {"matrix_times_column", {{37, 45}, {45, 1}, {37, 1}}, product()},
      {"row_times_matrix", {{1, 45}, {45, 29}, {1, 29}}, product()},
      {"row_times_column", {{1, 333}, {333, 1}, {1, 1}}, product()},
      {"linear", {{9, 33}, {10, 33}, {10}, {9, 10}}, with_gradients([](const Results& in) {
         return ops::linear(in[0], in[1], in[2]);
       })},
      {"conv2d",
       {{2, 3, 9, 11}, {5, 3, 3, 3}, {5}, {2, 5, 9, 11}},
       with_gradients(
           [](const Results& in) { return ops::conv2d(in[0], in[1], in[2], {.padding = 1}); })},
      {"conv2d_to_one_channel",
       {{2, 3, 9, 11}, {1, 3, 1, 1}, {1}, {2, 1, 9, 11}},
       with_gradients([](const Results& in) { return ops::conv2d(in[0], in[1], in[2]); })},
      {"conv_transpose2d",
       {{2, 4, 5, 7}, {4, 3, 3, 3}, {3}, {2, 3, 10, 14}},
       with_gradients([](const Results& in) {
         return ops::conv_transpose2d(in[0], in[1], in[2], kUpsample);
       })},
      {"fused_block", {{2, 4, 5, 7}, {4, 3, 3, 3}, {3}, {2, 3, 10, 14}}, fused_block()},
      {"fused_block_to_one_channel",
       {{2, 6, 9, 20}, {6, 1, 3, 3}, {1}, {2, 1, 18, 40}},
       fused_block()},
      {"batch_norm", {{4, 3, 5, 7}, {3}, {3}, {4, 3, 5, 7}}, with_gradients([](const Results& in) {
         return ops::batch_norm(in[0], {}, {}, in[1], in[2], {.training = true});
       })},
      {"avg_pool2d", {{2, 3, 9, 11}, {2, 3, 4, 5}}, with_gradients([](const Results& in) {
         return ops::avg_pool2d(in[0], 3, {.stride = 2});
       })},
  };
}

class SameBits : public testing::TestWithParam<Computation> {
 protected:
  /// The computation on normal operands of `dtype`, the k-th `place + step·k` elements behind a
  /// multiple of 64 bytes.
  static Results run(DType dtype, std::int64_t place, std::int64_t step) {
    Results operands;
    for (const Shape& shape : GetParam().operands) {
      const auto k = static_cast<std::int64_t>(operands.size());
      operands.push_back(placed(normal(shape, dtype, 20 + static_cast<std::uint64_t>(k)),
                                (place + step * k) % kPlaces));
    }
    return GetParam().run(operands);
  }

  static void expect_same(const Results& results, const Results& reference) {
    ASSERT_EQ(results.size(), reference.size());
    for (std::size_t i = 0; i < results.size(); ++i) expect_same_bits(results[i], reference[i]);
  }
};

TEST_P(SameBits, WhereverTheOperandsLie) {
  for (const DType dtype : {DType::Float32, DType::Float64}) {
    const Results reference = run(dtype, 0, 0);
    for (std::int64_t place = 1; place < kPlaces; ++place) {
      SCOPED_TRACE(testing::Message() << dtype << ", " << place);
      expect_same(run(dtype, place, 0), reference);
      expect_same(run(dtype, place, 3), reference);
    }
  }
}

TEST_P(SameBits, WhereverTheStackLies) {
  const int threads = num_threads();
  set_num_threads(1);
  for (const DType dtype : {DType::Float32, DType::BFloat16}) {
    const Results reference = run(dtype, 0, 0);
    for (const std::size_t bytes : {16, 32, 48, 64}) {
      SCOPED_TRACE(testing::Message() << dtype << ", " << bytes);
      expect_same(with_stack_moved(bytes, [&] { return run(dtype, 0, 0); }), reference);
    }
  }
  set_num_threads(threads);
}

INSTANTIATE_TEST_SUITE_P(Ops, SameBits, testing::ValuesIn(computations()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(SameBits, InSumsOfStridedElementsWhereverTheStackLies) {
  const Tensor x = test::scattered(normal({5, 517}, DType::Float32, 30));
  const auto sum = [&] { return ops::sum(x.transpose(0, 1), {0}); };
  const Tensor reference = sum();
  for (const std::size_t bytes : {16, 32, 48, 64}) {
    expect_same_bits(with_stack_moved(bytes, sum), reference);
  }
}

TEST(SameBits, AfterOptimizerStepsWhereverTheParametersLie) {
  const auto steps = [](std::int64_t place) {
    Results tensors;
    for (std::uint64_t k = 0; k < 4; ++k) {
      const Tensor values = normal({1003}, DType::Float32, 40 + k);
      tensors.push_back(placed(k == 3 ? ops::square(values) : values, place));
    }
    const NoGradGuard guard;
    ops::sgd_step({tensors[0], tensors[1]}, {.learning_rate = 0.1, .weight_decay = 0.3});
    ops::sgd_step({tensors[0], tensors[1], tensors[2]},
                  {.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.3, .nesterov = true});
    ops::adam_step({tensors[0], tensors[1], tensors[2], tensors[3], 3},
                   {.learning_rate = 0.1, .weight_decay = 0.3});
    return tensors;
  };
  const Results reference = steps(0);
  for (std::int64_t place = 1; place < kPlaces; ++place) {
    SCOPED_TRACE(place);
    const Results again = steps(place);
    for (std::size_t i = 0; i < again.size(); ++i) expect_same_bits(again[i], reference[i]);
  }
}

TEST(SameBits, OfAProductWhereverItIsWritten) {
  for (const auto& [m, n, k] : {std::array{3, 9, 5},
                                {1, 17, 1},
                                {5, 5, 9},
                                {2, 40, 3},
                                {1, 50, 9},
                                {50, 1, 9},
                                {1, 1, 99},
                                {20, 33, 27}}) {
    const Tensor a = normal({m, k}, DType::Float32, 50);
    const Tensor b = normal({k, n}, DType::Float32, 51);
    const Tensor start = normal({m, n}, DType::Float32, 52);
    const auto add_product = [&, m = m, n = n, k = k](std::int64_t place) {
      const Tensor c = placed(start, place);
      ops::cpu::gemm<float>(m, n, k, {a.data<float>(), k, 1}, {b.data<float>(), n, 1},
                            c.data<float>(), n, true);
      return c;
    };
    for (std::int64_t place = 1; place < kPlaces; ++place) {
      SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << k << ", " << place);
      expect_same_bits(add_product(place), add_product(0));
    }
  }
}

}  // namespace
}  // namespace tenon
