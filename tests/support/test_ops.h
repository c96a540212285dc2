// A few ops that only tests use, so that core's tests need nothing above core.
#pragma once

#include <cmath>
#include <functional>
#include <string_view>
#include <vector>

#include "tenon/core/factories.h"
#include "tenon/core/op.h"
#include "tenon/core/structural.h"

namespace tenon::test {

/// function(x) for each element, computed in float64.
inline Tensor map(const Tensor& x, const std::function<double(double)>& function) {
  std::vector<double> values = x.to_vector<double>();
  for (double& value : values) value = function(value);
  return tensor(values, x.shape()).to(x.dtype());
}

/// a · b for equal shapes and dtypes.
class MulOp : public Op {
 public:
  std::string_view name() const override { return "test_mul"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override {
    TENON_CHECK(inputs[0] == inputs[1], "test_mul: the factors are ", inputs[0], " and ",
                inputs[1]);
    return {inputs[0]};
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    const std::vector<double> a = inputs[0].to_vector<double>();
    std::vector<double> product = inputs[1].to_vector<double>();
    for (std::size_t i = 0; i < a.size(); ++i) product[i] *= a[i];
    return {tensor(product, inputs[0].shape()).to(inputs[0].dtype())};
  }
  Saved saved(IndexMask needs_grad) const override {
    Saved wanted;
    if ((needs_grad & index_bit(0)) != 0) wanted.inputs |= index_bit(1);
    if ((needs_grad & index_bit(1)) != 0) wanted.inputs |= index_bit(0);
    return wanted;
  }
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override {
    // Not as one initializer list: GCC 12 and 13 destroy what was never made when `input` throws
    // inside a conditional expression there.
    const Tensor& g = grad_outputs[0];
    std::vector<Tensor> result(2);
    if (context.needs_grad(0)) result[0] = apply(MulOp(), {g, context.input(1)});
    if (context.needs_grad(1)) result[1] = apply(MulOp(), {g, context.input(0)});
    return result;
  }
};

inline Tensor mul(const Tensor& a, const Tensor& b) { return apply(MulOp(), {a, b}); }

/// Multiplies by a number. Saves nothing.
class ScaleOp : public Op {
 public:
  explicit ScaleOp(double factor) : factor_(factor) {}
  std::string_view name() const override { return "test_scale"; }
  Attributes attributes() const override { return {{"factor", factor_}}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override {
    return {inputs[0]};
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    return {map(inputs[0], [&](double value) { return factor_ * value; })};
  }
  std::vector<Tensor> backward(const BackwardContext&,
                               std::span<const Tensor> grad_outputs) const override {
    return {apply(ScaleOp(factor_), {grad_outputs[0]})};
  }

 private:
  double factor_;
};

inline Tensor scale(const Tensor& x, double factor) { return apply(ScaleOp(factor), {x}); }

/// e^x. Saves its output.
class ExpOp : public Op {
 public:
  std::string_view name() const override { return "test_exp"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override {
    return {inputs[0]};
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    return {map(inputs[0], [](double value) { return std::exp(value); })};
  }
  Saved saved(IndexMask) const override { return {.outputs = index_bit(0)}; }
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override {
    return {mul(grad_outputs[0], context.output(0))};
  }
};

inline Tensor exp(const Tensor& x) { return apply(ExpOp(), {x}); }

/// Two outputs: x² and x³.
class PowersOp : public Op {
 public:
  std::string_view name() const override { return "test_powers"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override {
    return {inputs[0], inputs[0]};
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    return {map(inputs[0], [](double value) { return value * value; }),
            map(inputs[0], [](double value) { return value * value * value; })};
  }
  Saved saved(IndexMask) const override { return {.inputs = index_bit(0)}; }
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override {
    const Tensor x = context.input(0);
    const Tensor of_square = scale(mul(grad_outputs[0], x), 2);
    const Tensor of_cube = scale(mul(grad_outputs[1], mul(x, x)), 3);
    return {accumulate(of_square, of_cube)};
  }
};

inline std::vector<Tensor> powers(const Tensor& x) {
  const Tensor inputs[] = {x};
  return call(std::make_shared<const PowersOp>(), inputs);
}

/// The identity, with a backward that the test gives.
class CustomBackwardOp : public Op {
 public:
  using Backward =
      std::function<std::vector<Tensor>(const BackwardContext&, std::span<const Tensor>)>;
  explicit CustomBackwardOp(Backward backward, Saved saved = {})
      : backward_(std::move(backward)), saved_(saved) {}
  std::string_view name() const override { return "test_custom"; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override {
    return {inputs[0]};
  }
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec>) const override {
    return {inputs[0]};
  }
  Saved saved(IndexMask) const override { return saved_; }
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override {
    return backward_(context, grad_outputs);
  }

 private:
  Backward backward_;
  Saved saved_;
};

/// Σ x, 0-dimensional.
inline Tensor sum(const Tensor& x) { return sum_to(x, {}); }

}  // namespace tenon::test
