#include "tenon/core/gradcheck.h"

#include <cmath>
#include <string>
#include <string_view>

#include "tenon/core/autograd.h"
#include "tenon/core/factories.h"

namespace tenon {
namespace {

/// A function with several outputs, which gradients are.
using TensorsFunction = std::function<std::vector<Tensor>(std::span<const Tensor>)>;

/// Weights of the outputs, fixed so that a failure can be repeated.
Tensor random_weights(const Tensor& output, Generator& generator) {
  Tensor weights = empty(output.shape(), {.dtype = output.dtype()});
  uniform_(weights, -1, 1, generator);
  return weights;
}

std::vector<std::size_t> indices_of_wanted(std::string_view check, std::span<const Tensor> inputs) {
  std::vector<std::size_t> wanted;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].requires_grad()) continue;
    TENON_CHECK(inputs[i].dtype() == DType::Float64, check, ": input ", i, " is ", inputs[i].spec(),
                "; finite differences need float64");
    wanted.push_back(i);
  }
  TENON_CHECK(!wanted.empty(), check, ": none of the ", inputs.size(),
              " inputs requires a gradient");
  return wanted;
}

/// Σ outputs·weights.
double weighted_sum(std::span<const Tensor> outputs, std::span<const Tensor> weights) {
  double sum = 0;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    const std::vector<double> values = outputs[k].to_vector<double>();
    const std::vector<double> factors = weights[k].to_vector<double>();
    for (std::size_t i = 0; i < values.size(); ++i) sum += values[i] * factors[i];
  }
  return sum;
}

/// The gradients that the ops compute; zeros where an input has no influence.
std::vector<std::vector<double>> analytic_gradients(std::span<const Tensor> outputs,
                                                    std::span<const Tensor> weights,
                                                    std::span<const Tensor> inputs) {
  std::vector<Tensor> roots;
  std::vector<Tensor> root_weights;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    if (!outputs[k].requires_grad()) continue;
    roots.push_back(outputs[k]);
    root_weights.push_back(weights[k]);
  }
  std::vector<Tensor> gradients(inputs.size());
  if (!roots.empty()) gradients = grad(roots, inputs, root_weights, {}, true);
  std::vector<std::vector<double>> values;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    values.push_back(gradients[i].defined()
                         ? gradients[i].to_vector<double>()
                         : std::vector<double>(static_cast<std::size_t>(inputs[i].numel()), 0.0));
  }
  return values;
}

/// Row-major position `position` of `shape`, as "[1, 0, 2]".
std::string index_text(const Shape& shape, std::int64_t position) {
  Shape index = shape;
  for (std::size_t d = shape.size(); d-- > 0;) {
    index[d] = position % shape[d];
    position /= shape[d];
  }
  return index.to_string();
}

/// Where row-major position `position` of `tensor` lies, in elements from the first.
std::int64_t offset_of(const Tensor& tensor, std::int64_t position) {
  std::int64_t offset = 0;
  for (std::size_t d = tensor.dim(); d-- > 0;) {
    offset += position % tensor.shape()[d] * tensor.strides()[d];
    position /= tensor.shape()[d];
  }
  return offset;
}

/// Compares the gradients of Σ function(inputs)·weights with differences. The differences are
/// taken at copies, so that the inputs stay as they are and may have any strides.
bool check_gradients(std::string_view check, const TensorsFunction& function,
                     const std::vector<Tensor>& inputs, const GradcheckOptions& options) {
  const std::vector<std::size_t> wanted = indices_of_wanted(check, inputs);
  std::vector<Tensor> weights;
  std::vector<std::vector<double>> analytic;
  {
    const GradModeGuard recording(true);
    const std::vector<Tensor> outputs = function(inputs);
    Generator generator(20111112);
    for (const Tensor& output : outputs) {
      TENON_CHECK(is_floating(output.dtype()), check, ": the function's output is ", output.spec(),
                  ", which has no gradient");
      weights.push_back(random_weights(output, generator));
    }
    std::vector<Tensor> wanted_inputs;
    for (std::size_t i : wanted) wanted_inputs.push_back(inputs[i]);
    analytic = analytic_gradients(outputs, weights, wanted_inputs);
  }

  const NoGradGuard plain_evaluation;
  std::vector<Tensor> moved;
  for (const Tensor& input : inputs) moved.push_back(input.clone());
  for (std::size_t k = 0; k < wanted.size(); ++k) {
    const Tensor& input = moved[wanted[k]];
    double* elements = input.data<double>();
    for (std::int64_t e = 0; e < input.numel(); ++e) {
      double& element = elements[offset_of(input, e)];
      const double center = element;
      element = center + options.step;
      const double above = weighted_sum(function(moved), weights);
      element = center - options.step;
      const double below = weighted_sum(function(moved), weights);
      element = center;
      const double numeric = (above - below) / (2 * options.step);
      const double ours = analytic[k][static_cast<std::size_t>(e)];
      TENON_CHECK(
          std::abs(ours - numeric) <= options.absolute + options.relative * std::abs(numeric),
          check, ": input ", wanted[k], ", element ", index_text(input.shape(), e),
          ": the gradient is ", ours, ", central differences give ", numeric);
    }
  }
  return true;
}

}  // namespace

bool gradcheck(const TensorFunction& function, const std::vector<Tensor>& inputs,
               const GradcheckOptions& options) {
  return check_gradients(
      "gradcheck",
      [&](std::span<const Tensor> arguments) { return std::vector<Tensor>{function(arguments)}; },
      inputs, options);
}

bool gradgradcheck(const TensorFunction& function, const std::vector<Tensor>& inputs,
                   const GradcheckOptions& options) {
  const std::vector<std::size_t> wanted = indices_of_wanted("gradgradcheck", inputs);
  // The gradients also depend on those of the output, which so become the last input.
  std::vector<Tensor> extended = inputs;
  Generator generator(20111113);
  {
    const NoGradGuard only_the_shape;
    extended.push_back(random_weights(function(inputs), generator));
  }
  extended.back().requires_grad_();
  const TensorsFunction gradients = [&](std::span<const Tensor> arguments) {
    const GradModeGuard recording(true);
    std::vector<Tensor> tracked(arguments.begin(), arguments.end());
    std::vector<Tensor> differentiated;
    for (std::size_t i : wanted) {
      if (!tracked[i].requires_grad()) tracked[i] = tracked[i].detach().requires_grad_();
      differentiated.push_back(tracked[i]);
    }
    const Tensor output = function(std::span<const Tensor>(tracked).first(inputs.size()));
    std::vector<Tensor> result(differentiated.size());
    if (output.requires_grad()) {
      const std::vector<Tensor> outputs{output};
      const std::vector<Tensor> weights{tracked.back()};
      result = grad(outputs, differentiated, weights, {.create_graph = true}, true);
    }
    for (std::size_t k = 0; k < result.size(); ++k) {
      if (!result[k].defined()) result[k] = zeros_like(differentiated[k]);
    }
    return result;
  };
  return check_gradients("gradgradcheck", gradients, extended, options);
}

}  // namespace tenon
