// Reverse-mode automatic differentiation: the switches, and the two ways to ask for gradients.
#pragma once

#include <span>
#include <vector>

#include "tenon/core/tensor.h"

namespace tenon {

/// Whether ops record a history on this thread.
bool grad_enabled();

/// Switches the recording of history off (or on) for the guard's lifetime, on this thread.
class GradModeGuard {
 public:
  explicit GradModeGuard(bool enabled);
  ~GradModeGuard();
  GradModeGuard(const GradModeGuard&) = delete;
  GradModeGuard& operator=(const GradModeGuard&) = delete;

 private:
  bool previous_;
};

/// No history in this scope: for evaluation and for changing parameters in place.
class NoGradGuard : public GradModeGuard {
 public:
  NoGradGuard() : GradModeGuard(false) {}
};

/// How `backward` and `grad` treat the history.
struct BackwardOptions {
  bool retain_graph = false;  ///< keep the saved tensors for another backward
  /// record the backward itself, for second derivatives; implies `retain_graph`
  bool create_graph = false;
};

/// Adds the gradients of Σ outputs·grad_outputs to `grad()` of every leaf that requires one.
/// `grad_outputs` may be empty when all outputs have one element; each must otherwise have the
/// shape of its output. Throws `Error` when an output does not require a gradient.
void backward(std::span<const Tensor> outputs, std::span<const Tensor> grad_outputs = {},
              BackwardOptions options = {});

/// The gradients of Σ outputs·grad_outputs with respect to `inputs`, which may be any tensors of
/// the history; no `grad()` is touched. An input that the outputs do not depend on gets an
/// undefined tensor with `allow_unused`, otherwise an `Error`.
std::vector<Tensor> grad(std::span<const Tensor> outputs, std::span<const Tensor> inputs,
                         std::span<const Tensor> grad_outputs = {}, BackwardOptions options = {},
                         bool allow_unused = false);

}  // namespace tenon
