// Checking a gradient against finite differences.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "tenon/core/tensor.h"

namespace tenon {

/// A function of tensors to check.
using TensorFunction = std::function<Tensor(std::span<const Tensor>)>;

/// Central differences of step `step`; a comparison passes when
/// |analytic − numeric| <= absolute + relative·|numeric|.
struct GradcheckOptions {
  double step = 1e-6;
  double absolute = 1e-5;
  double relative = 1e-3;
};

/// Compares the gradients of Σ function(inputs)·v, for a fixed random v, with central differences,
/// for every element of every input that requires a gradient. Those inputs must be float64.
/// Throws `Error` naming the input, the element and both values when they disagree; returns true.
bool gradcheck(const TensorFunction& function, const std::vector<Tensor>& inputs,
               const GradcheckOptions& options = {});

/// The same for second derivatives: gradcheck of the gradients as functions of the inputs.
bool gradgradcheck(const TensorFunction& function, const std::vector<Tensor>& inputs,
                   const GradcheckOptions& options = {});

}  // namespace tenon
