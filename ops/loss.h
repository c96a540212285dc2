// Losses. nll_loss and cross_entropy work on contiguous copies of inputs in another memory format;
// gradients of the others keep it. mse_loss and l1_loss are one op where they reduce and both
// dtypes are one (difference_loss.h), otherwise made of elementwise ops.
#pragma once

#include "tenon/core/op.h"

namespace tenon::ops {

/// What is done with the losses of the elements.
enum class Reduction { None, Mean, Sum };

/// -weight[t]·x at the target class t of each sample, and that weight: both 0 where the target is
/// `ignore_index`. Inputs: log probabilities [N, C, ...], target classes int64 [N, ...] and
/// optionally weights [C]; outputs: both [N, ...].
class NllLossOp : public Op {
 public:
  explicit NllLossOp(std::int64_t ignore_index) : ignore_index_(ignore_index) {}
  std::string_view name() const override { return "nll_loss"; }
  Attributes attributes() const override { return {{"ignore_index", ignore_index_}}; }
  std::vector<TensorSpec> infer(std::span<const TensorSpec> inputs) const override;
  std::vector<Tensor> forward(std::span<const Tensor> inputs,
                              std::span<const TensorSpec> outputs) const override;
  Saved saved(IndexMask needs_grad) const override;
  std::vector<Tensor> backward(const BackwardContext& context,
                               std::span<const Tensor> grad_outputs) const override;

 private:
  std::int64_t ignore_index_;
};

// Unlike PyTorch's, which broadcast with a warning, the elementwise losses throw `Error` when the
// shapes of input and target differ.

/// (x - target)²
Tensor mse_loss(const Tensor& x, const Tensor& target, Reduction reduction = Reduction::Mean);
/// |x - target|
Tensor l1_loss(const Tensor& x, const Tensor& target, Reduction reduction = Reduction::Mean);

/// Optional arguments of `bce_with_logits`; both tensors broadcast to the input.
struct BceOptions {
  Tensor weight = {};      ///< factor of each element's loss
  Tensor pos_weight = {};  ///< factor of the positive class
  Reduction reduction = Reduction::Mean;
};
/// Binary cross entropy of sigmoid(x) with targets in [0, 1], accurate for large |x|:
/// -(pos_weight·target·ln σ(x) + (1 - target)·ln(1 - σ(x))).
Tensor bce_with_logits(const Tensor& x, const Tensor& target, const BceOptions& options = {});

/// Optional arguments of `nll_loss`.
struct NllOptions {
  Tensor weight = {};                ///< [C], a factor for each class
  std::int64_t ignore_index = -100;  ///< samples of this class count for nothing
  Reduction reduction = Reduction::Mean;
};
/// Negative log likelihood: -weight[target]·x[target], where `x` holds log probabilities
/// [N, C, ...] (or [C]) and `target` classes, int64 [N, ...] (or 0-dimensional). The mean divides
/// by the sum of the weights that took part. Throws `Error` naming the first target outside [0, C);
/// on a GPU that sample's loss is NaN and the host's next synchronisation throws.
Tensor nll_loss(const Tensor& x, const Tensor& target, const NllOptions& options = {});

/// Optional arguments of `cross_entropy`.
struct CrossEntropyOptions {
  Tensor weight = {};                ///< [C], a factor for each class
  std::int64_t ignore_index = -100;  ///< samples of this class count for nothing
  Reduction reduction = Reduction::Mean;
  double label_smoothing = 0;  ///< share of the target that is spread evenly over all classes
};
/// nll_loss of log_softmax(x) for scores `x` [N, C, ...] (or [C]) and target classes, int64
/// [N, ...]. A floating `target` of x's shape holds class probabilities instead; the mean then
/// divides by the number of samples. Label smoothing: Szegedy et al., "Rethinking the Inception
/// architecture for computer vision", 2016.
Tensor cross_entropy(const Tensor& x, const Tensor& target,
                     const CrossEntropyOptions& options = {});

}  // namespace tenon::ops
