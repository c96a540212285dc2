// Activation functions.
#pragma once

#include <optional>

#include "tenon/core/op.h"

namespace tenon::ops {

/// Which function an `ActivationOp` computes.
enum class ActivationKind {
  Relu,
  LeakyRelu,
  Hardtanh,
  Clamp,
  Tanh,
  Sigmoid,
  LogSigmoid,
  Softplus,
  Elu,
  Gelu,
  GeluTanh,
  Silu,
  Mish,
};

/// The numbers of an activation; what they mean, the kind says. Infinite bounds bound nothing.
struct ActivationParameters {
  double first = 0;   ///< leaky_relu: slope; hardtanh, clamp: min; softplus: beta; elu: alpha
  double second = 0;  ///< hardtanh, clamp: max; softplus: threshold

  bool operator==(const ActivationParameters&) const = default;
};

/// One activation; input and output have the same shape and dtype. Relu, Hardtanh and Clamp take
/// integers too.
class ActivationOp : public Op {
 public:
  /// Use the free functions; they know which parameters a kind has.
  explicit ActivationOp(ActivationKind kind, ActivationParameters parameters = {})
      : kind_(kind), parameters_(parameters) {}
  ActivationKind kind() const { return kind_; }
  const ActivationParameters& parameters() const { return parameters_; }
  /// The bounds of Hardtanh and Clamp; -∞ and ∞ where Clamp has none.
  double min() const { return parameters_.first; }
  double max() const { return parameters_.second; }
  /// "relu", …; "gelu" for both of its kinds, which the attribute "approximate" tells apart.
  std::string_view name() const override;
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  ActivationKind kind_;
  ActivationParameters parameters_;
};

/// (g, s) -> g · f'(s) in one pass, where s is the activation's output for Relu, Tanh and Sigmoid
/// and its input for the others. How `ActivationOp` goes backward.
class ActivationGradOp : public Op {
 public:
  ActivationGradOp(ActivationKind kind, ActivationParameters parameters)
      : kind_(kind), parameters_(parameters) {}
  ActivationKind kind() const { return kind_; }
  std::string_view name() const override { return "activation_grad"; }
  Attributes attributes() const override;
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  ActivationKind kind_;
  ActivationParameters parameters_;
};

// NaN stays NaN in all of them. Those that need a floating dtype give float32 for integers.

/// max(x, 0); the gradient at 0 is 0.
Tensor relu(const Tensor& x);
/// x where positive, otherwise slope · x.
Tensor leaky_relu(const Tensor& x, double negative_slope = 0.01);
/// x limited to [min, max]. No gradient outside nor at the bounds. Throws `Error` when min > max.
Tensor hardtanh(const Tensor& x, double min = -1, double max = 1);
/// x limited to [min, max], either of which may be missing but not both; all elements are `max`
/// when min > max. Unlike `hardtanh`, the gradient passes at the bounds.
Tensor clamp(const Tensor& x, std::optional<Scalar> min, std::optional<Scalar> max = std::nullopt);
/// Hyperbolic tangent.
Tensor tanh(const Tensor& x);
/// 1 / (1 + e^-x)
Tensor sigmoid(const Tensor& x);
/// ln sigmoid(x), accurate for large |x|.
Tensor log_sigmoid(const Tensor& x);
/// ln(1 + e^(beta·x)) / beta, and x itself where beta·x > threshold. Throws `Error` for beta 0.
Tensor softplus(const Tensor& x, double beta = 1, double threshold = 20);
/// x where positive, otherwise alpha · (e^x - 1). Clevert et al., "Fast and accurate deep network
/// learning by exponential linear units", 2016.
Tensor elu(const Tensor& x, double alpha = 1);

/// How `gelu` computes the normal distribution function.
enum class GeluApproximation { None, Tanh };
/// x · Φ(x), Φ the standard normal distribution function; with `Tanh`, Φ(x) ≈
/// (1 + tanh(√(2/π) · (x + 0.044715·x³))) / 2. Hendrycks and Gimpel, "Gaussian error linear
/// units", 2016.
Tensor gelu(const Tensor& x, GeluApproximation approximation = GeluApproximation::None);
/// x · sigmoid(x), also known as swish.
Tensor silu(const Tensor& x);
/// x · tanh(softplus(x)). Misra, "Mish: a self regularized non-monotonic activation function",
/// 2019.
Tensor mish(const Tensor& x);

}  // namespace tenon::ops
