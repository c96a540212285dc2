// The harness that every op is tested with. A test file lists cases, and gets for each of them
// tests of its values, of its gradients and of its second derivatives:
//
//   const std::vector<OpCase> kCases = {
//       {.name = "mish",                                  // names the test
//        .function = [](Inputs x) { return ops::mish(x[0]); },
//        .reference = elementwise([](Values v) { return v[0] *
//        std::tanh(std::log1p(std::exp(v[0]))); }), .shapes = unary_shapes(), // sets of input
//        shapes .low = -6, .high = 6},                           // inputs are uniform in between
//       {.name = "matmul",
//        .function = [](Inputs x) { return ops::matmul(x[0], x[1]); },
//        .reference = reference_matmul,                   // float64 tensors -> float64 tensor
//        .shapes = {{{3, 5}, {5, 7}}, {{1, 1}, {1, 1}}, {{0, 5}, {5, 2}}},
//        .slack = 8},                                     // widens the tolerance: sums round
//   };
//   TENON_OP_TESTS(Matmul, kCases);    // or TENON_VALUE_TESTS, for an op without gradients
//
// What is checked, each as a test of its own, on the CPU and, as "<name>_cuda", on the GPU if there
// is one:
//   Values           every dtype of the case, every set of shapes, against the reference on the
//                    same (rounded) inputs in float64
//   Layouts          the same on inputs that are permuted, strided, cut out and expanded
//   Gradients        finite differences in float64, on contiguous and on permuted inputs, and
//                    every floating dtype against float64
//   SecondGradients  finite differences of the gradients
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <ostream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"
#include "tenon/core/gradcheck.h"
#include "tenon/tests/support/devices.h"

namespace tenon::test {

using Inputs = std::span<const Tensor>;
using Values = std::span<const double>;

/// An op with its reference, as the comment above shows.
struct OpCase {
  std::string name = {};
  std::function<Tensor(Inputs)> function = {};
  /// Takes float64 inputs; integer and bool results are expected to agree exactly.
  std::function<Tensor(Inputs)> reference = {};
  /// Shapes of the inputs, one set after another.
  std::vector<std::vector<Shape>> shapes = {};
  double low = -2;
  double high = 2;
  std::vector<DType> dtypes = {DType::Float32, DType::Float64, DType::Float16, DType::BFloat16};
  /// Factor of the tolerances.
  double slack = 1;
};

/// A case on one of the devices.
struct OpRun {
  OpCase op_case;
  Device device;
};

inline std::string name(const OpRun& run) {
  return run.op_case.name + (run.device.is_cuda() ? "_cuda" : "");
}

inline std::ostream& operator<<(std::ostream& out, const OpRun& run) { return out << name(run); }

/// Every case on every device.
inline std::vector<OpRun> runs_of(const std::vector<OpCase>& cases) {
  std::vector<OpRun> runs;
  for (const Device device : test_devices()) {
    for (const OpCase& op_case : cases) runs.push_back({op_case, device});
  }
  return runs;
}

/// What a result may be off by: |result - reference| <= relative·|reference| + absolute.
struct Tolerance {
  double relative;
  double absolute;
};

inline Tolerance tolerance_of(DType dtype) {
  switch (dtype) {
    case DType::Float64:
      return {1e-13, 1e-14};
    case DType::Float32:
      return {1e-6, 1e-7};
    case DType::Float16:
      return {0x1p-10, 1e-6};
    case DType::BFloat16:
      return {0x1p-8, 1e-6};
    default:
      return {0, 0};
  }
}

/// Shapes for an op of one tensor: none, one and many dimensions, sizes 0 and 1, odd sizes, and
/// more elements than one block of a kernel holds.
inline std::vector<std::vector<Shape>> unary_shapes() {
  return {{{}},        {{1}},    {{7}}, {{3, 5}},    {{2, 3, 5}},
          {{1, 7, 1}}, {{1031}}, {{0}}, {{3, 0, 2}}, {{5, 3, 41}}};
}

/// Pairs of shapes with every way to broadcast.
inline std::vector<std::vector<Shape>> broadcast_shapes_of_two() {
  return {{{3, 5}, {3, 5}},
          {{3, 5}, {5}},
          {{5}, {3, 5}},
          {{3, 5}, {1, 5}},
          {{3, 1}, {3, 5}},
          {{3, 1}, {1, 5}},
          {{3, 5}, {}},
          {{}, {3, 5}},
          {{}, {}},
          {{2, 1, 5}, {3, 1}},
          {{7}, {2, 3, 7}},
          {{1}, {1, 1}},
          {{2, 3, 1, 2}, {5, 1}},
          {{0, 5}, {1, 5}},
          {{3, 0}, {1}},
          {{}, {0}},
          {{700, 3}, {700, 1}},
          {{1, 1031}, {3, 1}}};
}

/// The reference of an elementwise op: `function` of the elements of the broadcast inputs.
inline std::function<Tensor(Inputs)> elementwise(std::function<double(Values)> function) {
  return [function = std::move(function)](Inputs inputs) {
    Shape shape;
    for (const Tensor& input : inputs) shape = broadcast_shapes(shape, input.shape(), "reference");
    std::vector<std::vector<double>> columns;
    for (const Tensor& input : inputs) columns.push_back(input.expand(shape).to_vector<double>());
    std::vector<double> results(static_cast<std::size_t>(shape.numel()));
    std::vector<double> arguments(inputs.size());
    for (std::size_t i = 0; i < results.size(); ++i) {
      for (std::size_t k = 0; k < columns.size(); ++k) arguments[k] = columns[k][i];
      results[i] = function(arguments);
    }
    return tensor(results, shape);
  };
}

/// Expects shape and values of `reference` (float64) within `tolerance`. NaN and ∞ must agree.
inline void expect_within(const Tensor& result, const Tensor& reference, Tolerance tolerance,
                          const std::string& what) {
  ASSERT_TRUE(result.defined()) << what;
  ASSERT_EQ(result.shape(), reference.shape()) << what;
  const std::vector<double> ours = result.to_vector<double>();
  const std::vector<double> theirs = reference.to_vector<double>();
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const bool same = ours[i] == theirs[i] || (std::isnan(ours[i]) && std::isnan(theirs[i]));
    const double allowed = tolerance.relative * std::abs(theirs[i]) + tolerance.absolute;
    ASSERT_TRUE(same || std::abs(ours[i] - theirs[i]) <= allowed)
        << what << " (" << result.spec() << "), element " << i << ": got " << ours[i]
        << ", expected " << theirs[i] << ", off by " << std::abs(ours[i] - theirs[i]) << " where "
        << allowed << " is allowed";
  }
}

/// The same within `slack` times the tolerance of result's dtype.
inline void expect_close(const Tensor& result, const Tensor& reference, double slack = 1,
                         const std::string& what = "result") {
  const Tolerance tolerance = tolerance_of(result.dtype());
  expect_within(result, reference, {slack * tolerance.relative, slack * tolerance.absolute}, what);
}

/// Values uniform in [low, high), or integers from that range, in `dtype`.
inline Tensor draw(const Shape& shape, DType dtype, double low, double high, Generator& generator) {
  if (dtype == DType::Bool) return randint(0, 2, shape, {}, generator).to(DType::Bool);
  if (!is_floating(dtype)) {
    const auto first = static_cast<std::int64_t>(std::ceil(low));
    const auto last = static_cast<std::int64_t>(std::floor(high));
    return randint(first, last + 1, shape, {}, generator).to(dtype);
  }
  const Tensor wide = empty(shape, {.dtype = DType::Float64});
  uniform_(wide, low, high, generator);
  return wide.to(dtype);
}

/// One way to lay a tensor of given shape out in memory.
struct Layout {
  std::string name;
  std::function<Tensor(const Tensor&)> apply;
};

/// The elements in column-major order.
inline Tensor permuted(const Tensor& x) {
  Shape reversed;
  for (std::size_t d = x.dim(); d-- > 0;) reversed.push_back(static_cast<std::int64_t>(d));
  return x.permute(reversed).contiguous().permute(reversed);
}

/// Every second element of a larger tensor.
inline Tensor strided(const Tensor& x) {
  if (x.dim() == 0) return x;
  Shape larger = x.shape();
  larger.back() = 2 * larger.back() + 1;
  const Tensor wide = ones(larger, {.dtype = x.dtype(), .device = x.device()});
  const Tensor view = wide.slice(-1, 1, INT64_MAX, 2);
  view.copy_(x);
  return view;
}

/// The middle of a larger tensor.
inline Tensor cut_out(const Tensor& x) {
  if (x.dim() == 0) return x;
  Shape larger = x.shape();
  for (std::int64_t& size : larger) size += 2;
  Tensor view = ones(larger, {.dtype = x.dtype(), .device = x.device()});
  for (std::size_t d = 0; d < x.dim(); ++d) {
    view = view.narrow(static_cast<std::int64_t>(d), 1, x.shape()[d]);
  }
  view.copy_(x);
  return view;
}

/// The first element of dimension 0, repeated with stride 0.
inline Tensor expanded(const Tensor& x) {
  if (x.dim() == 0 || x.shape()[0] == 0) return x;
  return x.narrow(0, 0, 1).expand(x.shape());
}

inline std::vector<Layout> layouts() {
  return {
      {"permuted", permuted}, {"strided", strided}, {"cut_out", cut_out}, {"expanded", expanded}};
}

namespace detail {

/// The case's inputs of these shapes, the same values on every device.
inline std::vector<Tensor> draw_inputs(const OpCase& op_case, const std::vector<Shape>& shapes,
                                       DType dtype, Device device) {
  Generator generator(20240607);
  std::vector<Tensor> inputs;
  for (const Shape& shape : shapes) {
    inputs.push_back(draw(shape, dtype, op_case.low, op_case.high, generator).to(device));
  }
  return inputs;
}

/// What references take: float64 on the CPU.
inline std::vector<Tensor> as_float64(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> result;
  for (const Tensor& tensor : tensors) {
    result.push_back(tensor.to(Device::cpu(), DType::Float64));
  }
  return result;
}

inline std::string describe(const std::vector<Shape>& shapes, DType dtype) {
  std::ostringstream text;
  text << dtype;
  for (const Shape& shape : shapes) text << ' ' << shape;
  return text.str();
}

/// Finite differences take a forward for every element: leave those to the smaller shapes.
inline bool is_small(const std::vector<Shape>& shapes) {
  std::int64_t elements = 0;
  for (const Shape& shape : shapes) elements += shape.numel();
  return elements <= 64;
}

inline std::vector<Tensor> leaves(const std::vector<Tensor>& inputs) {
  std::vector<Tensor> result;
  for (const Tensor& input : inputs) result.push_back(input.detach().requires_grad_());
  return result;
}

/// Gradients of the output weighted with 1, 2/3, 1/2, 2/5, …, which every dtype rounds alike.
inline std::vector<Tensor> gradients_of(const OpCase& op_case, const std::vector<Tensor>& inputs) {
  const std::vector<Tensor> x = leaves(inputs);
  const std::vector<Tensor> outputs = {op_case.function(x)};
  std::vector<double> weights(static_cast<std::size_t>(outputs[0].numel()));
  for (std::size_t i = 0; i < weights.size(); ++i)
    weights[i] = 0.25 * static_cast<double>(1 + i % 4);
  const std::vector<Tensor> seeds = {
      tensor(weights, outputs[0].shape()).to(outputs[0].device(), outputs[0].dtype())};
  return grad(outputs, x, seeds, {}, true);
}

/// The case's function of inputs on the CPU, computed on `device`: what finite differences, which
/// change single elements, are taken of.
inline std::function<Tensor(Inputs)> on_device(const OpRun& run) {
  return [&run](Inputs inputs) {
    std::vector<Tensor> moved;
    for (const Tensor& input : inputs) moved.push_back(input.to(run.device));
    return run.op_case.function(moved).to(Device::cpu());
  };
}

}  // namespace detail

inline void check_values(const OpRun& run) {
  const OpCase& op_case = run.op_case;
  for (const DType dtype : op_case.dtypes) {
    for (const std::vector<Shape>& shapes : op_case.shapes) {
      const std::vector<Tensor> inputs = detail::draw_inputs(op_case, shapes, dtype, run.device);
      expect_close(op_case.function(inputs), op_case.reference(detail::as_float64(inputs)),
                   op_case.slack, detail::describe(shapes, dtype));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

inline void check_layouts(const OpRun& run) {
  const OpCase& op_case = run.op_case;
  for (const DType dtype : op_case.dtypes) {
    for (const Layout& layout : layouts()) {
      for (const std::vector<Shape>& shapes : op_case.shapes) {
        std::vector<Tensor> inputs = detail::draw_inputs(op_case, shapes, dtype, run.device);
        for (Tensor& input : inputs) input = layout.apply(input);
        expect_close(op_case.function(inputs), op_case.reference(detail::as_float64(inputs)),
                     op_case.slack,
                     tenon::detail::concat(layout.name, " ", detail::describe(shapes, dtype)));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

inline void check_gradients(const OpRun& run) {
  const OpCase& op_case = run.op_case;
  for (const std::vector<Shape>& shapes : op_case.shapes) {
    SCOPED_TRACE(detail::describe(shapes, DType::Float64));
    std::vector<Tensor> inputs =
        detail::draw_inputs(op_case, shapes, DType::Float64, Device::cpu());
    if (detail::is_small(shapes)) {
      EXPECT_NO_THROW(gradcheck(detail::on_device(run), detail::leaves(inputs)));
      for (Tensor& input : inputs) input = permuted(input);
      EXPECT_NO_THROW(gradcheck(detail::on_device(run), detail::leaves(inputs)));
    }
    for (const DType dtype : op_case.dtypes) {
      if (!is_floating(dtype)) continue;
      inputs = detail::draw_inputs(op_case, shapes, dtype, run.device);
      const std::vector<Tensor> ours = detail::gradients_of(op_case, inputs);
      const std::vector<Tensor> wide = detail::gradients_of(op_case, detail::as_float64(inputs));
      for (std::size_t i = 0; i < ours.size(); ++i) {
        if (!wide[i].defined()) continue;
        // A gradient runs through several ops, each of which rounds. One that is computed from a
        // rounded output, such as 1 - tanh², is as wrong as that is, however small it is itself.
        const double unit = op_case.slack * tolerance_of(dtype).relative;
        expect_within(ours[i], wide[i], {16 * unit, 4 * unit},
                      tenon::detail::concat("gradient ", i));
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

inline void check_second_gradients(const OpRun& run) {
  const OpCase& op_case = run.op_case;
  for (const std::vector<Shape>& shapes : op_case.shapes) {
    if (!detail::is_small(shapes)) continue;
    SCOPED_TRACE(detail::describe(shapes, DType::Float64));
    const std::vector<Tensor> inputs =
        detail::draw_inputs(op_case, shapes, DType::Float64, Device::cpu());
    EXPECT_NO_THROW(gradgradcheck(detail::on_device(run), detail::leaves(inputs)));
  }
}

class OpTest : public testing::TestWithParam<OpRun> {};

inline std::string run_name(const testing::TestParamInfo<OpRun>& info) { return name(info.param); }

}  // namespace tenon::test

/// The tests of values and layouts of all `cases` (a range of OpCase), for ops without gradients.
#define TENON_VALUE_TESTS(Suite, cases)                                               \
  class Suite : public tenon::test::OpTest {};                                        \
  TEST_P(Suite, Values) { tenon::test::check_values(GetParam()); }                    \
  TEST_P(Suite, Layouts) { tenon::test::check_layouts(GetParam()); }                  \
  TEST(Suite##OnCuda, TakesPart) { TENON_SKIP_WITHOUT_GPU(); }                        \
  INSTANTIATE_TEST_SUITE_P(Op, Suite, testing::ValuesIn(tenon::test::runs_of(cases)), \
                           tenon::test::run_name)

/// All tests of all `cases` (a range of OpCase), as suite `Suite`.
#define TENON_OP_TESTS(Suite, cases)                                                  \
  TENON_VALUE_TESTS(Suite, cases);                                                    \
  TEST_P(Suite, Gradients) { tenon::test::check_gradients(GetParam()); }              \
  TEST_P(Suite, SecondGradients) { tenon::test::check_second_gradients(GetParam()); } \
  static_assert(true)
